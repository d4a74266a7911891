"""How many tokens a model has positions for, from its config alone.

Three things make the number in a config.json another one: tables whose first rows are never used (RoBERTa's
514 are 512), position codes that end nowhere (ALiBi, T5's buckets, recurrent layers), and names of their own.
"""

from __future__ import annotations

from typing import Any

AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Model types that count positions from behind the padding id: the rows up to it are never used."""
FIXED_PADDING = {"mpnet": 1}
"""Of these, model types that always take the same id for padding, whatever their config says."""
ENDLESS = frozenset(["bloom", "t5", "mt5", "umt5", "longt5", "xlnet", "transfo-xl"])
"""Model types whose positions are distances, whatever else their config says. Not MPT: transformers makes its
distances for `max_seq_len` tokens, and no row may be longer."""
_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")


def usable_positions(config: Any) -> int | None:
    """Tokens that a model of this transformers config can read at once; None where nothing ends them."""
    inner = config.get_text_config()
    kind = inner.model_type
    if kind in ENDLESS or getattr(inner, "alibi", False):
        return None
    values = (getattr(inner, name, None) for name in _NAMES)
    positions = next((int(value) for value in values if isinstance(value, int) and value > 0), None)
    if positions is None:
        return None
    if kind in AFTER_PADDING and getattr(inner, "position_embedding_type", "absolute") != "rotary":
        padding = FIXED_PADDING.get(kind, getattr(inner, "pad_token_id", None))
        return positions - (1 if padding is None else int(padding)) - 1
    return positions


def fitting_length(length: int, config: Any) -> int:
    """`length`, cut to what the model has positions for."""
    positions = usable_positions(config)
    if positions is None:
        return length
    return min(length, positions)
