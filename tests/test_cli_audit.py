"""`adaptkit audit`: of a study, of one run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_study import write_study
from test_audit_selective import made_rows

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.errors import EXIT_USER
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import RecipeKind, RunRecord


def test_a_study_is_audited_by_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path, num_documents=30, num_rows=100, arms=("generic+full",))
    assert run_command(app, ["audit", str(study), "--only", "confidence"]) == 0
    shown = capsys.readouterr().out
    assert "rct_role: what people should decide" in shown and "- This holds for items like" in shown
    assert run_command(app, ["audit", str(study), "--task", "rct_role", "--json"]) == 0
    audits = json.loads(capsys.readouterr().out)["confidence"]
    assert [one["arm"] for one in audits] == ["generic+full", "tfidf"]
    assert run_command(app, ["audit", str(study), "--task", "rct_rule"]) == EXIT_USER
    assert "did you mean 'rct_role'" in capsys.readouterr().err
    assert run_command(app, ["audit", str(study), "--task", "language"]) == EXIT_USER
    assert "audit a classifier" in capsys.readouterr().err


def test_one_fine_tuning_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "queue-00000000")
    write_jsonl(run.items("queue"), made_rows(200, 2.0, seed=1))
    write_jsonl(run.items("queue", "dev"), made_rows(150, 2.0, seed=2))
    record = RunRecord(recipe=RecipeKind.FINETUNE, task="queue", suite="queue")
    run.update_manifest(name="queue")
    run.finish(record=record.model_dump(mode="json"))
    assert run_command(app, ["audit", str(run.path), "--accuracy", "0.8", "--json"]) == 0
    (audit,) = json.loads(capsys.readouterr().out)["confidence"]
    assert (audit["num_fitted"], audit["num_items"], audit["wanted_accuracy"]) == (150, 200, 0.8)
    assert run_command(app, ["audit", str(run.path), "--task", "queue"]) == EXIT_USER
    write_jsonl(run.items("queue"), made_rows(5))
    run.finish(record=record.model_dump(mode="json"))
    assert run_command(app, ["audit", str(run.path)]) == EXIT_USER
    assert "an audit needs 20" in capsys.readouterr().err
