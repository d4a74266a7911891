"""What an arm costs to own: measured where it was benchmarked, from its size otherwise, never made up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import edit_study, write_study
from tiny_results import TICKET, arm_of, baseline_of, results_of
from tiny_served import write_run

from adaptkit.run import Run, write_json, write_sealed
from adaptkit.study.ownership import monthly_usd, ownerships, simplicity
from adaptkit.study.record import BaseRecord, DecisionRecord, MachineRecord, PriceRecord
from adaptkit.study.results import Cost, collect

PRICE = PriceRecord(usd_per_hour=0.73, source="a list", date="2026-11-01")
MACHINE = MachineRecord(flops_per_second=1e9, device="cpu", cores=2)
SCORES = {"generic+prompt": [0.5] * 2, "generic+full": [0.6] * 2}
BASE = BaseRecord(model="b", params=1_000_000)


def owned_of(**fields):
    return ownerships(results_of(SCORES, task=TICKET, **fields), "ticket")


def test_without_price_and_machine_only_training_is_known():
    arm = owned_of()["generic+prompt"]
    assert arm.training_hours == pytest.approx(600 / 3600) and arm.origin == "not known"
    assert (arm.requests_per_s, arm.latency_s, arm.memory_bytes) == (None,) * 3
    assert (arm.usd_per_1k, arm.usd_per_month) == (None, None)


def test_speed_and_memory_follow_from_the_size_on_the_studys_machine():
    owned = owned_of(machine=MACHINE, base=BASE)
    arm = owned["generic+prompt"]
    # No corpus of the task: one token an item, 2 FLOPs for each of a million weights at 1e9 a second.
    assert arm.latency_s == pytest.approx(0.002) and arm.requests_per_s == pytest.approx(500)
    assert arm.memory_bytes == 4e6
    assert arm.origin == "from its size on the study's cpu, one request at a time"
    assert owned["generic+full"].latency_s is None, "no run tells how large it is"


@pytest.mark.parametrize("arm", ["generic+rag", "generic+rag-lora", "generic+rerank"])
def test_what_is_asked_beside_an_item_is_served_with_it(tmp_path: Path, arm: str):
    """Passages, instruction and examples, or all documents that a reranker reads: as a run counted them."""
    results = results_of(
        {arm: [0.5] * 2, "generic+prompt": [0.5] * 2}, task=TICKET, machine=MACHINE, base=BASE
    )
    asked, run = {"tokens_per_item": 700.0}, Run(tmp_path)
    facts = {"looked_up": asked} if arm == "generic+rag-lora" else {}
    write_run(tmp_path, params=1_000_000, facts=facts)
    write_sealed(run.cost_path, {"flops": 1.0, **({} if facts else asked)})
    results.cells = [replace(cell, run=tmp_path) if cell.arm == arm else cell for cell in results.cells]
    owned = ownerships(results, "ticket")
    assert owned[arm].latency_s == pytest.approx(700 * 0.002)
    assert owned["generic+prompt"].latency_s == pytest.approx(0.002), "no run counted: the item alone"


def test_dollars_need_a_price_and_a_month_needs_traffic_too():
    fields = {"machine": MACHINE, "base": BASE}
    arm = owned_of(**fields, price=PRICE)["generic+prompt"]
    assert arm.usd_per_1k == pytest.approx(1000 / 500 / 3600 * 0.73) and arm.usd_per_month is None
    arm = owned_of(**fields, price=PRICE, decision=DecisionRecord(requests_per_month=1e6))["generic+prompt"]
    assert arm.usd_per_month == pytest.approx(730 * 0.73 + 600 / 3600 * 0.73 / 12)


def test_a_training_is_written_off_over_the_months_of_the_decision():
    short = monthly_usd(DecisionRecord(requests_per_month=1e3, months=1), 1.0, 100.0, 24.0)
    long = monthly_usd(DecisionRecord(requests_per_month=1e3, months=24), 1.0, 100.0, 24.0)
    assert (short, long) == (pytest.approx(730 + 24), pytest.approx(730 + 1))
    assert monthly_usd(DecisionRecord(), 1.0, 100.0, 24.0) is None


def test_what_was_benchmarked_is_told_as_measured(tmp_path: Path):
    study = write_study(tmp_path, num_documents=40, num_rows=60)
    levels = [
        {"concurrency": 1, "requests_per_s": 2.0, "latency_ms": {"p95": 500.0}},
        {"concurrency": 8, "requests_per_s": 9.5, "latency_ms": {"p95": 900.0, "p99": 990.0}},
        {"concurrency": 32, "requests_per_s": 9.0, "latency_ms": {"p95": 4000.0}},
    ]
    model = {"arm": "scratch+full", "levels": levels, "memory_bytes": 5e8}
    write_json(study / "bench.json", {"date": "2026-11-20", "models": [model]})
    edit_study(study, price=PRICE)
    owned = ownerships(collect(study), "rct_role")
    arm = owned["scratch+full"]
    assert (arm.requests_per_s, arm.latency_s, arm.memory_bytes) == (9.5, pytest.approx(0.9), 5e8)
    assert arm.origin == "measured by adaptkit bench on 2026-11-20"
    assert arm.usd_per_1k == pytest.approx(1000 / 9.5 / 3600 * 0.73)
    assert owned["generic+full"].usd_per_1k is None


def test_a_search_asks_a_benchmarked_reranker_once_for_every_document(tmp_path: Path):
    results = results_of({"generic+rerank": [0.5] * 2}, task=TICKET)
    write_run(tmp_path / "run", params=1_000_000, facts={"depth": 50})
    results.cells = [replace(cell, run=tmp_path / "run") for cell in results.cells]
    level = {"concurrency": 1, "requests_per_s": 200.0, "latency_ms": {"p95": 10.0}}
    model = {"arm": "generic+rerank", "levels": [level], "memory_bytes": 4e6}
    write_json(tmp_path / "bench.json", {"date": "2026-11-20", "models": [model]})
    results.path = tmp_path
    arm = ownerships(results, "ticket")["generic+rerank"]
    assert (arm.requests_per_s, arm.latency_s) == (4.0, pytest.approx(0.5)) and arm.measured
    assert arm.origin == "measured by adaptkit bench on 2026-11-20, 50 documents read for each query"


def test_arms_are_ordered_from_the_simplest_to_own():
    arms = [baseline_of("tfidf"), *map(arm_of, (
        "generic+prompt", "generic+rag", "generic+probe", "generic+lora", "generic+qlora",
        "generic+rag-lora", "generic+full", "generic+rerank",
        "placebo+full", "continued-lora+full", "continued+lora", "continued+full", "mixed+full",
        "scratch+full", "distilled+full"))]  # fmt: skip
    assert sorted(reversed(arms), key=simplicity) == arms
    assert simplicity(arm_of("other+full")) > simplicity(arm_of("distilled+full"))


def test_a_baseline_has_no_size():
    owned = ownerships(results_of(SCORES, task=TICKET, baselines={"tfidf": 0.4}, machine=MACHINE), "ticket")
    assert owned["tfidf"].memory_bytes is None and owned["tfidf"].training_hours == 0.0
    assert Cost().seconds == 0.0
