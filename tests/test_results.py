"""A finished study read back: what is missing is named, what is older refused, costs and scores add up."""

from __future__ import annotations

import json
import math

import pytest
from fake_study import FULL, TEXTS, edit_study, write_study
from tiny_results import TICKET, results_of

from adaptkit.errors import DataError
from adaptkit.report.write import write_report
from adaptkit.run import read_sealed, write_json
from adaptkit.study.data_record import TestSetRecord
from adaptkit.study.results import Cost, collect, task_title
from adaptkit.study.verdict import judge_task

SMALL = {"num_documents": 60, "num_rows": 120}


def test_missing_items_cost_and_study_are_named(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    (tmp_path / "scratch-s1-f1" / "cost.json").rename(tmp_path / "cost.json")
    with pytest.raises(DataError, match="no cost.json"):
        collect(study)
    (tmp_path / "cost.json").rename(tmp_path / "scratch-s1-f1" / "cost.json")
    (tmp_path / "scratch-s2-f1" / "eval" / "language.jsonl").unlink()
    with pytest.raises(DataError, match=r"scratch-s2-f1.*suite 'language'"):
        collect(study)
    with pytest.raises(DataError, match=r"no study\.json"):
        collect(tmp_path)


def test_a_study_of_the_first_release_is_refused_with_what_to_do(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    first = read_sealed(study / "study.json")
    del first["format"]
    write_json(study / "study.json", {**first, "results": first.pop("scores"), "fractions": [1.0]})
    with pytest.raises(DataError, match="was made by an older release of adaptkit") as caught:
        write_report(study)
    assert caught.value.fix == "run the same command again with another --root: it makes a new run"


def test_a_score_of_an_arm_or_task_that_is_not_listed_is_refused(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    record = collect(study).record
    edit_study(study, arms=tuple(arm for arm in record.arms if arm.name != "placebo"))
    with pytest.raises(DataError, match=r"'placebo' on 'language' names an arm or a task that is not"):
        collect(study)
    edit_study(study, arms=record.arms, primary="ticket")
    with pytest.raises(DataError, match="the task that decides, 'ticket', is not listed"):
        collect(study)


def test_arms_scored_on_other_items_are_refused(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    path = tmp_path / "scratch-s2-f1" / "eval" / "language.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(DataError, match="scratch-s2-f1"):
        collect(study)


def test_the_two_ledgers_hold_different_arms_and_baselines_are_arms(tmp_path):
    results = collect(write_study(tmp_path, **SMALL))
    assert [arm.name for arm in results.scored_arms("language")] == list(TEXTS)
    assert {arm.ledger for arm in results.scored_arms("language")} == {"text"}
    jobs = results.scored_arms("rct_role")
    assert [arm.name for arm in jobs] == [*FULL, "tfidf"] and {arm.ledger for arm in jobs} == {"jobs"}
    assert results.replicates("rct_role").mean("tfidf") == pytest.approx(0.82, abs=0.1)


def test_items_of_one_document_stay_together(tmp_path):
    study = write_study(tmp_path, **SMALL)
    record = collect(study).record
    assert collect(study).clusters("rct_role") is None
    pairs = {f"row{i}": f"d{i // 4}" for i in range(120)}
    test_set = TestSetRecord(
        num_rows=120, num_duplicates=0, num_items=120, num_clusters=30, drawn="by hash", clusters=pairs
    )
    edit_study(study, data=record.data.model_copy(update={"test_sets": {"rct_role": test_set}}))
    results = collect(study)
    labels = results.clusters("rct_role")
    assert labels is not None and len(set(labels)) == 30 and results.clusters("language") is None
    pair = judge_task(results, results.task("rct_role"), 0.95).pair
    assert pair is not None and (pair.num_items, pair.num_clusters) == (120, 30)


def test_costs_of_an_arm_add_up(tmp_path):
    results = collect(write_study(tmp_path, **SMALL))
    cell = results.of("rct_role", "scratch+full")[0]
    parts = [json.loads((path / "cost.json").read_text()) for path in cell.paid_by]
    assert len(parts) == 2 and cell.cost.flops == pytest.approx(sum(part["flops"] for part in parts))
    assert cell.cost.peak_memory_bytes == max(part["peak_memory_bytes"] for part in parts)


def test_all_seeds_share_what_tuning_cost(tmp_path):
    study = write_study(tmp_path, tasks=("language",), **SMALL)
    record = collect(study).record
    before = collect(study).cost("language", "scratch")
    write_json(tmp_path / "trial" / "cost.json", {"flops": 3e14, "seconds": 90, "peak_memory_bytes": 9e12})
    scores = [
        score.model_copy(update={"tuned_by": ("trial",)}) if score.arm == "scratch" else score
        for score in record.scores
    ]
    edit_study(study, scores=tuple(scores))
    after = collect(study).cost("language", "scratch")
    assert after.flops == pytest.approx(before.flops + 1e14), "three seeds"
    assert after.seconds == pytest.approx(before.seconds + 30) and after.peak_memory_bytes == 9e12


def test_the_cost_of_an_arm_is_the_mean_over_its_seeds():
    results = results_of({"continued": [1.8, 1.8], "scratch": [1.7, 1.7]})
    assert results.cost("language", "scratch").seconds == 600
    assert results.cost("language", "nobody") == Cost() and Cost().tokens_per_s == 0
    assert Cost(tokens=100, seconds=5).tokens_per_s == 20


def test_a_seed_without_development_score_leaves_an_arm_without_one():
    results = results_of({"continued": [1.8, 1.8]}, dev={"continued": 1.5})
    assert results.dev("language", "continued") == 1.5
    cells = [results.cells[0], results_of({"continued": [1.8]}, dev={"continued": math.nan}).cells[0]]
    results.cells = cells
    assert results.dev("language", "continued") is None and results.dev("language", "nobody") is None


def test_language_domain_bytes_and_titles():
    results = results_of({"generic+lora": [0.8]}, task=TICKET)
    assert results.language is None and results.domain_bytes == 1_000_000
    assert task_title(results.primary) == "accuracy on ticket"
    text = results_of({"continued": [1.8]})
    assert text.language is text.primary and task_title(text.primary) == "bits per byte"


def test_items_of_one_document_are_drawn_together():
    scores = {"generic+lora": [0.8, 0.8], "scratch+full": [0.7, 0.7]}
    plain = results_of(scores, task=TICKET, num_items=40)
    assert plain.clusters("ticket") is None
    assert plain.replicates("ticket").num_clusters == 40
    documents = {f"r{i:05}": f"r{i // 10:05}" for i in range(30)}
    test_set = TestSetRecord(
        num_rows=40, num_duplicates=0, num_items=40, num_clusters=13, drawn="by hash", clusters=documents
    )
    data = plain.record.data.model_copy(update={"test_sets": {"ticket": test_set}})
    results = results_of(scores, task=TICKET, num_items=40, data=data)
    assert results.clusters("ticket")[9] == results.clusters("ticket")[0] != results.clusters("ticket")[10]
    assert results.clusters("ticket")[30:] == [("item", f"r{i:05}") for i in range(30, 40)]
    assert results.replicates("ticket").num_clusters == 13
    assert results.replicates("ticket").num_items == 40


def test_an_item_named_like_a_document_stands_alone():
    test_set = TestSetRecord(
        num_rows=2, num_duplicates=0, num_items=2, num_clusters=2, drawn="by hash", clusters={"a": "b"}
    )
    assert test_set.cluster_of("a") != test_set.cluster_of("b")
