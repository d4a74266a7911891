"""What a demo or a calculation assumes about prices, speed and size of requests, each with where it comes
from.

    server: {usd_per_hour: 0.40, source: "example.com/pricing", date: 2026-11-01}
    api: {name: "a hosted model", usd_per_million_in: 0.15, usd_per_million_out: 0.60, source: "...", date:
        2026-11-01}

A price without a source is an assumption, and is called one wherever it is shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.config import Config, Magnitude, load
from adaptkit.run import Run, read_json
from adaptkit.study.budget import PriceConfig

EXAMPLE, GUESS = "an example, not a quote", "an assumption"


class ApiPrice(Config):
    """What an API asks, with where and when that was read."""

    name: str
    """What it is called on the page."""
    usd_per_million_in: Magnitude
    """US dollars per million tokens of prompts."""
    usd_per_million_out: Magnitude
    """US dollars per million tokens of answers."""
    source: str
    """Where the price was read."""
    date: str
    """When it was read, YYYY-MM-DD."""


class PriceList(Config):
    """A file of prices."""

    server: PriceConfig | None = None
    """One server of the kind that would answer."""
    api: ApiPrice | None = None
    """The API it is weighed against."""


@dataclass(frozen=True)
class Known:
    """A number and where it comes from, a clause."""

    value: float
    origin: str


@dataclass(frozen=True)
class Assumptions:
    """Where the sliders stand at first."""

    usd_per_hour: Known
    usd_in: Known
    usd_out: Known
    requests_per_s: Known
    tokens_in: Known
    tokens_out: Known


def assume(study: Path, prices: Path | None = None) -> Assumptions:
    """Prices of the file, else of the study; speed as `adaptkit bench` measured it; examples for what is
    unknown.

    Raises: ConfigError for a price file that does not fit, DataError for a file of the study that cannot be
        read.
    """
    listed = load(PriceList, prices).config if prices else PriceList()
    unquoted = [Known(value, EXAMPLE) for value in (1.0, 0.5, 1.5)]
    found = Assumptions(*unquoted, *(Known(value, GUESS) for value in (5.0, 500.0, 150.0)))
    path = Run(study).bench_path
    bench = read_json(path) if path.is_file() else None
    told = read_json(study / "study.json").get("price") or (bench or {}).get("price")
    server = listed.server or (PriceConfig(**told) if told else None)
    if server:
        found = dataclasses.replace(
            found, usd_per_hour=Known(server.usd_per_hour, f"{server.source}, {server.date}")
        )
    if api := listed.api:
        origin = f"{api.name}: {api.source}, {api.date}"
        usd_in, usd_out = Known(api.usd_per_million_in, origin), Known(api.usd_per_million_out, origin)
        found = dataclasses.replace(found, usd_in=usd_in, usd_out=usd_out)
    return found if bench is None else dataclasses.replace(found, **_measured(bench))


def _measured(bench: dict[str, Any]) -> dict[str, Known]:
    """The fastest level of what `adaptkit bench` wrote, and the requests that it was measured with."""
    levels = [level for level in _levels(bench) if level.get("requests_per_s")]
    if not levels:
        return {}
    best = max(levels, key=lambda level: level["requests_per_s"])
    at_once = f", {best['concurrency']} at once" if best.get("concurrency") else ""
    dated = f" on {bench['date']}" if bench.get("date") else ""
    origin = f"measured by adaptkit bench{dated}{at_once}"
    load = bench.get("load") or {}
    tokens = {
        f"tokens_{side}": load.get(f"{name}_tokens") for side, name in (("in", "input"), ("out", "output"))
    }
    found = {
        name: Known(float(value), "as measured by adaptkit bench") for name, value in tokens.items() if value
    }
    return found | {"requests_per_s": Known(float(best["requests_per_s"]), origin)}


def _levels(bench: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Measurements of the first model, which is the one the study stands for, or the one flat measurement."""
    models = bench.get("models") or []
    yield from models[0]["levels"] if models else [bench]
