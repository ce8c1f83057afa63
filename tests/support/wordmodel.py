"""A model's folder of which only the tokenizer matters: one token a word, words w0 to w199."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit


def write_word_model(folder: Path) -> Path:
    """config.json, tokenizer.json and a weights file of no tensors."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(WordLevel({f"w{i}": i for i in range(200)}, unk_token="w0"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder
