"""Estimate the memory of a training before it starts."""

from __future__ import annotations

from typing import Literal

import psutil

STATE_BYTES = 16
"""Of each trained parameter: float32 weight, gradient and two moments of Adam."""
ACTIVATION_BYTES = {"bfloat16": 34, "float32": 68}
"""Kept for the backward pass per token, layer and hidden unit, without checkpointing (Korthikanti et al.
2022, arXiv 2205.05198, section 4; attention that keeps no scores)."""
_INPUT_BYTES = {"bfloat16": 2, "float32": 4}


def process_bytes() -> float:
    """What this process holds in memory now: Python, torch and the libraries, before any model of its own."""
    return float(psutil.Process().memory_info().rss)


def activation_bytes(
    tokens: float,
    layers: int,
    width: int,
    *,
    dtype: Literal["bfloat16", "float32"] = "float32",
    checkpointing: bool = False,
) -> float:
    """What layers keep of `tokens` for the backward pass.

    With checkpointing: the input of each layer, and one layer whole while it is computed again.
    """
    whole = tokens * width * ACTIVATION_BYTES[dtype]
    if checkpointing:
        return whole + tokens * width * layers * _INPUT_BYTES[dtype]
    return whole * layers
