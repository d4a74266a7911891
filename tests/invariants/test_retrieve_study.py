"""A whole study whose task is search: arms, BM25 and intervals over the same queries, without a language
model to score. Home of study.tasks.retrieve."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_embed
import tiny_study
import yaml

from adaptkit.compare.driver import StudyOutcome, compare
from adaptkit.compare.plan import make_plan
from adaptkit.compare.workspace import Workspace, result_path
from adaptkit.config import load
from adaptkit.data.beir import read_set
from adaptkit.run import Run, read_json
from adaptkit.study.arms import Origin
from adaptkit.study.config import StudyConfig
from adaptkit.study.results import Results, collect
from adaptkit.study.stage_record import StageKind

STUDY = """
name: search
base: FOLDER/bert
domain: {train: {files: [FOLDER/domain.jsonl]}}
general: {train: {files: [FOLDER/general.jsonl]}}
tasks:
  - {name: find, kind: retrieve, train: {files: [FOLDER/set]}, max_length: 32, max_epochs: 3}
arms: [generic+probe, generic+lora, generic+full, continued+full, scratch+full, distilled+full]
primary: find
budget: {amount: 2e11, trials: 1, task_share: 0.5}
seeds: 2
size: {params: 130k, seq_len: 64}
tokenizer: {vocab_size: 512, kind: wordpiece}
trainer: {global_batch_size: 8}
jobs: 1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> tuple[StudyOutcome, Results]:
    folder = tmp_path_factory.mktemp("search")
    tiny_study.write_texts(folder)
    tiny_embed.bert(folder / "bert")
    tiny_embed.write_set(folder / "set", 60)
    (folder / "study.yaml").write_text(STUDY.replace("FOLDER", str(folder)))
    outcome = compare(load(StudyConfig, folder / "study.yaml").config, folder / "runs")
    assert isinstance(outcome, StudyOutcome)
    return outcome, collect(outcome.study_path)


def test_every_arm_and_bm25_answer_the_same_queries(study):
    outcome, results = study
    arms = {cell.arm for cell in results.cells}
    named = load(StudyConfig, outcome.study_path / "config.yaml").config.arms
    assert arms == {*named, "bm25"} and len(results.cells) == 13
    ids = {tuple(row["id"] for row in cell.rows) for cell in results.cells}
    assert len(ids) == 1 and len(next(iter(ids))) == 8
    assert " on find" in outcome.verdict_line
    assert "No labelled task" not in outcome.report_path.read_text()


def test_a_base_without_bits_per_byte_is_trained_on_text_only_where_a_task_starts_from_it(study):
    outcome, results = study
    assert [task.name for task in results.tasks] == ["find"]
    stages = {path.stem for path in (outcome.study_path / "stages").rglob("*.json")}
    assert any("language.scratch" in stage for stage in stages) and not any(
        "language.generic" in stage for stage in stages
    )
    assert any("language.continued" in stage for stage in stages)


def test_a_base_without_a_masked_lm_head_restores_texts_instead(study):
    outcome, _ = study
    workspace = Workspace(outcome.study_path)
    for seed in (0, 1):
        run = Run(workspace.root / workspace.language(Origin.CONTINUED, seed).run)
        assert yaml.safe_load(run.config_path.read_text())["loss"] == "tsdae"


def test_no_training_spends_more_than_the_plan_gave_it(study):
    outcome, _ = study
    root = outcome.study_path
    workspace = Workspace(root)
    plan = make_plan(workspace.config, Run(root))
    trained = [stage for stage in plan.stages if stage.flops]
    assert len([stage for stage in trained if stage.key.kind is StageKind.TASK]) >= 4
    for stage in trained:
        run = read_json(result_path(root, stage.key))["run"]
        spent = read_json(Run(root.parent / run).cost_path)["flops"]
        ended_by_epochs = stage.key.kind is StageKind.TASK
        assert (0 if ended_by_epochs else 0.8) * stage.flops < spent <= stage.flops, stage.name


def test_a_student_learns_vectors_from_the_encoder_that_kept_training(study):
    outcome, _ = study
    workspace = Workspace(outcome.study_path)
    student, teacher = (workspace.language(origin, 0) for origin in (Origin.DISTILLED, Origin.CONTINUED))
    config = yaml.safe_load(Run(workspace.root / student.run).config_path.read_text())
    assert config["teacher"] == str(workspace.folder(teacher.model)) and config["losses"] == {"cosine": 1.0}


def test_a_frozen_arm_costs_only_its_encoding(study):
    _, results = study
    assert 0 < results.cost("find", "generic+probe").flops < results.cost("find", "generic+full").flops
    assert results.cost("find", "scratch+full").flops > results.cost("find", "generic+full").flops


def test_the_prepared_set_holds_the_splits_apart(study):
    outcome, _ = study
    folder = Workspace(outcome.study_path).files.task("find").folder
    queries = {split: set(read_set(folder, split).queries) for split in ("train", "dev", "test")}
    assert {split: len(of) for split, of in queries.items()} == {"train": 44, "dev": 8, "test": 8}
    assert not queries["train"] & queries["test"] and not queries["dev"] & queries["test"]


def test_the_report_shows_search(study):
    outcome, _ = study
    text = (Path(outcome.report_path).parent / "report.md").read_text()
    assert "bm25, without any language model, scores 1.000 on nDCG@10 on find: better than" in text
    assert Run(outcome.study_path).finished
