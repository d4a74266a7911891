"""A scaling law that a study fitted: loss by parameters and by text."""

from __future__ import annotations

from typing import Literal

from adaptkit.run_record import Record


class LawRecord(Record):
    """loss = floor + size_scale * params^-size_exponent + data_scale * text^-data_exponent."""

    arm: str
    """Of the text ledger, whose trainings it was fitted on."""
    floor: float
    size_scale: float
    size_exponent: float
    data_scale: float
    data_exponent: float
    loss_unit: Literal["bits_per_byte", "nats_per_token"] = "bits_per_byte"
    data_unit: Literal["bytes", "tokens"] = "bytes"
    params_low: float
    """The smallest size that it was fitted on."""
    params_high: float
    data_low: float
    """The least text that it was fitted on, read once."""
    data_high: float
    num_cells: int
    """Trainings that it was fitted on."""
