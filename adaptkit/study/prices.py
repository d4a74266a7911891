"""Collect what a cost calculation assumes: prices, speed and size of requests, each with where it comes from.

    server: {usd_per_hour: 0.40, source: "example.com/pricing", date: 2026-11-01}
    api: {name: "a hosted model", usd_per_million_in: 0.15, usd_per_million_out: 0.60, source: "...",
          date: 2026-11-01}

Nothing is guessed: without a price, a measured speed or measured lengths nothing is said of when an own
server pays, but which key to set.
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
from adaptkit.study.ownership import API, bytes_per_token, ownerships, tokens_per_item
from adaptkit.study.results import Results, is_language


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
    """Where the sliders stand at first; None for what nobody stated or measured."""

    usd_per_hour: Sourced | None = None
    usd_in: Sourced | None = None
    usd_out: Sourced | None = None
    requests_per_s: Sourced | None = None
    tokens_in: Sourced | None = None
    tokens_out: Sourced | None = None

    def missing(self) -> list[str]:
        """Say what is not known, and what to set: a sentence each."""
        return [sentence for name, sentence in MISSING.items() if getattr(self, name) is None]


_LENGTHS = (
    "measure with `adaptkit bench STUDY --input-tokens N --output-tokens M`, as long as your requests are"
)
MISSING = {
    "usd_per_hour": "the price of a server: set `server: {usd_per_hour, source, date}` in the file of "
    "`--prices`, or `budget.price` in the study",
    "usd_in": "the price of an API: set `api: {name, usd_per_million_in, usd_per_million_out, source, date}` "
    "in the file of `--prices`, or `api.price` in the study",
    "requests_per_s": "how many requests a server answers: measure with `adaptkit bench STUDY`",
    "tokens_in": f"how long a request is: {_LENGTHS}",
    "tokens_out": f"how long an answer is: {_LENGTHS}",
}
"""What a break-even needs -> what is said where it is not there."""


def assume(results: Results, prices: Path | None = None) -> Assumptions:
    """Take prices from the file or the study, speed as it was measured, lengths from the task's own items.

    Raises: ConfigError for a price file that does not fit, DataError for a file of the study that cannot be
        read.
    """
    price_list = load(PriceList, prices).config if prices else PriceList()
    bench_path = Run(results.path).bench_path
    bench = read_json(bench_path) if bench_path.is_file() else {}
    assumptions = Assumptions()
    if server := price_list.server or _recorded_price(results, bench):
        price = Sourced(server.usd_per_hour, f"{server.source}, {server.date}")
        assumptions = dataclasses.replace(assumptions, usd_per_hour=price)
    if api := price_list.api or results.record.api:
        origin = f"{api.name}: {api.source}, {api.date}"
        usd_in, usd_out = Sourced(api.usd_per_million_in, origin), Sourced(api.usd_per_million_out, origin)
        assumptions = dataclasses.replace(assumptions, usd_in=usd_in, usd_out=usd_out)
    lengths = {**_bench_lengths(bench), **_item_lengths(results), **_asked(results)}
    return dataclasses.replace(assumptions, **_speed(results, bench), **lengths)


def _recorded_price(results: Results, bench: dict[str, Any]) -> PriceConfig | None:
    """The price that the study was run at, else the one that the benchmark was."""
    if price := results.record.price:
        return PriceConfig(**price.model_dump())
    return PriceConfig(**bench["price"]) if bench.get("price") else None


def _asked(results: Results) -> dict[str, Sourced]:
    """Tokens of a request, as the study's own API counted them."""
    record = results.record
    arms = {arm.name for arm in record.arms if arm.origin == API}
    runs = [Run(results.path.parent / score.run) for score in record.scores if score.arm in arms]
    costs = [read_sealed(run.cost_path) for run in runs]
    if not costs:
        return {}
    means = {
        name: sum(cost[f"{name}_per_item"] for cost in costs) / len(costs)
        for name in ("tokens_in", "tokens_out")
    }
    return {name: Sourced(mean, "as the study's API counted") for name, mean in means.items() if mean}


def _item_lengths(results: Results) -> dict[str, Sourced]:
    """Tokens of the deciding task's mean test item, and of its mean answer, in the base's tokens.

    A text without a question has no answer whose length could be counted.
    """
    task = results.primary
    arms = [arm for arm in results.scored_arms(task.name) if arm.origin == "generic"]
    if is_language(task) or not arms:
        return {}
    origin = f"as the test items of {task.name} are"
    lengths = {"tokens_in": Sourced(tokens_per_item(results, task.name, arms[0]), origin)}
    rows = results.of(task.name, arms[0].name)[0].rows
    answers = [str(row.get("reference", row.get("label", ""))) for row in rows]
    if any(answers):
        mean = sum(len(answer.encode()) for answer in answers) / len(answers)
        tokens = max(1.0, mean / bytes_per_token(results, arms[0]))
        lengths["tokens_out"] = Sourced(tokens, f"as the answers of {task.name} are")
    return lengths


def _speed(results: Results, bench: dict[str, Any]) -> dict[str, Sourced]:
    """The fastest level of what `adaptkit bench` wrote, else the slowest of the task's models, by its size.

    Read is the first model, the one that the study stands for, or a file of one flat measurement.
    """
    models = bench.get("models") or []
    levels = models[0]["levels"] if models else [bench]
    levels = [level for level in levels if level.get("requests_per_s")]
    if not levels:
        return _speed_by_size(results)
    best = max(levels, key=lambda level: level["requests_per_s"])
    origin = "measured by adaptkit bench"
    if bench.get("date"):
        origin += f" on {bench['date']}"
    if best.get("concurrency"):
        origin += f", {best['concurrency']} at once"
    return {"requests_per_s": Sourced(float(best["requests_per_s"]), origin)}


def _speed_by_size(results: Results) -> dict[str, Sourced]:
    """The slowest of the task's models, from their sizes and the speed of the study's machine."""
    owned = [row for row in ownerships(results, results.primary.name).values() if row.memory_bytes]
    known = [row for row in owned if row.requests_per_s]
    if not known:
        return {}
    slowest = min(known, key=lambda row: row.requests_per_s or 0.0)
    return {"requests_per_s": Sourced(slowest.requests_per_s or 0.0, slowest.origin)}


def _bench_lengths(bench: dict[str, Any]) -> dict[str, Sourced]:
    """The lengths of the requests that `adaptkit bench` was told to send."""
    load_of_requests = bench.get("load") or {}
    lengths = {}
    for name, key in (("tokens_in", "input_tokens"), ("tokens_out", "output_tokens")):
        if load_of_requests.get(key):
            lengths[name] = Sourced(float(load_of_requests[key]), "as measured by adaptkit bench")
    return lengths
