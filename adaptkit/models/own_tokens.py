"""The tokens that the files of a model folder give its tokenizer, with their ids.

own_tokens(folder, tokenizer)       # {"the": 17, "<|im_end|>": 320, ...}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED = ("bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "mask_token")
"""Attributes of a tokenizer that name a special token in use."""
LISTS = ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
"""Fields of settings that list tokens beside those of tokenizer.json."""
OLD_LIST = "added_tokens.json"
"""{token: id}, as older libraries wrote it; transformers reads it beside tokenizer.json too."""


def own_tokens(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The tokens that a folder's tokenizer gives: those of its files, and the special ones in use.

    transformers' class for a model type may add a token of its own, which no text of the user's turns into.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    file = folder / "tokenizer.json"
    if not file.exists():
        return vocabulary
    written: dict[str, int] = Tokenizer.from_file(str(file)).get_vocab(with_added_tokens=True)
    special = {token for name in NAMED if (token := getattr(tokenizer, name)) is not None}
    others = special | set(_listed(folder))
    return {**written, **{token: vocabulary[token] for token in others if token in vocabulary}}


def _listed(folder: Path) -> Iterator[str]:
    """Tokens that files beside tokenizer.json list."""
    yield from _object(folder / OLD_LIST)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        settings = _object(folder / name)
        for key in LISTS:
            yield from _tokens(settings.get(key))


def _tokens(listed: Any) -> Iterator[str]:
    """The tokens of a list or object of them; one is a string, or an object with `content`."""
    if isinstance(listed, str):
        yield listed
    elif isinstance(listed, dict) and isinstance(listed.get("content"), str):
        yield listed["content"]
    elif isinstance(listed, dict | list):
        for entry in listed.values() if isinstance(listed, dict) else listed:
            yield from _tokens(entry)


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is no object, which the tokenizer was read without."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
