"""Stretch a model's rotary positions, so that it can be trained to read longer texts than it was made for.

`linear` divides every position (arXiv 2306.15595). `yarn` leaves fast rotations as they are, divides slow
ones, and sharpens attention a little (arXiv 2309.00071). Both are what transformers and vLLM read from
config.json; both need training on long text afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from adaptkit.models.positions import usable_positions

Method = Literal["yarn", "linear"]


@dataclass(frozen=True)
class Stretch:
    """How far, and in which way.

    Attributes:
        positions: tokens that the model shall read at once.
    """

    method: Method
    positions: int

    def apply(self, config: Any) -> None:
        """Write it into a transformers config whose positions can be stretched (`why_not`)."""
        inner = config.get_text_config()
        before = usable_positions(config)
        assert before is not None
        inner.rope_parameters = {
            **inner.rope_parameters,
            "rope_type": self.method,
            "factor": self.positions / before,
            "original_max_position_embeddings": before,
        }
        inner.max_position_embeddings = self.positions


def why_not(config: Any) -> str:
    """Why the positions of a model of this config cannot be stretched; empty where they can."""
    inner = config.get_text_config()
    rope = getattr(inner, "rope_parameters", None)
    if not rope or getattr(inner, "max_position_embeddings", None) != usable_positions(config):
        return "its positions are no rotations"
    if "rope_type" not in rope:
        return "its layers rotate in different ways"
    if rope["rope_type"] != "default":
        return f"its rotations are scaled already ({rope['rope_type']})"
    if getattr(inner, "sliding_window", None) and getattr(inner, "use_sliding_window", True):
        return "its layers see a window of the text only"
    return ""
