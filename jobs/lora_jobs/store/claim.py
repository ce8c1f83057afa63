"""A PersistentVolumeClaim that the pod has mounted, as a place to read from: `pvc://CLAIM/PATH`.

Whoever fills a volume may put links into it, and this pod's other mounts hold credentials. So a
link is followed only where it stays in the claim, as those of a Hugging Face cache do.
"""

import os
from pathlib import Path
from urllib.parse import unquote

from lora_api.jobcontract import CLAIMS_DIR_ENV, DEFAULT_CLAIMS_DIR, Reason
from lora_api.sourcespec import claim_of
from lora_jobs.connections import is_local_run
from lora_jobs.errors import Waiting
from lora_jobs.store.directory import DirectoryStore
from lora_jobs.store.interface import StoredObject


class ClaimStore(DirectoryStore):
    """A folder of a mounted claim."""

    follows_folder_links = False

    def __init__(self, claim: Path, root: Path) -> None:
        super().__init__(root)
        self._claim = claim

    def below(self, prefix: str) -> "ClaimStore":
        """A folder in it."""
        return ClaimStore(self._claim, self.path(prefix))

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            Waiting: A link leads out of the claim.
        """
        file = super().path(key)
        if not file.resolve().is_relative_to(self._claim.resolve()):
            raise Waiting(
                Reason.ACCESS_DENIED,
                f"{key} of claim {self._claim.name} is a link that leads out of the claim; put the "
                "file itself there",
            )
        return file

    def list(self, prefix: str = "") -> list[StoredObject]:
        """As in any folder, once every link has been looked at."""
        found = super().list(prefix)
        for stored in found:
            self.path(stored.key)
        return found


def open_claim(uri: str) -> ClaimStore:
    """The folder at a `pvc://` URI.

    Raises:
        Waiting: It is no such URI, or the claim is not mounted here.
    """
    name = claim_of(uri)
    if not name:
        raise Waiting(Reason.INVALID_INPUT, f"{uri} is not pvc://CLAIM/PATH")
    claim = Path(os.environ.get(CLAIMS_DIR_ENV, DEFAULT_CLAIMS_DIR)) / name
    if not claim.is_dir():
        where = "a local run has no claims; use file:///PATH" if is_local_run() else (
            "only Jobs of the operator have claims mounted"
        )  # fmt: skip
        raise Waiting(Reason.INVALID_INPUT, f"{uri} cannot be read here: {where}")
    path = unquote(uri.removeprefix(f"pvc://{name}")).strip("/")
    whole = ClaimStore(claim, claim)
    return whole.below(path) if path else whole
