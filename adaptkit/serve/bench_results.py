"""Results of `adaptkit bench`: typed figures of each model, their ratios, and the table for people.

The JSON is what bench.json holds; a study's forecast reads it from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adaptkit.export.source import ServedKind

HEADER = (
    "model",
    "MB",
    "load",
    "memory",
    "at once",
    "requests/s",
    "tokens/s",
    "TTFT p50/p99",
    "TPOT p50/p99",
    "$/1000",
    "to first",
)


@dataclass(frozen=True)
class Price:
    """What the machine costs, as read at `source` on `date`."""

    usd_per_hour: float
    source: str
    date: str

    def per_1k_requests(self, requests_per_s: float) -> float:
        """Price a thousand requests at this speed in USD, the machine being used all the time."""
        return self.usd_per_hour / 3600 / requests_per_s * 1000


@dataclass(frozen=True)
class Percentiles:
    """Median, 95th and 99th percentile in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Measurement:
    """One model under one load.

    Attributes:
        concurrency: requests in flight.
        requests: completed ones.
        output_tokens_per_s, ttft_ms, tpot_ms: None for models that generate no tokens.
        latency_ms: from sending a request to the end of its answer.
        usd_per_1k_requests: None without a price.
        rounds: requests per second of every round, where this is the median of several.
    """

    concurrency: int
    requests: int
    requests_per_s: float
    output_tokens_per_s: float | None
    ttft_ms: Percentiles | None
    tpot_ms: Percentiles | None
    latency_ms: Percentiles | None
    usd_per_1k_requests: float | None
    rounds: tuple[float, ...] = ()

    @classmethod
    def of_vllm(cls, result: dict[str, Any], concurrency: int, price: Price | None) -> Measurement:
        """Read the JSON that vLLM's benchmark writes."""
        requests_per_s, usd_per_1k_requests = result["request_throughput"], None
        if price is not None:
            usd_per_1k_requests = price.per_1k_requests(requests_per_s)
        return cls(
            concurrency=concurrency,
            requests=result["completed"],
            requests_per_s=requests_per_s,
            output_tokens_per_s=result.get("output_throughput"),
            ttft_ms=_percentiles(result, "ttft"),
            tpot_ms=_percentiles(result, "tpot"),
            latency_ms=_percentiles(result, "e2el"),
            usd_per_1k_requests=usd_per_1k_requests,
        )


@dataclass(frozen=True)
class DraftFigures:
    """What a draft did for a model.

    Attributes:
        name: of the model that drafts.
        tokens: that it guesses at a time.
        same_tokens: of greedy answers that are what the model writes by itself.
        ties: answers that went on differently where two tokens were as good as equal.
        drafted, accepted: tokens, as vLLM counted them under load.
    """

    name: str
    tokens: int
    same_tokens: int
    ties: int
    drafted: int = 0
    accepted: int = 0

    def in_words(self) -> str:
        """Say it in one line."""
        share = self.accepted / self.drafted
        line = f"draft {self.name}: {self.accepted} of {self.drafted} drafted tokens accepted ({share:.2f}), "
        line += f"{self.same_tokens} greedy tokens are those without it"
        if self.ties:
            line += f", {self.ties} answers went on differently after a tie"
        return line


@dataclass(frozen=True)
class ModelFigures:
    """What was measured of one model, or of an adapter together with the base that it needs.

    Attributes:
        arm: of a study; None for an adapter and outside a study.
        levels: one per concurrency.
        loss: what an export was measured to lose, by check; None for a model as trained.
        draft: what a smaller model's guesses did for it; None without one.
    """

    name: str
    kind: ServedKind
    arm: str | None
    weights_bytes: int
    load_s: float
    memory_bytes: int
    levels: tuple[Measurement, ...] = ()
    loss: dict[str, float] | None = None
    draft: DraftFigures | None = None

    def ratios(self, first: ModelFigures) -> dict[str, Any]:
        """Divide these figures by the first model's."""
        pairs = zip(self.levels, first.levels, strict=True)
        return {
            "weights_bytes": self.weights_bytes / first.weights_bytes,
            "memory_bytes": self.memory_bytes / first.memory_bytes,
            "load_s": self.load_s / first.load_s,
            "requests_per_s": [ours.requests_per_s / theirs.requests_per_s for ours, theirs in pairs],
        }


@dataclass(frozen=True)
class BenchResult:
    """All that one `adaptkit bench` measured; the first model is what the others are divided by.

    Attributes:
        machine: GPUs, cores and versions.
        load: what was asked of each model.
    """

    date: str
    machine: dict[str, Any]
    load: dict[str, Any]
    price: Price | None
    models: tuple[ModelFigures, ...]

    def as_json(self) -> dict[str, Any]:
        """Write what bench.json holds."""
        first = self.models[0]
        rows = [{**asdict(model), "ratios": model.ratios(first)} for model in self.models]
        return {**asdict(self), "models": rows}


def median(levels: Sequence[Measurement]) -> Measurement:
    """Pick the round in the middle by requests per second; it carries the rates of all rounds."""
    ordered = sorted(levels, key=lambda level: level.requests_per_s)
    middle = ordered[(len(ordered) - 1) // 2]
    return dataclasses.replace(middle, rounds=tuple(level.requests_per_s for level in levels))


def table(models: Sequence[ModelFigures]) -> list[tuple[str, ...]]:
    """Lay the figures out for people: a header, then one row per model and concurrency."""
    rows: list[tuple[str, ...]] = [HEADER]
    for model in models:
        ratios = model.ratios(models[0])["requests_per_s"]
        for level, ratio in zip(model.levels, ratios, strict=True):
            rows.append(
                (
                    model.name,
                    f"{model.weights_bytes / 1e6:.1f}",
                    f"{model.load_s:.0f} s",
                    f"{model.memory_bytes / 2**30:.2f} GiB",
                    str(level.concurrency),
                    f"{level.requests_per_s:.2f}",
                    _number(level.output_tokens_per_s, ".0f"),
                    _pair(level.ttft_ms),
                    _pair(level.tpot_ms),
                    _number(level.usd_per_1k_requests, ".3g"),
                    f"{ratio:.2f}x",
                )
            )
    return rows


def _percentiles(result: dict[str, Any], metric: str) -> Percentiles | None:
    p50, p95, p99 = (result.get(f"p{share}_{metric}_ms") for share in (50, 95, 99))
    if p50 is None or p95 is None or p99 is None:
        return None
    return Percentiles(p50, p95, p99)


def _pair(values: Percentiles | None) -> str:
    if values is None:
        return "-"
    return f"{values.p50:.0f} / {values.p99:.0f} ms"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return "-"
    return format(value, form)
