"""A small model that drafts for a large one: it guesses some tokens, the large one judges them all at once.

vLLM's own method (`draft_model`): with temperature 0 the large model's answers stay what they were, and come
faster where the guesses are good. A student that was distilled from the large model guesses well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.source import Source
from adaptkit.serve.model_files import TOKENIZERS, read_object
from adaptkit.weight_files import read_json_value

METHOD = "draft_model"
USERS_OWN = ("--speculative-config", "-sc", "--spec-model", "--spec-method", "--spec-tokens")
OF_TOKENS = ("model", "added_tokens", "normalizer", "pre_tokenizer")
"""Parts of tokenizer.json that say which text is which token; the others say how texts are cut and framed."""


@dataclass(frozen=True)
class Draft:
    """Who drafts, and how many tokens at a time."""

    source: Source
    tokens: int

    def words(self) -> list[str]:
        """Write vLLM's arguments."""
        config = {
            "method": METHOD,
            "model": str(self.source.folder.resolve()),
            "num_speculative_tokens": self.tokens,
        }
        return ["--speculative-config", json.dumps(config)]


def check_draft(draft: Source, target: Source, extra: Sequence[str]) -> None:
    """Check that one model can draft for the other: both write, in the same tokens.

    Args:
        extra: flags of the user's for vLLM.
    Raises: ModelError or ConfigError.
    """
    where = str(draft.folder)
    if draft.kind != "generate" or target.kind != "generate":
        other = draft if draft.kind != "generate" else target
        what = f"a draft is for models that write, and {other.name} is a model of kind {other.kind}"
        raise ModelError(what, where=where, fix="give a language model, and one that was distilled from it")
    if draft.folder.resolve() == target.folder.resolve():
        what = f"{target.name} would draft for itself, which takes longer than to answer"
        raise ModelError(what, where=where, fix="give a smaller model: adaptkit distill makes one")
    if any(word.partition("=")[0] in USERS_OWN for word in extra):
        fix = "leave one of the two out"
        raise ConfigError("vLLM is told of two drafts", where="--draft", fix=fix)
    if part := _other_tokens(draft.folder, target.folder):
        what = (
            f"its tokenizer is not that of {target.name} ({part} differs): its guesses would be other words"
        )
        fix = f"distil it from {target.name}: a student keeps its teacher's tokenizer"
        raise ModelError(what, where=where, fix=fix)


def _other_tokens(one: Path, other: Path) -> str | None:
    """Find what tells the tokens of two folders apart; None where they are the same."""
    sizes = [read_object(folder / "config.json").get("vocab_size") for folder in (one, other)]
    if sizes[0] != sizes[1]:
        return f"the size of the vocabulary, {sizes[0]} and {sizes[1]},"
    if (one / "tokenizer.json").is_file() and (other / "tokenizer.json").is_file():
        ours, theirs = (_tokenizer(folder) for folder in (one, other))
        return next((part for part in OF_TOKENS if ours.get(part) != theirs.get(part)), None)
    for name in TOKENIZERS:
        held = [
            (folder / name).read_bytes() if (folder / name).is_file() else None for folder in (one, other)
        ]
        if held[0] != held[1]:
            return name
    return None


def _tokenizer(folder: Path) -> dict[str, Any]:
    value = read_json_value(folder / "tokenizer.json")
    return value if isinstance(value, dict) else {}
