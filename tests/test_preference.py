"""Which contender comes first, by each preference."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_study import DAMAGE, write_study
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.run import write_json
from adaptkit.study.preference import PREFERENCES, Preference, forgotten
from adaptkit.study.record import BaseRecord, DecisionRecord, MachineRecord, PriceRecord
from adaptkit.study.results import Results, collect

SCORES = {"continued+full": [0.80] * 2, "generic+full": [0.79] * 2, "generic+prompt": [0.5] * 2}
PRICE = PriceRecord(usd_per_hour=1.0, source="a list", date="2026-11-01")


def order(results: Results, prefer: str) -> list[str]:
    task = results.primary
    return [
        arm.name
        for arm in sorted(results.scored_arms(task.name), key=Preference.of(results, task, prefer).key)
    ]


def describe(results: Results, prefer: str | None = None) -> str:
    return Preference.of(results, results.primary, prefer).describe


def test_by_quality_the_best_score_comes_first_in_the_tasks_own_direction():
    assert order(results_of(SCORES, task=TICKET), "quality")[0] == "continued+full"
    assert order(results_of({"continued": [1.8] * 2, "scratch": [1.7] * 2}), "quality")[0] == "scratch"
    assert describe(results_of(SCORES, task=TICKET), "quality") == "the best score"


def test_by_simplicity_the_one_that_takes_least_to_own():
    results = results_of(SCORES, task=TICKET, baselines={"tfidf": 0.4})
    assert order(results, "simplicity") == ["tfidf", "generic+prompt", "generic+full", "continued+full"]
    assert describe(results, "simplicity") == "the simplest to own"


def test_without_price_or_traffic_cost_falls_back_on_simplicity_and_says_what_is_missing():
    results = results_of(SCORES, task=TICKET)
    assert order(results, "cost")[0] == "generic+prompt"
    assert describe(results) == "the simplest to own (give a price to choose the cheapest instead)"
    priced = results_of(SCORES, task=TICKET, price=PRICE)
    assert describe(priced) == "the simplest to own (give your traffic to choose the cheapest instead)"


def test_by_cost_the_cheapest_bill_and_what_is_not_known_last(tmp_path: Path):
    decision = DecisionRecord(requests_per_month=200_000)
    options = {"price": PRICE, "decision": decision, "base": BaseRecord(model="b", params=1000)}
    machine = MachineRecord(flops_per_second=1e9, device="cpu", cores=2)
    results = results_of(SCORES, task=TICKET, baselines={"tfidf": 0.4}, machine=machine, **options)
    assert describe(results) == "the cheapest to own at 200,000 requests a month"
    assert order(results, "cost")[0] == "generic+prompt" and "tfidf" in order(results, "cost")[1:]
    assert order(results, "latency")[0] == "generic+prompt", "an unknown wait is not the shortest"
    write_json(tmp_path / "cost.json", {"flops": 0.0, "seconds": 1.0, "requests_per_s": 5000.0})
    results.cells = [
        dataclasses.replace(cell, paid_by=(tmp_path,)) if cell.arm == "tfidf" else cell
        for cell in results.cells
    ]
    assert order(results, "cost")[0] == "tfidf", "one server each, and nothing to train"


def test_by_forgetting_what_keeps_most_general_text(tmp_path: Path):
    results = collect(write_study(tmp_path, num_documents=40, num_rows=60))
    task = results.task("rct_role")
    lost = {arm.name: forgotten(results, arm, task) for arm in results.scored_arms(task.name)}
    assert lost["scratch+full"] == pytest.approx(DAMAGE["scratch"], abs=0.15) and lost["generic+full"] == 0.0
    preference = Preference.of(results, task, "forgetting")
    names = [arm.name for arm in sorted(results.scored_arms(task.name), key=preference.key)]
    assert names[0] == "placebo+full" and lost["placebo+full"] < 0 and names[-1] == "scratch+full"
    assert preference.describe == "the least forgotten general text"


def test_by_latency_the_shortest_waiting_time(tmp_path: Path):
    results = results_of(SCORES, task=TICKET)
    results.path = tmp_path
    models = [
        {
            "arm": arm,
            "memory_bytes": 1e6,
            "levels": [{"concurrency": 1, "requests_per_s": 1.0, "latency_ms": {"p95": waiting}}],
        }
        for arm, waiting in (("continued+full", 20.0), ("generic+full", 30.0), ("generic+prompt", 40.0))
    ]
    write_json(tmp_path / "bench.json", {"date": "2026-11-20", "models": models})
    assert order(results, "latency") == ["continued+full", "generic+full", "generic+prompt"]
    assert describe(results, "latency") == "the shortest waiting time"


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_the_studys_own_preference_is_taken_where_no_other_is_asked_for(prefer):
    results = results_of(SCORES, task=TICKET, decision=DecisionRecord(prefer=prefer))
    assert describe(results) == describe(results, prefer)
    tied = results_of({"scratch": [1.8] * 2, "continued": [1.8] * 2}, task=LANGUAGE)
    assert order(tied, prefer) == ["continued", "scratch"], "the simpler of equals"
