"""What a study shows while it runs: one JSON line per event, and the baseline's score as soon as it is
known."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from adaptkit.compare.progress import Progress
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import result_path
from adaptkit.study.account_record import PlanRecord
from adaptkit.study.arms import Origin
from adaptkit.study.stage_record import PREPARE, BaselineResult, LanguageResult, StageKey, write_result

BASELINE = Stage(StageKey.for_baseline("mood"), "baseline of mood", (PREPARE,))


def progress(folder: Path) -> Progress:
    stages = [Stage(PREPARE, "prepare"), BASELINE]
    plan = SimpleNamespace(stages=stages, finished=lambda study: {PREPARE}, seconds=lambda stage: 2.0)
    return Progress(plan, folder)  # type: ignore[arg-type]


def events(capsys: pytest.CaptureFixture) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_baseline_is_shown_with_its_score_as_soon_as_it_is_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    result = BaselineResult(run="b", suite="mood", name="BM25", metric="accuracy", score=0.875)
    write_result(result_path(tmp_path, BASELINE.key), result)
    with progress(tmp_path) as shown:
        shown.started(BASELINE)
        shown.finished(BASELINE, 1.23)
    started, finished, baseline = events(capsys)
    assert (started["stage"], finished["done"], finished["seconds"]) == ("baseline.mood", "2/2 stages", 1.2)
    assert baseline == {
        "event": "baseline",
        "baseline": "BM25",
        "task": "mood",
        "metric": "accuracy",
        "score": 0.875,
    }


def test_a_kind_of_task_without_a_baseline_shows_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_result(result_path(tmp_path, BASELINE.key), BaselineResult())
    with progress(tmp_path) as shown:
        shown.started(BASELINE)
        shown.finished(BASELINE, 1.0)
    assert [event["event"] for event in events(capsys)] == ["started", "finished"]


def test_a_trial_that_diverged_is_told_when_it_ends(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trial = Stage(StageKey.for_language(Origin.SCRATCH, trial=1), "scratch: learning rate 2 of 3")
    plan = SimpleNamespace(stages=[trial], finished=lambda study: set(), seconds=lambda stage: 2.0)
    for diverged in (False, True):
        result = LanguageResult(run="r", learning_rate=0.5, dev=1e9, diverged=diverged)
        write_result(result_path(tmp_path, trial.key), result)
        with Progress(plan, tmp_path) as shown:  # type: ignore[arg-type]
            shown.started(trial)
            shown.finished(trial, 1.0)
        said = [event for event in events(capsys) if event["event"] == "diverged"]
        told = [{"event": "diverged", "stage": "tune.scratch.1", "learning_rate": 0.5}]
        assert said == (told if diverged else [])


def test_at_the_end_the_prediction_stands_beside_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    record = SimpleNamespace(plan=PlanRecord(predicted_seconds=50.0, taken_seconds=65.0, stages_at_once=2))
    progress(tmp_path).compare(record)  # type: ignore[arg-type]
    assert events(capsys) == [{"event": "time", "predicted_seconds": 50.0, "taken_seconds": 65.0}]


def test_a_terminal_shows_the_baseline_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = BaselineResult(run="b", suite="mood", name="BM25", metric="ndcg_at_10", score=0.875)
    write_result(result_path(tmp_path, BASELINE.key), result)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    printed: list[str] = []
    with progress(tmp_path) as shown:
        monkeypatch.setattr(shown.bar.console, "print", lambda text, **_: printed.append(str(text)))
        shown.started(BASELINE)
        shown.finished(BASELINE, 1.0)
    assert "BM25, no language model: ndcg at 10 0.875 on mood" in printed
