"""Kinds of task: what is known of each, and a kind that another package brings. Home of study.task,
study.corpus_rows, study.task_answers, study.tasks.classify, study.tasks.generate and study.tasks.rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_study import study_config, write_texts

from adaptkit.run import read_json, write_jsonl
from adaptkit.study.arms import Adaptation
from adaptkit.study.config import StudyConfig
from adaptkit.study.corpus_rows import read_corpus
from adaptkit.study.task import KINDS, CorpusConfig, CorpusRows, TaskFiles

NUMBERS = {"accuracy": 0.25, "loss": 0.75, "ndcg_at_10": 0.9}


@pytest.fixture
def config(tmp_path: Path) -> StudyConfig:
    write_texts(tmp_path)
    return study_config(tmp_path, "arms=[generic+prompt, generic+probe, generic+qlora, generic+full]")


def test_a_kind_says_which_arms_cannot_learn_it(config: StudyConfig) -> None:
    task = config.tasks[0]

    def arms(kind: str) -> list[Adaptation]:
        return [arm.adaptation for arm in config.arms_on(task.model_copy(update={"kind": kind}))]

    prompt, probe, qlora, full = Adaptation.PROMPT, Adaptation.PROBE, Adaptation.QLORA, Adaptation.FULL
    assert arms("classify") == arms("label_words") == [prompt, probe, qlora, full]
    assert arms("generate") == [prompt, qlora, full]
    assert arms("retrieve") == [probe, full]


def test_trials_are_judged_by_loss_and_searches_by_ranks() -> None:
    for kind in ("classify", "label_words", "generate"):
        assert KINDS[kind].tuning_score(NUMBERS, "accuracy") == 0.75
    assert KINDS["retrieve"].tuning_score(NUMBERS, "ndcg_at_10") == pytest.approx(0.1)


def test_learning_rates_are_centred_by_what_moves() -> None:
    rates = KINDS["classify"].rates
    assert rates.centre(Adaptation.FULL) == 0.3
    assert rates.centre(Adaptation.LORA) == rates.centre(Adaptation.QLORA) == 0.6
    assert KINDS["retrieve"].rates.centre(Adaptation.FULL) == 0.1


def test_test_rows_are_held_out_once_and_dev_rows_from_the_rest(config: StudyConfig, tmp_path: Path) -> None:
    task = config.tasks[0]
    files = TaskFiles(tmp_path / "mood", *(tmp_path / f"{part}.jsonl" for part in ("train", "dev", "test")))
    rows = task.task_kind.read(task)
    task.task_kind.prepare(files, task, rows)
    parts = {name: {row.text for row in part.rows} for name, part in KINDS["classify"].parts(files).items()}  # type: ignore[attr-defined]
    assert parts["test"] == {row.text for row in rows.test.rows}
    assert parts["train"] | parts["dev"] == {row.text for row in rows.train.rows}
    assert not parts["train"] & parts["dev"] and 0.1 < len(parts["dev"]) / len(rows.train.rows) < 0.3


def test_a_label_that_only_tests_know_is_named_with_its_row(tmp_path: Path) -> None:
    from adaptkit.errors import DataError

    for name, labels in (("train", "ab"), ("test", "ac")):
        rows = [{"text": f"{label} {i}", "label": label} for i, label in enumerate(labels * 4)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    named = {part: {"files": [str(tmp_path / f"{part}.jsonl")]} for part in ("train", "test")}
    corpus = CorpusConfig.model_validate(named)
    kind = KINDS["classify"]
    files = TaskFiles(tmp_path / "t", tmp_path / "1", tmp_path / "2", tmp_path / "3")
    with pytest.raises(DataError, match="label 'c' stands in .* of the test of 't'"):
        kind.prepare(files, corpus, kind.read(corpus))


def test_duplicates_are_counted_and_removed_before_the_split(tmp_path: Path) -> None:
    rows = [{"text": f"row number {i % 20} of a small table"} for i in range(40)]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    found = read_corpus(
        CorpusConfig.model_validate({"train": {"files": [str(tmp_path / "rows.jsonl")]}}), "text"
    )
    assert isinstance(found, CorpusRows) and found.duplicates["num_exact"] == 20
    assert len(found.train.rows) + len(found.test.rows) == 20 - found.duplicates["num_near"]


TOY = '''
"""Kind `shout`: is the text in capitals? Answered by a rule, as a stand-in for any idea of one's own."""

from adaptkit.study.task_answers import Answers
from adaptkit.study.tasks.classify import Classify


class Shout(Classify):
    name = "shout"

    def frozen(self, work):
        rows = self.parts(work.files)["test"].rows
        return Answers([self.answer(row) for row in rows], {"accuracy": 1.0}, {"flops": 0.0, "seconds": 0.0})

    def answer(self, row):
        label = "good" if row.text.isupper() else "bad"
        chances = {"good": float(label == "good"), "bad": float(label == "bad")}
        return {"id": row.id, "label": row.values["label"], "prediction": label, "probabilities": chances}
'''


def test_another_package_brings_a_kind_of_its_own(tmp_path: Path) -> None:
    """Registered by an entry point: the command line and the processes of stages know it too."""
    write_texts(tmp_path)
    site = tmp_path / "site"
    info = site / "shouting-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "shouting.py").write_text(TOY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[adaptkit.task_kinds]\nshout = shouting:Shout\n")
    study_config(tmp_path)
    path = os.pathsep.join([str(site), *(entry for entry in sys.path if entry)])
    overrides = ["tasks.0.kind=shout", "arms=[generic+prompt]", "seeds=1", "budget.trials=1", "jobs=1"]
    command = [sys.executable, "-m", "adaptkit", "compare", str(tmp_path / "study.yaml"), *overrides]
    done = subprocess.run(
        [*command, "--root", str(tmp_path / "runs")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    (scores,) = (tmp_path / "runs").glob("mood-prompt-*/eval/mood.json")
    (rows,) = (tmp_path / "runs").glob("mood-prompt-*/eval/mood.jsonl")
    labels = [line.split('"label": "')[1].split('"')[0] for line in rows.read_text().splitlines()]
    assert read_json(scores)["metrics"]["accuracy"] == pytest.approx(labels.count("bad") / len(labels))
