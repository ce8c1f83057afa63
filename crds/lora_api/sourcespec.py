"""Where models, adapters and data sets come from, as a spec names them."""

import re
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints

from lora_api.base import ApiModel, Decimal, Uri

_CLAIM = re.compile(r"pvc://([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)(?:/|$)")


class Source(ApiModel):
    """A model, an adapter or a data set somewhere else; `resolve` pins it to a digest."""

    uri: Uri
    """`hf://ORG/NAME`, `s3://BUCKET/PREFIX`, `pvc://CLAIM/PATH`; `file:///PATH` in local runs."""
    revision: Annotated[str, StringConstraints(max_length=128)] = ""
    """Branch, tag or commit of an hf:// source."""
    connection: Annotated[str, StringConstraints(max_length=32)] = ""
    """Name in `connections`; an s3:// source without one uses the artifact's."""


def claim_of(uri: str) -> str:
    """The PersistentVolumeClaim that a URI names; empty for every other URI, and for a bad name."""
    found = _CLAIM.match(uri)
    return found[1] if found else ""


class ListedSource(ApiModel):
    """A source that stands in a list; like `Source`, without defaults that would drift."""

    uri: Uri
    revision: Annotated[str, StringConstraints(max_length=128)] | None = None
    connection: Annotated[str, StringConstraints(max_length=32)] | None = None

    def as_source(self) -> Source:
        """The same source with the defaults filled in."""
        return Source(uri=self.uri, revision=self.revision or "", connection=self.connection or "")


class ListedAdapter(ListedSource):
    """A LoRA adapter. Several are merged as the exact sum of their weighted updates."""

    weight: Decimal | None = None
    """What its update is multiplied by, 1 where unset; with DoRA, and with whole layers or rows in
    the adapter, only 1 is possible."""


class ListedCalibration(ListedSource):
    """Calibration texts. Where no source has a weight all are joined, and their sizes decide."""

    weight: Decimal | None = None
    """Its share of the samples beside the other weights; all sources have one or none has."""


class RecordFormat(StrEnum):
    """How records of a data set are read; Auto looks at the fields of the first record."""

    AUTO = "Auto"
    TEXT = "Text"
    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"
