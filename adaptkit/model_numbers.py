"""Bounds for the numbers of a config.json: what no model has is refused before anything is built of it.

    check_numbers(config, "models/base/config.json", headers)

A shape of a billion layers takes hours to build and a width of 2^40 all memory there is, long before its
weights are found not to fit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.weight_files import AGAIN

MAX_WIDTH, MAX_HEADS, MAX_ROWS, MAX_POSITIONS = 2**20, 2**16, 2**24, 2**31
MOST_LAYERS = 128
"""More than these only where the weights hold as many tensors: each layer has one at least, unless all share
theirs."""
MAX_DEPTH = 16
BOUNDS = (
    (r"hidden_size|n_embd|d_model|vocab_size", 1, MAX_ROWS),
    (r"num_hidden_layers|n_layers?|num_layers", 1, 2**16),
    (r".*_layers|depth", 0, 2**16),
    (
        r".*(hidden|embedding|intermediate)_size|hidden_dim|d_ff|n_inner|ffn_dim|.*_rank|.*head_dim",
        0,
        MAX_WIDTH,
    ),
    (r"(num|n)_.*heads?(_kv)?|n_heads?|(num|n)_.*experts.*|.*_groups?", 0, MAX_HEADS),
    (r"max_.*position.*|n_positions|n_ctx|max_.*_len(gth)?|seq_length|type_vocab_size", -1, MAX_POSITIONS),
    (r"sliding_window", 1, MAX_POSITIONS),  # a window of no token shows none; `null` is for no window
    (r"num_labels|chunk_size.*|.*sliding_window|.*_window", -1, MAX_POSITIONS),
)
"""(names of settings, smallest value, largest); the first line that fits a name counts."""
_BOUNDS = tuple((re.compile(names), least, most) for names, least, most in BOUNDS)
_DEPTHS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_KINDS: dict[str, tuple[type, ...]] = {
    "architectures": (list,),
    "model_type": (str,),
    "id2label": (dict,),
    "label2id": (dict,),
    "quantization_config": (dict,),
    "text_config": (dict,),
    "rope_scaling": (dict,),
    "rope_parameters": (dict,),
}


def check_numbers(config: dict[str, Any], where: str, headers: Mapping[str, dict[str, Any]]) -> None:
    """Refuse a config with a number that no model has, or a setting of another type than it must have.

    Args:
        headers: of the weight files beside it.
    Raises: ModelError.
    """
    num_tensors = sum(map(len, headers.values()))
    for name, kinds in _KINDS.items():
        if config.get(name) is not None and not isinstance(config[name], kinds):
            what = f"{name} is a {type(config[name]).__name__}, not a {kinds[0].__name__}"
            raise ModelError(what, where=where, fix=AGAIN)
    if not all(isinstance(name, str) for name in config.get("architectures") or ()):
        raise ModelError("architectures holds something other than names", where=where, fix=AGAIN)
    for name, value in _numbers(config, where):
        _check_number(name, value, where, num_tensors)


def _numbers(config: dict[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of all settings, however deep, those of a list each on its own."""
    pending: list[tuple[str, Any, int]] = [("", config, 0)]
    while pending:
        name, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ModelError("is nested too deeply", where=where, fix=AGAIN)
        if isinstance(value, dict):
            pending += [(str(key), item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            pending += [(name, item, depth + 1) for item in value]
        else:
            yield name, value


def _check_number(name: str, value: Any, where: str, num_tensors: int) -> None:
    bounds = next(((least, most) for names, least, most in _BOUNDS if names.fullmatch(name)), None)
    if bounds is None or isinstance(value, bool | None):
        return
    if isinstance(value, str):
        if name in ("hidden_size", "vocab_size", *_DEPTHS):
            raise ModelError(f"{name} is '{value[:40]}', and must be a number", where=where, fix=AGAIN)
        return
    least, most = bounds
    if not least <= value <= most:
        what = f"{name} is {_shown(value)}, and no model has less than {least} or more than {most:,}"
        raise ModelError(what, where=where, fix=AGAIN)
    if name in _DEPTHS and value > max(MOST_LAYERS, num_tensors):
        what = f"{name} is {_shown(value)}, and the weights hold {num_tensors:,} tensors"
        raise ModelError(what, where=where, fix=AGAIN)


def _shown(value: float) -> str:
    return f"{value:,}" if abs(value) < 10**15 else "a number of more than 15 digits"
