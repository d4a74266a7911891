"""What a plan says: a row for each size, the best buys, and what was assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adaptkit.planning.gpus import Gpu
from adaptkit.planning.published_law import Law


@dataclass(frozen=True)
class Row:
    """One model: how it is made, and what it takes.

    Attributes:
        passes: over the text at hand; 0 where text has no end.
        train_hours: of one GPU.
        training_gpus, serving_gpus: what its memory needs at least; 0 where that is not known, or no number
            would do.
        servers: GPUs rented around the clock for the traffic.
        serve_hours: of one GPU, a month, only while it works.
        train_usd, serve_usd_per_month: None without a price.
        loss_low, loss_high: the interval of the loss; None by a published law.
        beyond: how it lies outside of what the law was fitted on; empty where it does not.
    """

    params: int
    layers: int
    width: int
    vocab_size: int
    tokens: float
    passes: float
    loss: float
    loss_low: float | None
    loss_high: float | None
    train_flops: float
    train_hours: float
    train_usd: float | None
    training_bytes: float
    training_gpus: int
    serving_bytes: float
    serving_gpus: int
    serve_hours: float
    servers: int
    serve_usd_per_month: float | None
    beyond: str


@dataclass(frozen=True)
class Answer:
    """A best buy over its life, in what `minimise` counts.

    Attributes:
        title: `compute-optimal`, or `inference-aware` where serving counts too.
        train, serve: FLOPs or GPU hours.
        usd: of both; None without a price, and where FLOPs are counted.
        loss_low, loss_high: the interval of the loss; None by a published law.
    """

    title: str
    params: float
    tokens: float
    passes: float
    loss: float
    loss_low: float | None
    loss_high: float | None
    train: float
    serve: float
    usd: float | None
    beyond: str

    @property
    def whole(self) -> float:
        return self.train + self.serve


@dataclass(frozen=True)
class Plan:
    """What `make_plan` found.

    Attributes:
        unit: what answers count.
        left_out: size -> why it has no row.
        answers: for the goal; none where there is none.
        saved: share of the first answer's cost that the last one saves at the same quality.
        text_tokens: tokens of the text at hand; inf where text has no end.
        assumptions: sentences.
    """

    law: Law
    gpu: Gpu
    unit: Literal["FLOPs", "GPU hours"]
    rows: tuple[Row, ...]
    left_out: dict[str, str]
    answers: tuple[Answer, ...]
    saved: float
    text_tokens: float
    assumptions: tuple[str, ...]
