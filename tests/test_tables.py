"""The tables of scores: values with intervals, the best of each column, costs, and what was not scored."""

from __future__ import annotations

import re

import pytest
from fake_study import write_study
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.report import tables
from adaptkit.study.record import BaseRecord, DecisionRecord, MachineRecord, PriceRecord
from adaptkit.study.results import Cost, collect
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import interval_text

SCORES = {"generic+lora": [0.70, 0.71], "scratch+full": [0.80, 0.81], "continued+full": [0.60, 0.62]}


@pytest.mark.parametrize(("task", "best"), [(TICKET, "scratch+full"), (LANGUAGE, "continued+full")])
def test_the_best_of_a_column_is_the_best_in_its_own_direction(task, best):
    table = tables.main_table(results_of(SCORES, task=task))
    assert [row.name for row in table.rows] == ["generic+lora", "continued+full", "scratch+full"]
    assert [row.name for row in table.rows if row.cells[0].best] == [best]
    arrow = "\u2191" if task is TICKET else "\u2193"
    title = "accuracy on ticket" if task is TICKET else "bits per byte"
    assert table.columns == (f"{title} {arrow}",)


def test_an_interval_ends_where_the_metric_does():
    row = tables.main_table(results_of({"generic+lora": [0.99, 0.90]}, task=TICKET)).rows[0]
    low, high = re.fullmatch(r"(\d\.\d{3}) to (\d\.\d{3})", row.cells[0].interval).groups()
    assert row.cells[0].value == "0.945" and float(low) < 0.945 and high == "1.000"
    row = tables.main_table(results_of({"generic+lora": [0.02, 0.10]}, task=TICKET)).rows[0]
    assert row.cells[0].interval.startswith("0.000 to ")


def test_costs_of_the_primary_score():
    costs = {"generic+lora": Cost(flops=3.1e14, seconds=600, tokens=1.2e6, peak_memory_bytes=9e8)}
    costs |= {"scratch+full": Cost()}
    table = tables.main_table(results_of(SCORES, costs=costs))
    by_name = {row.name: row.costs for row in table.rows}
    assert table.cost_columns == ("FLOPs", "time", "peak memory", "tokens/s")
    assert by_name["generic+lora"] == ("3.1e14", "10.0 min", "0.9 GB", "2,000")
    assert by_name["scratch+full"] == ("none", "none", "", "")


def test_baselines_stand_first_and_can_be_the_best():
    row = tables.main_table(results_of(SCORES, task=TICKET, baselines={"words": 0.5})).rows[0]
    assert (row.name, row.describe) == ("words", "no language model")
    assert row.costs == ("none", "none", "", "")
    assert row.cells[0].value == "0.500" and not row.cells[0].best
    row = tables.main_table(results_of(SCORES, task=TICKET, baselines={"words": 0.9})).rows[0]
    assert row.name == "words" and row.cells[0].best


def test_an_arm_that_was_not_scored_on_a_task_has_no_cell(tmp_path):
    results = collect(write_study(tmp_path, num_documents=40, num_rows=60))
    results.cells = [c for c in results.cells if (c.task, c.arm) != ("rct_role", "generic+lora")]
    rows = {row.name: row for row in tables.main_table(results).rows}
    assert rows["generic+lora"].cells == (None, None) and rows["generic+lora"].costs == ("",) * 4
    assert rows["generic"].cells[0] is not None and rows["generic"].cells[1] is None
    assert rows["generic+full"].cells[0] is None and rows["generic+full"].cells[1] is not None


def test_every_metric_whose_columns_are_there_is_in_the_detail_table(tmp_path):
    study = write_study(tmp_path, tasks=("language", "rct_role", "title_gen"), num_documents=40, num_rows=60)
    roles, titles = tables.detail_tables(collect(study))
    assert [column[:-2] for column in roles.columns] == [
        "accuracy",
        "macro-F1",
        "calibration error",
        "Brier score",
    ]
    assert [column[:-2] for column in titles.columns] == ["ROUGE-L", "exact match"]
    plain = tables.detail_tables(results_of(SCORES, task=TICKET))[0]
    assert [column[:-2] for column in plain.columns] == ["accuracy", "macro-F1"]


# The table that makes the decision

CLOSE = {
    "generic+prompt": [0.40] * 3,
    "generic+full": [0.80, 0.801, 0.799],
    "continued+full": [0.795, 0.84, 0.80],
    "scratch+full": [0.60, 0.605, 0.595],
}


def decided(**fields):
    results = results_of(CLOSE, task=TICKET, num_items=2000, **fields)
    main = judge(results).main
    return main, tables.decision_table(results, main)


def test_the_recommended_arm_stands_first_then_contenders_then_the_rest_by_score():
    main, rows = decided()
    assert (main.recommended, main.best) == ("generic+full", "continued+full")
    assert [(row.name, row.standing) for row in rows] == [
        ("generic+full", "recommended"),
        ("continued+full", "contender"),
        ("scratch+full", "behind"),
        ("generic+prompt", "behind"),
    ]
    assert [row.name for row in rows if row.score.best] == ["continued+full"]


def test_differences_of_the_decision_table_are_to_the_recommended_arm():
    main, rows = decided()
    assert rows[0].difference == "" and rows[0].score.value == "0.800"
    assert all(row.difference == interval_text(main.differences[row.name]) for row in rows[1:])
    assert rows[3].difference.startswith("-0.400 [")


def test_axes_that_are_not_known_stay_empty():
    _, rows = decided()
    assert {(row.usd_per_1k, row.latency, row.memory, row.forgotten) for row in rows} == {("",) * 4}
    assert rows[0].training == "3.0e14"
    price = PriceRecord(usd_per_hour=0.73, source="a list", date="2026-11-01")
    machine = MachineRecord(flops_per_second=1e9, device="cpu", cores=2)
    base = BaseRecord(model="b", params=1_000_000)
    _, rows = decided(price=price, machine=machine, base=base)
    (prompt,) = [row for row in rows if row.name == "generic+prompt"]
    assert (prompt.usd_per_1k, prompt.latency, prompt.memory) == ("$0.00041", "2 ms", "4 MB")


def test_a_dominated_row_names_what_dominates_it(tmp_path):
    _, rows = decided()
    assert {row.name: row.dominated_by for row in rows}["scratch+full"] == "continued+full"
    results = collect(write_study(tmp_path, num_documents=40, num_rows=60))
    (job,) = [task for task in judge(results).tasks if task.ledger == "jobs"]
    forgotten = {row.name: row.forgotten for row in tables.decision_table(results, job)}
    assert forgotten["tfidf"] == "" and forgotten["generic+full"] == "+0.000"
    assert forgotten["scratch+full"].startswith("+1.")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0004, "0.4 ms"), (0.012, "12 ms"), (0.9994, "999 ms"), (1.31, "1.3 s")]
)
def test_milliseconds(seconds, text):
    assert tables.milliseconds(seconds) == text


def base_sentence(base: float, generic: float = 1e12, own: float = 5e12) -> str:
    scores = {"continued": [1.80] * 3, "scratch": [1.80, 1.801, 1.799]}
    results = results_of(
        scores,
        costs={"continued": Cost(flops=generic), "scratch": Cost(flops=own)},
        base=BaseRecord(model="b", flops=base),
        decision=DecisionRecord(base_studies=10),
    )
    main = judge(results).main
    assert set(main.contenders) == set(scores)
    return tables.base_cost_sentence(results, main)


def test_every_sentence_on_the_cost_of_the_base():
    assert base_sentence(0.0) == (
        "What making the base took is not known: give `decision.base_tokens`, "
        "the tokens that it was trained on."
    )
    same = "However the base is counted, {} is the contender that costs least to train."
    assert base_sentence(1e12) == same.format("continued")
    assert base_sentence(1e12, generic=9e12) == same.format("scratch")
    assert base_sentence(3e13) == (
        "Which contender costs least to train depends on how the base is counted: "
        "continued with the base free, continued shared among studies, scratch in full."
    )


def test_the_base_is_counted_in_three_columns():
    scores = {"continued": [1.80] * 3, "scratch": [1.80, 1.801, 1.799]}
    costs = {"continued": Cost(flops=1e12), "scratch": Cost(flops=5e12)}
    results = results_of(scores, costs=costs, base=BaseRecord(model="b", flops=3e13))
    assert tables.base_cost_table(results, judge(results).main) == [
        ("continued", "1.0e12", "4.0e12", "3.1e13"),
        ("scratch", "5.0e12", "5.0e12", "5.0e12"),
    ]
    results = results_of(scores, costs=costs)
    assert tables.base_cost_table(results, judge(results).main)[0] == (
        "continued",
        "1.0e12",
        "not known",
        "not known",
    )
