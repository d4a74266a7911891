"""The shipped config of all kinds of task: what baselines learn of each, and how an arm probes and trains.
Home of study.tasks.multi_label, study.tasks.spans, study.tasks.regression, study.tasks.pairs and
study.tasks.word_counts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_kinds import ROWS, SMALL, made_rows, write_data
from tiny_rows import dataset
from transformers import BertConfig

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.compare.settles import settled_by
from adaptkit.config import load
from adaptkit.data import train_tokenizer
from adaptkit.export.source import of_run
from adaptkit.run import Run
from adaptkit.run_record import read_record
from adaptkit.study.arms import Adaptation, Arm
from adaptkit.study.config import StudyConfig
from adaptkit.study.task import KINDS, Assignment, TaskConfig, TaskFiles
from adaptkit.study.tasks.spans import known_names, word_features
from adaptkit.study.tasks.word_counts import PairCounts


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    folder = tmp_path_factory.mktemp("baselines")
    path = write_data(folder)
    path.write_text(path.read_text().replace("data/", f"{folder}/data/"))
    return load(StudyConfig, path, list(SMALL)).config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random masked model that knows the words of all rows."""
    texts = [" ".join(map(str, row.values())) for kind in ROWS.values() for row in made_rows(kind, 200)]
    tokenizer = train_tokenizer(texts, "bpe", 500, masked=True)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    size = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, pad_token_id=0, **shape)
    folder = tmp_path_factory.mktemp("base") / "model"
    models.save(models.build(size, "masked", seed=0), tokenizer, folder)
    return folder


def files_in(folder: Path) -> TaskFiles:
    return TaskFiles(folder / "t", *(folder / f"{part}.jsonl" for part in ("train", "dev", "test")))


def work_on(task: TaskConfig, files: TaskFiles, base: Path, arm: str, folder: Path) -> Assignment:
    return Assignment(
        task=task.model_copy(update={"max_length": 64}),
        files=files,
        arm=Arm.parse(arm),
        origin=base,
        seed=0,
        threads=1,
        trials=2,
        adapter=AdapterConfig(),
        flops=4e10,
        learning_rate=3e-3,
        tried_steps=0,
        tuning=False,
        open=lambda name, settings: Run.open(folder / "runs", name, settings.model_dump(mode="json")),
    )


@pytest.mark.parametrize(
    ("name", "kind", "num_outputs"),
    [
        ("topics", "classify", 3),
        ("entities", "tag", 5),
        ("rating", "classify", 1),
        ("duplicate", "classify", 2),
    ],
)
def test_a_probe_and_a_trained_arm_answer_the_items_of_the_baseline(
    config: StudyConfig, base: Path, tmp_path: Path, name: str, kind: str, num_outputs: int
) -> None:
    task, files = config.task(name), files_in(tmp_path)
    rows = task.task_kind.read(task)
    task.task_kind.prepare(files, task, rows)
    probed = task.task_kind.frozen(work_on(task, files, base, "generic+probe", tmp_path))
    assert set(task.task_kind.metrics) <= probed.dev.keys() and len(probed.facts["trials"]) == 2
    run = task.task_kind.train(work_on(task, files, base, "generic+full", tmp_path))
    suite = read_record(run).suites[name]
    assert set(suite.metrics) == set(task.task_kind.metrics) and set(suite.dev) == {*suite.metrics, "loss"}
    assert suite.num_items == len(probed.rows) == len(rows.test.rows)
    source = of_run(run.path)
    assert source.kind == kind and len(source.labels) == num_outputs
    assert {row["id"] for row in probed.rows} == set(task.task_kind.clusters(files, rows))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("topics", 0.95),
        ("entities", 0.95),
        ("bill", 0.9),
        ("rating", 0.8),
        ("duplicate", 0.65),
        ("preferred", 0.9),
    ],
)
def test_a_baseline_learns_what_words_tell(
    config: StudyConfig, tmp_path: Path, name: str, least: float
) -> None:
    task, files = config.task(name), files_in(tmp_path)
    rows = task.task_kind.read(task)
    task.task_kind.prepare(files, task, rows)
    baseline = task.task_kind.baseline(task, files)
    assert baseline is not None and baseline.requests_per_s > 0
    assert [row["id"] for row in baseline.rows] == [row.id for row in rows.test.rows]
    scores = task.task_kind.scores(baseline.rows)
    assert set(scores) == set(task.task_kind.metrics) and scores[task.score] > least
    assert task.task_kind.size(task).num_items == pytest.approx(len(rows.test.rows), rel=0.2)
    assert set(task.task_kind.clusters(files, rows)) == {row["id"] for row in baseline.rows}


def test_the_shipped_tasks_are_of_these_kinds(config: StudyConfig) -> None:
    assert {task.name for task in config.tasks} == set(ROWS)
    assert [task.score for task in config.tasks] == [task.task_kind.metrics[0] for task in config.tasks]


@pytest.mark.parametrize("kind", ["pairs", "multi_label", "spans", "regression"])
def test_every_kind_is_prompted_and_probed(kind: str) -> None:
    assert KINDS[kind].learns_by(Adaptation.PROMPT) and KINDS[kind].learns_by(Adaptation.PROBE)
    assert not KINDS[kind].learns_by(Adaptation.RAG_LORA) and "instruction" in KINDS[kind].asks


def test_a_known_name_is_looked_up_as_a_whole() -> None:
    span = {"start": 0, "end": 8, "label": "place"}
    rows = dataset([{"text": "New York grows", "spans": [span]}], "spans").rows
    names = known_names(rows)
    assert names == {("new", "york"): "place"} and known_names(rows, least=2) == {}
    seen = dataset([{"text": "in NEW york", "spans": []}], "spans").rows[0]
    tags = [
        next(name for name in features if name.startswith("name ")) for features in word_features(seen, names)
    ]
    assert tags == ["name O", "name B-place", "name I-place"]


def test_pairs_are_told_apart_by_what_they_share() -> None:
    pairs = [("red lamp", "red lamp"), ("red lamp", "blue chair")]
    features = PairCounts().fit(pairs).transform(pairs).toarray()
    assert features[0, -1] == pytest.approx(1.0) and features[1, -1] == 0.0


def test_what_an_error_in_a_unit_of_ones_own_can_settle_is_not_guessed(config: StudyConfig) -> None:
    sizes = {task.name: SimpleNamespace(num_items=500) for task in config.tasks}
    costs: Any = SimpleNamespace(tasks=sizes, texts=SimpleNamespace(num_test=100))
    assert {"topics", "rating"} <= {row["task"] for row in settled_by(config, costs)}
    tasks = [t.model_copy(update={"metric": "mae"}) if t.name == "rating" else t for t in config.tasks]
    named = {row["task"] for row in settled_by(config.model_copy(update={"tasks": tasks}), costs)}
    assert "topics" in named and "rating" not in named
