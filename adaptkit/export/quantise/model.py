"""A whole model rounded to a format: to the nearest value, or calibrated on the text it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from adaptkit.errors import ConfigError
from adaptkit.export.formats import Format
from adaptkit.export.quantise.compressed_tensors import Scheme, plan_scheme
from adaptkit.export.quantise.gptq import gptq_layers
from adaptkit.export.quantise.rounding import Rounded, round_to_nearest
from adaptkit.finetune.prompt_template import context_length, opening

if TYPE_CHECKING:
    from torch import nn

    from adaptkit.data import Dataset
    from adaptkit.export.parity.heldout import HeldOut

Method = Literal["rtn", "gptq"]
CALIBRATION_ROWS, CALIBRATION_TOKENS = 64, 512  # rows of text, and tokens of each at most


@dataclass(frozen=True)
class Quantised:
    """Rounded layers by name, the scheme they follow, and what the manifest says of how they were rounded."""

    scheme: Scheme
    layers: Mapping[str, Rounded]
    described: dict[str, Any]


def quantise(
    model: nn.Module,
    tokenizer: Any,
    format: Format,
    method: Method,
    heldout: HeldOut,
    where: str,
    tell: Callable[[str], None],
) -> Quantised:
    """Round a float32 model's layers; after gptq the model holds the rounded weights.

    Args:
        where: the model's folder, for messages.
        tell: called with a sentence as it goes on.
    Raises: ModelError for a model that the format cannot hold; ConfigError for gptq without text.
    """
    scheme = plan_scheme(model, format, where)
    described: dict[str, Any] = {"method": method, "group_size": scheme.group_size, "calibration": None}
    if method == "gptq":
        if heldout.training is None:
            what, fix = (
                "gptq calibrates on the domain's text, and none is known for this model",
                "give --calibration FILE, or use rtn",
            )
            raise ConfigError(what, where=where, fix=fix)
        length = min(CALIBRATION_TOKENS, heldout.seq_len, context_length(model))
        batches, told = _calibration(tokenizer, heldout.training, length)
        described["calibration"] = {"origin": heldout.training_origin, **told}
        layers = gptq_layers(
            model, scheme, batches, lambda done, total: tell(f"rounded {done} of {total} layers")
        )
        return Quantised(scheme, layers, described)
    tell(f"rounding {len(scheme.layers)} matrices to {format.name}")
    weights = {name: model.get_submodule(name).weight.data for name in scheme.layers}
    nearest = {
        name: round_to_nearest(weight, format.rounds_to, scheme.group_size)
        for name, weight in weights.items()
    }
    return Quantised(scheme, nearest, described)


def _calibration(
    tokenizer: Any, training: Dataset, length: int
) -> tuple[list[dict[str, torch.Tensor]], dict[str, Any]]:
    """Rows of training text as a model's inputs [1, length], and what the manifest says of them."""
    start, stream = opening(tokenizer), []
    for row in training.rows:
        stream += [*start, *tokenizer(row.text, add_special_tokens=False, verbose=False)["input_ids"]]
        if len(stream) >= length * CALIBRATION_ROWS:
            break
    rows = [stream[i : i + length] for i in range(0, len(stream), length)][:CALIBRATION_ROWS]
    if len(rows) > 1 and len(rows[-1]) < length:
        rows.pop()
    batches = [
        {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
        for row in rows
    ]
    return batches, {"digest": training.digest, "rows": len(rows), "tokens": sum(map(len, rows))}
