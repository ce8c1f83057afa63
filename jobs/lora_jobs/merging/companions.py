"""What travels along with the weights: configuration, tokenizer, chat template, licence.

An adapter that brings its own tokenizer was trained with it, so its files win, as one set; so does
its chat template. Python and pickle files never travel: they would run where the model is loaded.
Whatever stays behind is named in a note.
"""

import filecmp
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any

from lora_api.jobcontract import Reason
from lora_jobs.errors import Refused
from lora_jobs.jsonfiles import MAX_DOCUMENT_BYTES, MAX_TOKENIZER_BYTES, read_object
from lora_jobs.merging.documents import CONFIG, changed_documents
from lora_jobs.merging.plan import MergePlan
from lora_jobs.quantizedbase import refuse_quantized
from lora_jobs.weightfiles import SUFFIX

CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", CHAT_TEMPLATE,
)  # fmt: skip
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A folder with one of these has a tokenizer of its own."""
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY")
_OF_OTHER_WEIGHTS = (".bin.index.json", "consolidated.safetensors.index.json")
_READ_OF_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors")
_NEVER = ("adapter_config.json", "adapter_model.safetensors.index.json")
"""Transformers takes a folder that holds an adapter_config.json for an adapter."""
_MAX_NAMED = 5


@dataclass(frozen=True)
class Companions:
    """Files by their name in the output, and what people should know about them.

    Attributes:
        sources: To copy.
        documents: To write.
    """

    sources: Mapping[str, Path]
    documents: Mapping[str, bytes]
    notes: Mapping[str, str]


def read_config(base: Path) -> dict[str, Any]:
    """The base's config.json.

    Raises:
        Refused: It is missing, or says that the base needs code of its own or is quantized.
    """
    config = read_document(base / CONFIG)
    _refuse_own_code(base, config)
    refuse_quantized(config, "the base")
    return config


def plan_companions(
    base: Path, adapters: Sequence[Path], config: Mapping[str, Any], plan: MergePlan
) -> Companions:
    """Choose every file that goes along, before anything is written.

    Args:
        base: Folder of the base.
        adapters: Folders of the adapters.
        config: The base's config.json.
        plan: What becomes of the weights.

    Raises:
        Refused: An adapter's tokenizer has more tokens than there are embeddings, or is not that
            of another adapter.
    """
    documents = changed_documents(base, config, plan)
    chosen = {file.name: file for file in _files(base) if _travels(file.name)}
    notes = {}
    with_tokenizer = [a for a in adapters if any((a / name).is_file() for name in _VOCABULARIES)]
    with_template = [a for a in adapters if (a / CHAT_TEMPLATE).is_file()]
    if with_tokenizer:
        _check_same(with_tokenizer)
        adapter = with_tokenizer[0]
        _check_vocabulary(base, adapter, json.loads(documents.get(CONFIG, b"null")) or config)
        chosen = _with_tokenizer_of(adapter, chosen)
        notes["tokenizer"] = "the adapter's own"
    elif with_template:
        chosen[CHAT_TEMPLATE] = with_template[0] / CHAT_TEMPLATE
        notes["chatTemplate"] = "the adapter's own"
    if plan.untied:
        notes["untied"] = f"{plan.untied} has weights of its own now: tie_word_embeddings is false"
    if plan.vocabulary:
        notes["vocabulary"] = f"{plan.vocabulary} rows, as the adapter's"
    chosen = {name: file for name, file in chosen.items() if name not in documents}
    gone = {*chosen, *documents}
    left = [e.name for e in sorted(base.iterdir()) if e.name not in gone and not _is_kept(e)]
    if left:
        notes["leftBehind"] = _named(left)
    taken = {*chosen.values(), *(a / name for a in adapters for name in _READ_OF_ADAPTERS)}
    unused = {e.name for a in adapters for e in a.iterdir() if e not in taken and not _is_hidden(e)}
    if unused:
        notes["adapterLeftBehind"] = _named(sorted(unused))
    return Companions(dict(sorted(chosen.items())), documents, notes)


def read_document(file: Path, most_bytes: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refused: The file is missing or something else.
    """
    try:
        return read_object(file, most_bytes)
    except (OSError, ValueError):
        raise Refused(
            Reason.INVALID_INPUT, f"{file.name} is missing or no JSON object; upload it again"
        ) from None


def _files(folder: Path) -> Iterable[Path]:
    return (entry for entry in sorted(folder.iterdir()) if entry.is_file())


def _travels(name: str) -> bool:
    if name in _NEVER or name.endswith(_OF_OTHER_WEIGHTS):
        return False
    return name.endswith(_SUFFIXES) or name.upper().startswith(_LICENCES)


def _is_kept(entry: Path) -> bool:
    """Weights are written by the merge; hidden files are those of git and the hub's client."""
    return entry.name.endswith(SUFFIX) or _is_hidden(entry)


def _is_hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(names[:_MAX_NAMED]) + more


def _refuse_own_code(base: Path, config: Mapping[str, Any]) -> None:
    places = ["config.json"] if "auto_map" in config else []
    tokenizer = base / "tokenizer_config.json"
    # With a tokenizer.json, transformers needs no class of the model's own to read it.
    if tokenizer.is_file() and not (base / "tokenizer.json").is_file():
        places += ["tokenizer_config.json"] if "auto_map" in read_document(tokenizer) else []
    if places:
        raise Refused(
            Reason.UNSAFE_FILE,
            f"the base needs code of its own (auto_map in {places[0]}), which is never run; use a "
            "revision or an architecture that transformers knows",
        )


def _check_vocabulary(base: Path, adapter: Path, config: Mapping[str, Any]) -> None:
    """Compare the adapter's token ids with the rows of the base's embedding."""
    text = config.get("text_config")
    size = (text if isinstance(text, dict) and text else config).get("vocab_size")
    own = adapter / "tokenizer.json"
    # A tokenizer.json of tens of megabytes is parsed only when it is not the base's.
    if not isinstance(size, int) or not own.is_file() or _same(own, base / "tokenizer.json"):
        return
    try:
        largest = max(map(index, _token_ids(read_document(own, MAX_TOKENIZER_BYTES))), default=0)
    except (AttributeError, KeyError, TypeError):
        raise Refused(
            Reason.INVALID_INPUT, "the adapter's tokenizer.json is no tokenizer; upload it again"
        ) from None
    if largest >= size:
        raise Refused(
            Reason.ADAPTER_MISMATCH,
            f"the adapter's tokenizer has token id {largest}, but the base has {size} embeddings; "
            "name the base that the adapter was trained on",
        )


def _check_same(adapters: Sequence[Path]) -> None:
    """Adapters that are summed must have been trained with one tokenizer."""
    first = adapters[0]
    for other in adapters[1:]:
        for name in _VOCABULARIES:
            one, two = first / name, other / name
            if one.is_file() and two.is_file() and not _same(one, two):
                raise Refused(
                    Reason.ADAPTER_MISMATCH,
                    f"the adapters bring different {name}, and a model has one; name adapters "
                    "that were trained with the same tokenizer",
                )


def _token_ids(tokenizer: Mapping[str, Any]) -> Iterable[int]:
    """Ids of a `tokenizers` document; a Unigram vocabulary is a list, its ids are positions."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        yield from vocabulary.values()
    else:
        yield len(vocabulary) - 1
    for token in tokenizer.get("added_tokens", []):
        yield token["id"]


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(one, other, shallow=False)


def _with_tokenizer_of(adapter: Path, chosen: Mapping[str, Path]) -> dict[str, Path]:
    """The adapter's tokenizer files instead of the base's.

    The base's chat template stays only where the adapter has none in any form: the file would
    override the one that older tokenizers keep in tokenizer_config.json.
    """
    own = {name: adapter / name for name in TOKENIZER_FILES if (adapter / name).is_file()}
    kept = {name: file for name, file in chosen.items() if name not in TOKENIZER_FILES}
    settings = own.get("tokenizer_config.json")
    has_template = CHAT_TEMPLATE in own or (
        settings is not None and "chat_template" in read_document(settings)
    )
    if CHAT_TEMPLATE in chosen and not has_template:
        kept[CHAT_TEMPLATE] = chosen[CHAT_TEMPLATE]
    return kept | own
