"""The tables of scores: values with intervals, the best of each column, costs, and what was not scored."""

from __future__ import annotations

import re

import pytest
from fake_study import write_study
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.report import tables
from adaptkit.study.results import Cost, collect

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
    results = collect(write_study(tmp_path, num_documents=40, num_rows=60, fractions=(1.0,)))
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
