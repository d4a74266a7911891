"""Whether a tokenizer takes new entries, asked before anything trains; data/extension.py adds them."""

from __future__ import annotations

from typing import Any

EXTENDED = ("BPE", "WordPiece", "Unigram")
FIX = "use a base with a BPE, WordPiece or Unigram tokenizer, or leave its vocabulary as it is"


def why_fixed(tokenizer: Any) -> tuple[str, str] | None:
    """Why no entries can be added to a tokenizer, and what to do; None where they can."""
    model = tokenizer.backend_tokenizer.model
    kind = type(model).__name__
    if kind not in EXTENDED:
        return f"a {kind} tokenizer takes no new entries: it does not build them from pieces", FIX
    if kind == "BPE" and model.continuing_subword_prefix:
        prefix = model.continuing_subword_prefix
        return f"a BPE tokenizer that marks pieces within a word by '{prefix}' takes no new entries", FIX
    return None
