"""What a source was resolved to, as it stands in the store. Written once, then only read."""

from typing import Self

from lora_api.base import ApiModel
from lora_api.digests import digest_of


class PinnedFile(ApiModel):
    """One file, identified by content hash where there is one, else by the server's ETag."""

    path: str
    size: int
    etag: str = ""
    sha256: str = ""
    """Hex; empty when the place does not tell."""

    def identity(self) -> dict[str, str | int]:
        """What goes into the source's digest."""
        content = {"sha256": self.sha256} if self.sha256 else {"etag": self.etag}
        return {"path": self.path, "size": self.size, **content}


class Pin(ApiModel):
    """A resolved source."""

    uri: str
    revision: str = ""
    """Commit of an hf:// source."""
    digest: str
    files: list[PinnedFile]

    @classmethod
    def of(cls, uri: str, revision: str, files: list[PinnedFile]) -> Self:
        """A pin with its digest."""
        rows = sorted(files, key=lambda f: f.path)
        return cls(uri=uri, revision=revision, digest=_digest(revision, rows), files=rows)

    def is_consistent(self) -> bool:
        """Whether the digest is that of the files."""
        return self.digest == _digest(self.revision, self.files)


def _digest(revision: str, files: list[PinnedFile]) -> str:
    return digest_of([revision, [f.identity() for f in files]])
