"""What all adapters together change, by the names of the base's tensors.

The sum of several adapters is W + sum of weight * delta, each delta exact: no cross terms and no
rank cut off. What takes a tensor's place has no delta of its own, so it is taken from one adapter
of weight 1 or refused, and so is DoRA, whose norms depend on the rest of the sum.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.merging.adapter import Adapter, LoraTarget, TokenRows, same_values
from lora_jobs.merging.experts import Slice, matrices_of
from lora_jobs.merging.variants import refuse_parameter
from lora_jobs.weightfiles import TensorEntry, name_in_base

Base = Mapping[str, TensorEntry]


@dataclass(frozen=True)
class Term:
    """One summand of a weight: scaling * B @ A of the target.

    Attributes:
        part: Of A and B, where they are those of many experts.
    """

    target: LoraTarget
    scaling: float
    part: Slice | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return (self.part.rows if self.part else self.target.outer, self.target.inner)


@dataclass(frozen=True)
class BiasTerm:
    """One summand of a bias: scaling * vector."""

    vector: TensorEntry
    scaling: float


@dataclass
class Change:
    """What happens to one tensor.

    Attributes:
        under: Takes the place of the base's tensor, also for a layer that shares it.
        saved: Takes the place of this layer's tensor alone.
        rows: Take the place of some rows.
        trained_on: What the adapters say they were trained on; a hint for people.
    """

    terms: list[Term] = field(default_factory=list)
    biases: list[BiasTerm] = field(default_factory=list)
    under: TensorEntry | None = None
    saved: TensorEntry | None = None
    rows: TokenRows | None = None
    trained_on: str = ""


@dataclass(frozen=True)
class Weighted:
    """An adapter and its weight in the sum."""

    adapter: Adapter
    weight: float = 1.0


def collect_changes(base: Base, adapters: Sequence[Weighted], tied_head: str) -> dict[str, Change]:
    """Everything that the adapters change.

    Args:
        base: The base's tensors by name.
        adapters: At least one.
        tied_head: Name of the embedding whose weights the head shares, or empty.

    Raises:
        Refused: The base has no such tensor, or adapters cannot be summed.
    """
    changes: dict[str, Change] = {}
    replaced_by: dict[str, Weighted] = {}
    for weighted in adapters:
        adapter = weighted.adapter
        of_base = _OfBase(base, adapter.trained_on)
        is_sum = len(adapters) > 1 or weighted.weight != 1
        for module, target in adapter.targets.items():
            if target.magnitude is not None and is_sum:
                raise _not_summed(f"DoRA of {module}", "its norms belong to the base alone")
            scaling = weighted.weight * target.scaling
            for name, part in _weights_of(module, target, of_base):
                change = changes.setdefault(name, Change())
                change.terms.append(Term(target, scaling, part))
                change.trained_on = adapter.trained_on
            if target.bias is not None:
                bias = changes.setdefault(of_base.bias(module), Change())
                bias.biases.append(BiasTerm(target.bias, scaling))
        replacements = _replacements(adapter, of_base, tied_head)
        _check_biases(of_base, adapter)
        for name, own in replacements.items():
            if is_sum and (weighted.weight != 1 or name in replaced_by):
                raise _not_summed(f"the whole or rows of {name}", "they have no delta")
            replaced_by[name] = weighted
            change = changes.setdefault(name, Change())
            change.under, change.saved, change.rows = own.under, own.saved, own.rows
            change.trained_on = adapter.trained_on
    for name in replaced_by.keys() & changes.keys():
        if len(adapters) > 1 and (changes[name].terms or changes[name].biases):
            raise _not_summed(f"the whole or rows of {name} and an update", "they have no delta")
    return changes


@dataclass(frozen=True)
class _OfBase:
    """Names of an adapter's modules as the base has them."""

    base: Base
    trained_on: str

    def name(self, wanted: str) -> str:
        """The base's name of a tensor; a head's own name although it may be tied."""
        is_own = wanted in self.base or is_head(wanted)
        found = wanted if is_own else name_in_base(wanted, self.base)
        if found is not None:
            return found
        hint = f"; the adapter says it was trained on {self.trained_on}" if self.trained_on else ""
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter changes {wanted}, which the base does not have{hint}; name that base",
        )

    def bias(self, module: str) -> str:
        """The bias that a `lora_bias` is added to."""
        try:
            return self.name(f"{module}.bias")
        except Refused:
            raise Refused(
                Reason.UNSUPPORTED_ADAPTER,
                f"the adapter adds a bias (lora_bias) to {module}, which has none in the base: "
                "train it without lora_bias",
            ) from None


def _weights_of(
    module: str, target: LoraTarget, of_base: _OfBase
) -> Iterable[tuple[str, Slice | None]]:
    """The base's weights that a target changes, and by what part of it."""
    if not target.experts:
        return [(of_base.name(f"{module}.weight"), None)]
    found = list(matrices_of(target.module, target.outer, target.experts, of_base.base))
    if not found:
        raise refuse_parameter(f"{target.module} of {target.experts} experts")
    return found


def is_head(name: str) -> bool:
    """Whether a tensor is the weight of an output layer, which may be tied to the embedding."""
    return name.endswith(("lm_head.weight", "embed_out.weight"))


def _replacements(adapter: Adapter, of_base: _OfBase, tied_head: str) -> dict[str, Change]:
    """What takes the place of tensors; copies of the base's own are left out.

    PEFT saves such a copy with every embedding or head that an adapter targets.
    """
    base, found = of_base.base, dict[str, Change]()
    for name, tensor in adapter.under.items():
        name = of_base.name(name)
        own = base.get(name) or base.get(tied_head)
        if own is None or not same_values(own, tensor):
            found.setdefault(name, Change()).under = tensor
    for name, tensor in adapter.saved.items():
        found.setdefault(of_base.name(name), Change()).saved = tensor
    for module, rows in adapter.tokens.items():
        found.setdefault(of_base.name(f"{module}.weight"), Change()).rows = rows
    return found


def _check_biases(of_base: _OfBase, adapter: Adapter) -> None:
    """Every bias that the config says was trained must be there."""
    if adapter.bias == "lora_only":
        names = {name_in_base(f"{module}.bias", of_base.base) for module in adapter.targets}
        trained = {name for name in names if name is not None}
    elif adapter.bias == "all":
        # Attention masks of old files are called bias too, and have more dimensions.
        biases = (n for n in of_base.base if n.endswith(".bias"))
        trained = {n for n in biases if len(of_base.base[n].shape) == 1}
    else:
        return
    missing = sorted(trained - {of_base.name(n) for n in (*adapter.under, *adapter.saved)})
    if missing:
        raise Refused(
            Reason.INVALID_INPUT,
            f"the adapter's config says bias={adapter.bias}, but its weights have no "
            f"{missing[0]}; upload the two files that PEFT saved together",
        )


def _not_summed(what: str, why: str) -> Refused:
    return Refused(
        Reason.UNSUPPORTED_ADAPTER,
        f"the adapters cannot be summed: one changes {what}, and {why}; merge that one first and "
        "give the result as baseModel",
    )
