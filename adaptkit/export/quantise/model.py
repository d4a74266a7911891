"""Round a whole model to a format: each weight to the nearest value, or calibrated on the text it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from adaptkit.data.heldout import CALIBRATION_ROWS, CALIBRATION_TOKENS
from adaptkit.errors import ConfigError
from adaptkit.export.formats import Format
from adaptkit.export.parity.evaluation_data import EvaluationData
from adaptkit.export.quantise.compressed_tensors import Scheme, linear, plan_scheme
from adaptkit.export.quantise.gptq import Batch, gptq_layers
from adaptkit.export.quantise.rounding import Rounded, round_to_nearest
from adaptkit.export.record import CalibrationRecord, Method
from adaptkit.finetune.prompt_template import context_length, opening
from adaptkit.models.control_tokens import encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Quantised:
    """Rounded layers by name, the scheme they follow, and the text they were calibrated on, if any."""

    scheme: Scheme
    layers: Mapping[str, Rounded]
    calibration: CalibrationRecord | None = None


def quantise(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    format: Format,
    method: Method,
    data: EvaluationData,
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
    if method == "gptq":
        length = min(CALIBRATION_TOKENS, data.seq_len, context_length(model))
        batches, calibration = _calibration(tokenizer, data, length, where)
        layers = gptq_layers(
            model, scheme, batches, lambda done, total: tell(f"rounded {done} of {total} layers")
        )
        return Quantised(scheme, layers, calibration)
    tell(f"rounding {len(scheme.layers)} matrices to {format.name}")
    weights = {name: linear(model, name).weight.data for name in scheme.layers}
    nearest = {
        name: round_to_nearest(weight, format.rounds_to, scheme.group_size)
        for name, weight in weights.items()
    }
    return Quantised(scheme, nearest)


def _calibration(
    tokenizer: PreTrainedTokenizerFast, data: EvaluationData, length: int, where: str
) -> tuple[list[Batch], CalibrationRecord]:
    """Cut training text into a model's inputs [1, length], and record what the manifest says of them."""
    if data.calibration is None:
        what = "gptq calibrates on the domain's text, and none is known for this model"
        raise ConfigError(what, where=where, fix="give --calibration FILE, or use rtn")
    start, stream = opening(tokenizer), []
    for row in data.calibration.rows.rows:
        stream += [*start, *encode(tokenizer, [row.text], special=False)[0]]
        if len(stream) >= length * CALIBRATION_ROWS:
            break
    rows = [stream[i : i + length] for i in range(0, len(stream), length)][:CALIBRATION_ROWS]
    if len(rows) > 1 and len(rows[-1]) < length:
        rows.pop()
    batches = [
        {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)}
        for row in rows
    ]
    record = CalibrationRecord(
        origin=data.calibration_origin,
        file=data.calibration_file,
        digest=data.calibration.digest,
        rows=len(rows),
        tokens=sum(map(len, rows)),
    )
    return batches, record
