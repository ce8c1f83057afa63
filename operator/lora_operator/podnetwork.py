"""What the chart decides about the network of stage and serving pods."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PodNetwork:
    """Settings of the NetworkPolicies that each object gets.

    Attributes:
        dns_ports: Ports of DNS, on any address.
        egress_ports: Further ports that pods may reach: of pods behind an endpoint's Service, of a
            metadata server.
        egress_cidrs: Where stores and sources are; empty is anywhere.
        clients: Who may ask serving pods, as `from` of a NetworkPolicy; empty is anybody.
    """

    dns_ports: tuple[int, ...] = (53,)
    egress_ports: tuple[int, ...] = ()
    egress_cidrs: tuple[str, ...] = ()
    clients: tuple[dict[str, Any], ...] = ()


def parse_pod_network(text: str) -> PodNetwork | None:
    """Read `LORA_OPERATOR_POD_NETWORK`; empty is no policies.

    Raises:
        ValueError: It is no JSON object of these settings.
    """
    if not text:
        return None
    try:
        document = json.loads(text)
        return PodNetwork(
            dns_ports=tuple(int(port) for port in document["dnsPorts"]),
            egress_ports=tuple(int(port) for port in document["egressPorts"]),
            egress_cidrs=tuple(str(cidr) for cidr in document["egressCIDRs"]),
            clients=tuple(dict(peer) for peer in document["clients"]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"LORA_OPERATOR_POD_NETWORK cannot be read: {error!r}") from error
