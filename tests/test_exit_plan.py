"""Stay with an API, or own an arm: what its requests cost, who is cheaper when, what the report says of it.
Home of study.exit_plan."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from tiny_results import TICKET, results_of

from adaptkit.report.tables import exit_table, pays_from_words
from adaptkit.run import write_json, write_sealed
from adaptkit.study.exit_plan import PaysFrom, exit_plan
from adaptkit.study.flips import traffic
from adaptkit.study.ownership import ownerships, simplicity
from adaptkit.study.preference import Preference
from adaptkit.study.record import BaseRecord, DecisionRecord, MachineRecord, PriceRecord
from adaptkit.study.results import Results
from adaptkit.study.verdict import judge

SCORES = {"generic+prompt": [0.5] * 2, "generic+full": [0.62] * 2, "api+prompt": [0.6] * 2}
PRICE = PriceRecord(usd_per_hour=0.5, source="a list", date="2026-11-01")
MACHINE = MachineRecord(flops_per_second=1e9, device="cpu", cores=2)
BASE = BaseRecord(model="b", params=1_000_000)
ASKED = {"seconds": 9.0, "usd_per_item": 0.001, "latency_s": {"p50": 0.4, "p95": 0.9}}


def study(folder: Path, requests: float = 1e6, price: PriceRecord | None = PRICE, scores=SCORES) -> Results:
    decision = DecisionRecord(requests_per_month=requests)
    results = results_of(scores, task=TICKET, machine=MACHINE, base=BASE, price=price, decision=decision)
    run = folder / "ticket-api+prompt-1"
    write_sealed(run / "cost.json", ASKED)
    results.cells = [
        dataclasses.replace(cell, paid_by=(run,)) if cell.arm == "api+prompt" else cell
        for cell in results.cells
    ]
    return results


def test_an_api_is_paid_by_the_request_and_owns_nothing(tmp_path: Path) -> None:
    owned = ownerships(study(tmp_path), "ticket")["api+prompt"]
    assert owned.usd_per_request == 0.001 and owned.usd_per_1k == pytest.approx(1.0)
    assert owned.usd_per_month == pytest.approx(1000) and owned.latency_s == 0.9
    assert (owned.training_hours, owned.requests_per_s, owned.memory_bytes) == (0.0, None, None)
    assert "over the API" in owned.origin
    assert ownerships(study(tmp_path, requests=0), "ticket")["api+prompt"].usd_per_month is None


def test_an_api_stands_between_the_base_and_what_is_trained() -> None:
    arms = {arm.name: arm for arm in results_of(SCORES, task=TICKET).arms}
    assert simplicity(arms["generic+full"]) < simplicity(arms["api+prompt"])


def test_the_exit_plan_pays_training_at_once_and_servers_every_month(tmp_path: Path) -> None:
    options = {option.arm: option for option in exit_plan(study(tmp_path), TICKET)}
    assert list(options) == ["generic+prompt"], "of generic+full no speed is known"
    option = options["generic+prompt"]
    assert option.api_usd == pytest.approx(1000) and option.own_usd == pytest.approx(730 * 0.5)
    assert option.training_usd == pytest.approx(600 / 3600 * 0.5)
    assert option.paid_back == pytest.approx(option.training_usd / (1000 - 365))
    assert option.after(3) == (pytest.approx(option.training_usd + 3 * 365), pytest.approx(3000))
    assert option.difference.difference == pytest.approx(-0.1)


def test_owning_is_never_paid_back_at_little_traffic_and_unknown_without_price_or_traffic(
    tmp_path: Path,
) -> None:
    (option,) = exit_plan(study(tmp_path, requests=1e4), TICKET)
    assert option.api_usd == pytest.approx(10) and option.paid_back == math.inf
    assert exit_plan(study(tmp_path, requests=0), TICKET) == []
    assert exit_plan(study(tmp_path, price=None), TICKET) == []
    without = {name: seeds for name, seeds in SCORES.items() if name != "api+prompt"}
    assert exit_plan(study(tmp_path, scores=without), TICKET) == []


def test_the_report_says_it_in_words(tmp_path: Path) -> None:
    results = study(tmp_path)
    (row,) = exit_table(results, judge(results).main)
    assert (row.arm, row.api, row.api_month, row.month) == ("generic+prompt", "api+prompt", "$1,000", "$365")
    assert row.paid_back == "after 0.0 months" and row.difference.startswith("-0.100 [")
    assert row.bills[1] == ("$1,095", "$3,000")
    poor = study(tmp_path, requests=1e4)
    assert exit_table(poor, judge(poor).main)[0].paid_back == "never"


def test_owning_pays_from_so_many_requests_a_month_with_an_interval(tmp_path: Path) -> None:
    results = study(tmp_path)
    (option,) = exit_plan(results, TICKET)
    server, training = 730 * 0.5, 600 / 3600 * 0.5 / 12
    assert option.pays_from.requests == pytest.approx((server + training) / 0.001)
    assert (option.pays_from.low, option.pays_from.high) == (None, None), "its speed is not measured"
    assert exit_table(results, judge(results).main)[0].pays_from == (
        "about from 365 k a month; no interval, as its speed is not measured (adaptkit bench)"
    )
    levels = [{"concurrency": 8, "requests_per_s": 5.0}]
    bench = {
        "date": "2026-11-20",
        "models": [{"arm": "generic+prompt", "memory_bytes": 1e9, "levels": levels}],
    }
    results.path = tmp_path / "study"
    write_json(results.path / "bench.json", bench)
    dearer = tmp_path / "ticket-api+prompt-2"
    write_sealed(dearer / "cost.json", {**ASKED, "usd_per_item": 0.0011})
    asked = [cell for cell in results.cells if cell.arm == "api+prompt"]
    results.cells[results.cells.index(asked[1])] = dataclasses.replace(asked[1], paid_by=(dearer,))
    (option,) = [option for option in exit_plan(results, TICKET) if option.arm == "generic+prompt"]
    low, high = option.pays_from.low, option.pays_from.high
    assert low is not None and high is not None and low < option.pays_from.requests < high
    never = PaysFrom(math.inf, None, None)
    assert pays_from_words(never) == "never, at these prices"
    assert pays_from_words(PaysFrom(1.2e6, 1e6, math.inf)) == "from 1.2 M a month [1 M, never]"


def test_traffic_turns_the_answer_from_the_api_to_owning(tmp_path: Path) -> None:
    scores = {"generic+prompt": [0.6] * 2, "api+prompt": [0.6] * 2}
    results = study(tmp_path, scores=scores)
    turns = traffic(results, TICKET, judge(results).main).turns
    assert turns.startswith("api+prompt from ") and "generic+prompt from 1,000,000" in turns


def test_the_cheapest_needs_the_price_of_a_server_too(tmp_path: Path) -> None:
    cheap = Preference.of(study(tmp_path), TICKET, "cost")
    arms = {arm.name: arm for arm in study(tmp_path).arms}
    assert cheap.key(arms["generic+prompt"]) < cheap.key(arms["api+prompt"])
    unpriced = Preference.of(study(tmp_path, price=None), TICKET, "cost")
    assert "give a price" in unpriced.describe
    assert unpriced.key(arms["generic+prompt"])[0] == unpriced.key(arms["api+prompt"])[0] == 0.0
