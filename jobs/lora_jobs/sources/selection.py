"""Which files of a source are taken: what is useful, and nothing that can run code.

Pickle (`.bin`, `.pt`, `.pth`, `.ckpt`, `.pkl`) runs code when it is loaded and Python files run
when they are imported, so neither is ever downloaded. Only the top level of a model counts:
checkpoints in sub-folders hold other weights under the same names.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import parse_object
from lora_jobs.sources.pins import PinnedFile
from lora_jobs.store.interface import checked_key
from lora_jobs.weightfiles import tensors_of

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
MANIFEST = "manifest.json"
SINGLE_FILE = "model.safetensors"
DATA_SUFFIXES = (".jsonl", ".json", ".txt", ".parquet")
_COMPANION_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TEMPLATES = "additional_chat_templates/"
CONVERT = "convert it with safetensors.torch.save_file (or save_pretrained) and upload that"

ReadWhole = Callable[[str], bytes]


class SourceKind(StrEnum):
    """What a source is for."""

    BASE = "base model"
    ADAPTER = "adapter"
    DATA = "data set"

    @staticmethod
    def of(name: str) -> "SourceKind":
        """By the source's name in `parents`."""
        if name == "base":
            return SourceKind.BASE
        return SourceKind.ADAPTER if name.startswith("adapter") else SourceKind.DATA


def select(
    kind: SourceKind, uri: str, files: Sequence[PinnedFile], read: ReadWhole
) -> list[PinnedFile]:
    """The files to take.

    Raises:
        Refused: Nothing useful is there, or only files that can run code.
    """
    if not files:
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"there is nothing at {uri}; upload the {kind} there or correct the URI",
        )
    for file in files:
        _check_path(uri, file.path)
    match kind:
        case SourceKind.BASE:
            return _model_files(uri, files, read)
        case SourceKind.ADAPTER:
            return _adapter_files(uri, files)
        case SourceKind.DATA:
            return _data_files(uri, files)


def refuse_unfit_folder(folder: Path) -> int:
    """Whether a folder of one's own may become an artifact; returns its size in bytes.

    Raises:
        Refused: It holds what can run code, hidden files, a file with the manifest's name, weights
            that are not whole, or none.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    for file in files:
        path = file.relative_to(folder)
        if path.suffix in (*_PICKLE_SUFFIXES, ".py"):
            what = CONVERT if path.suffix in _PICKLE_SUFFIXES else "remove it"
            raise Refused(Reason.UNSAFE_FILE, f"{folder} holds {path}, which can run code; {what}")
        if path.as_posix() == MANIFEST or any(part.startswith(".") for part in path.parts):
            raise Refused(
                Reason.INVALID_INPUT,
                f"{folder} holds {path}, which is no part of a model; remove it",
            )
    tensors_of(folder)
    return sum(file.stat().st_size for file in files)


def _check_path(uri: str, path: str) -> None:
    try:
        checked_key(path)
    except ValueError:
        raise Refused(
            Reason.UNSAFE_FILE, f"{uri} holds {path!r}, which leads out of a folder; remove it"
        ) from None


def _model_files(uri: str, files: Sequence[PinnedFile], read: ReadWhole) -> list[PinnedFile]:
    there = {f.path: f for f in files}
    _require_file(CONFIG, SourceKind.BASE, uri, there)
    weights = _weight_names(uri, there, read)
    if not weights:
        raise _no_weights(uri, SourceKind.BASE, there)
    missing = [name for name in weights if name not in there]
    if missing:
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"{uri}: {INDEX} names {missing[0]}, which is not there"
            f" ({len(missing)} files are missing); upload the rest of the {SourceKind.BASE}",
        )
    return [there[name] for name in weights] + _companions(files)


def _weight_names(uri: str, there: dict[str, PinnedFile], read: ReadWhole) -> list[str]:
    """By the index where there is one: repositories often hold the weights twice."""
    if INDEX in there:
        try:
            names = set(parse_object(read(INDEX))["weight_map"].values())
            return sorted(name for name in names if checked_key(name))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Refused(
                Reason.INVALID_INPUT,
                f"{uri}: {INDEX} is no index of safetensors files; upload it again",
            ) from None
    if SINGLE_FILE in there:
        return [SINGLE_FILE]
    return sorted(p for p in there if p.endswith(".safetensors") and "/" not in p)


def _adapter_files(uri: str, files: Sequence[PinnedFile]) -> list[PinnedFile]:
    there = {f.path: f for f in files}
    _require_file(ADAPTER_CONFIG, SourceKind.ADAPTER, uri, there)
    if ADAPTER_WEIGHTS not in there:
        raise _no_weights(uri, SourceKind.ADAPTER, there)
    return [there[ADAPTER_WEIGHTS], *_companions(files)]


def _data_files(uri: str, files: Sequence[PinnedFile]) -> list[PinnedFile]:
    useful = [f for f in files if f.path.endswith(DATA_SUFFIXES)]
    if not useful:
        raise Refused(
            Reason.INVALID_INPUT,
            f"{uri} holds no {', '.join(DATA_SUFFIXES)} file; give the data set in one of these",
        )
    return useful


def _companions(files: Sequence[PinnedFile]) -> list[PinnedFile]:
    """Configuration, tokenizer and chat template."""
    return [
        f
        for f in files
        if f.path.endswith(_COMPANION_SUFFIXES)
        and ("/" not in f.path or f.path.startswith(_TEMPLATES))
    ]


def _require_file(name: str, kind: SourceKind, uri: str, there: dict[str, PinnedFile]) -> None:
    if name not in there:
        raise Refused(
            Reason.SOURCE_NOT_FOUND,
            f"{uri} holds no {name}, so it is no {kind}; correct the URI or upload the file",
        )


def _no_weights(uri: str, kind: SourceKind, there: dict[str, PinnedFile]) -> Refused:
    pickled = sorted(p for p in there if p.endswith(_PICKLE_SUFFIXES) and "/" not in p)
    if pickled:
        return Refused(
            Reason.UNSAFE_FILE,
            f"{uri} holds its weights only as pickle ({pickled[0]}), which can run code; {CONVERT}",
        )
    wanted = ADAPTER_WEIGHTS if kind is SourceKind.ADAPTER else "*.safetensors"
    return Refused(
        Reason.SOURCE_NOT_FOUND, f"{uri} holds no {wanted}; upload the weights of the {kind}"
    )
