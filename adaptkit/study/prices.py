"""Collect what a cost calculation assumes: prices, speed and size of requests, each with where it comes from.

    server: {usd_per_hour: 0.40, source: "example.com/pricing", date: 2026-11-01}
    api: {name: "a hosted model", usd_per_million_in: 0.15, usd_per_million_out: 0.60, source: "...",
          date: 2026-11-01}

A price without a source is an assumption, and is called one wherever it is shown.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.config import Config, load
from adaptkit.run import Run, read_json, read_sealed
from adaptkit.study.api import ApiPrice
from adaptkit.study.budget import PriceConfig
from adaptkit.study.ownership import API
from adaptkit.study.record import read_study

EXAMPLE, GUESS = "an example, not a quote", "an assumption"


class PriceList(Config):
    """A file of prices."""

    server: PriceConfig | None = None
    """One server of the kind that would answer."""
    api: ApiPrice | None = None
    """The API it is weighed against."""


@dataclass(frozen=True)
class Sourced:
    """A number and where it comes from, a clause."""

    value: float
    origin: str


@dataclass(frozen=True)
class Assumptions:
    """Where the sliders stand at first."""

    usd_per_hour: Sourced = Sourced(1.0, EXAMPLE)
    usd_in: Sourced = Sourced(0.5, EXAMPLE)
    usd_out: Sourced = Sourced(1.5, EXAMPLE)
    requests_per_s: Sourced = Sourced(5.0, GUESS)
    tokens_in: Sourced = Sourced(500.0, GUESS)
    tokens_out: Sourced = Sourced(150.0, GUESS)


def assume(study: Path, prices: Path | None = None) -> Assumptions:
    """Take prices from the file, else from the study, and speed as `adaptkit bench` measured it.

    What none of them tells is an example or an assumption, and its origin says so.

    Raises: ConfigError for a price file that does not fit, DataError for a file of the study that cannot be
        read.
    """
    price_list = load(PriceList, prices).config if prices else PriceList()
    bench_path = Run(study).bench_path
    bench = read_json(bench_path) if bench_path.is_file() else {}
    assumptions = Assumptions()
    if server := price_list.server or _recorded_price(study, bench):
        price = Sourced(server.usd_per_hour, f"{server.source}, {server.date}")
        assumptions = dataclasses.replace(assumptions, usd_per_hour=price)
    if api := price_list.api or read_study(study).api:
        origin = f"{api.name}: {api.source}, {api.date}"
        usd_in, usd_out = Sourced(api.usd_per_million_in, origin), Sourced(api.usd_per_million_out, origin)
        assumptions = dataclasses.replace(assumptions, usd_in=usd_in, usd_out=usd_out)
    return dataclasses.replace(assumptions, **_measured(bench), **_asked(study))


def _recorded_price(study: Path, bench: dict[str, Any]) -> PriceConfig | None:
    """The price that the study was run at, else the one that the benchmark was."""
    if price := read_study(study).price:
        return PriceConfig(**price.model_dump())
    return PriceConfig(**bench["price"]) if bench.get("price") else None


def _asked(study: Path) -> dict[str, Sourced]:
    """Tokens of a request, as the study's own API counted them."""
    record = read_study(study)
    arms = {arm.name for arm in record.arms if arm.origin == API}
    runs = [Run(study.parent / score.run) for score in record.scores if score.arm in arms]
    costs = [read_sealed(run.cost_path) for run in runs]
    if not costs:
        return {}
    means = {
        name: sum(cost[f"{name}_per_item"] for cost in costs) / len(costs)
        for name in ("tokens_in", "tokens_out")
    }
    return {name: Sourced(mean, "as the study's API counted") for name, mean in means.items() if mean}


def _measured(bench: dict[str, Any]) -> dict[str, Sourced]:
    """The fastest level of what `adaptkit bench` wrote, and the requests that it was measured with.

    Read is the first model, the one that the study stands for, or a file of one flat measurement.
    """
    models = bench.get("models") or []
    levels = models[0]["levels"] if models else [bench]
    levels = [level for level in levels if level.get("requests_per_s")]
    if not levels:
        return {}
    best = max(levels, key=lambda level: level["requests_per_s"])
    origin = "measured by adaptkit bench"
    if bench.get("date"):
        origin += f" on {bench['date']}"
    if best.get("concurrency"):
        origin += f", {best['concurrency']} at once"
    measured = {"requests_per_s": Sourced(float(best["requests_per_s"]), origin)}
    load_of_requests = bench.get("load") or {}
    for name, key in (("tokens_in", "input_tokens"), ("tokens_out", "output_tokens")):
        if load_of_requests.get(key):
            measured[name] = Sourced(float(load_of_requests[key]), "as measured by adaptkit bench")
    return measured
