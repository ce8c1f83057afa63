"""Keys of the store, relative to `<uri>/<scope>`.

One model per prefix, and no key is the folder of another: POSIX-backed servers cannot hold both.
"""

from functools import lru_cache

from lora_api.digests import digest_of


def scope(namespace: str, cluster_name: str = "") -> str:
    """Who shares one action cache."""
    return f"{cluster_name}/{namespace}" if cluster_name else namespace


@lru_cache(maxsize=4096)  # asked for every source at each look at an object
def pin_key(kind: str, endpoint: str, uri: str, revision: str, refresh: str) -> str:
    """Identity of an unresolved reference, without the connection's name or credentials."""
    return digest_of([kind, endpoint, uri, revision, refresh])


def pin(name: str, key: str) -> str:
    """What the source with `pin_key` was resolved to, for the object `name`. Written once."""
    return f"pins/{name}/{key.removeprefix('sha256:')}.json"


def probe(name: str) -> str:
    """Written again by each `resolve` that finds work, to prove that the store can be written."""
    return f"probes/{name}.json"


def action(stage: str, input_hash: str) -> str:
    """What a stage produced. Written last, create-only."""
    return f"actions/{stage}/{input_hash.removeprefix('sha256:')}.json"


def artifact(digest: str) -> str:
    """Prefix of an artifact's files."""
    return f"artifacts/{digest.replace(':', '-')}"


def manifest(digest: str) -> str:
    """The commit marker of an artifact: path, size and sha256 of each file. Written last."""
    return f"{artifact(digest)}/manifest.json"


def checkpoint(stage: str, input_hash: str) -> str:
    """Prefix of what an unfinished stage needs to go on; gone when its action entry is there."""
    return f"checkpoints/{stage}/{input_hash.removeprefix('sha256:')}"


def report(run_id: str, gates_hash: str) -> str:
    """Prefix of report.json and report.html."""
    return f"reports/{run_id}/{gates_hash}"


def samples(input_hash: str) -> str:
    """The raw record of a measuring stage.

    Of a benchmark: timestamps, and the answers for `verify`; of evaluate: the NLL of every window.
    """
    return f"samples/{input_hash.removeprefix('sha256:')}.json"


def release(name: str, release_id: str) -> str:
    """What a rollout may point to. Idempotent and immutable."""
    return f"releases/{name}/{release_id}.json"


def provenance(name: str, release_id: str, key: str) -> str:
    """The signed statement of a release, by the fingerprint of the key (hex) that signed it."""
    return f"releases/{name}/{release_id}/provenance/{key}.json"


def unsigned_provenance(name: str, release_id: str) -> str:
    """The statement of a release that was published without a key."""
    return provenance(name, release_id, "unsigned")


def verdict(name: str, release_id: str, gates_hash: str) -> str:
    """One judgement of a release."""
    return f"releases/{name}/{release_id}/verdicts/{gates_hash}.json"
