"""`adaptkit audit`: of a study, of one run, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_study import write_study
from test_audit_selective import made_rows
from test_bias_section import figure, sentences, task_record
from test_memorisation_section import ARMS, audit

from adaptkit.audit.bias_record import BiasRecord, read_bias
from adaptkit.audit.record import MemorisationRecord, read_memorisation
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


def test_a_pretraining_is_audited_for_what_it_keeps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def audit_run(run: Run, *, num: int) -> MemorisationRecord:
        asked.append(num)
        return audit(*ARMS)

    monkeypatch.setattr("adaptkit.audit.memorisation.audit_run", audit_run)
    run = Run(tmp_path / "notes-00000000")
    record = RunRecord(recipe=RecipeKind.PRETRAIN, model_kind="causal", suite="language")
    run.update_manifest(name="notes")
    run.finish(record=record.model_dump(mode="json"))
    assert run_command(app, ["audit", str(run.path), "--passages", "50"]) == 0
    shown = capsys.readouterr().out
    assert (
        "Exposure of canaries, in bits, by repeats:" in shown and "- These attacks are the simplest" in shown
    )
    assert "secrets that stand in the text 16 times were written out." in shown
    assert read_memorisation(run) == audit(*ARMS)
    assert run_command(app, ["audit", str(run.path), "--only", "memorisation", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"memorisation"} and found["memorisation"]["num_train"] == 200
    assert asked == [50, 200]
    assert run_command(app, ["audit", str(run.path), "--task", "queue"]) == EXIT_USER
    assert "only the audit of confidence and of bias reads this" in capsys.readouterr().err
    assert run_command(app, ["audit", str(run.path), "--passages", "5"]) == EXIT_USER


def test_a_study_says_how_its_models_are_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, num_documents=30, num_rows=100, arms=("generic+full",))
    assert run_command(app, ["audit", str(study)]) == 0
    assert "--only memorisation" in capsys.readouterr().out
    assert run_command(app, ["audit", str(study), "--passages", "50"]) == EXIT_USER
    assert "add --only memorisation" in capsys.readouterr().err
    monkeypatch.setattr("adaptkit.compare.audited_study.audit_study", lambda folder, num: audit(*ARMS))
    assert run_command(app, ["audit", str(study), "--only", "memorisation"]) == 0
    assert "temperature" not in capsys.readouterr().out
    page = (Run(study).report / "report.html").read_text(encoding="utf-8")
    assert 'id="memorisation"' in page


def test_bias_is_asked_of_a_run_and_of_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    told, gaps = sentences(figure(0.5), figure(0.4)), task_record(figure(-0.3), None)

    def audit_run_bias(run: Run, *, pairs: Path | None, words: Path | None) -> BiasRecord:
        asked.append((pairs, words))
        return told

    def audit_study_bias(folder: Path, **given: object) -> BiasRecord:
        asked.append(tuple(given.values()))
        return BiasRecord(confidence=0.95, tasks=(gaps,))

    monkeypatch.setattr("adaptkit.audit.bias.audit_run_bias", audit_run_bias)
    monkeypatch.setattr("adaptkit.compare.audited_study.audit_study_bias", audit_study_bias)
    run = Run(tmp_path / "notes-00000000")
    record = RunRecord(recipe=RecipeKind.PRETRAIN, model_kind="causal", suite="language")
    run.update_manifest(name="notes")
    run.finish(record=record.model_dump(mode="json"))
    assert run_command(app, ["audit", str(run.path), "--only", "bias", "--pairs", "pairs.csv"]) == 0
    shown = capsys.readouterr().out
    assert "likelier in sentences with Oslo" in shown and "- A bit is a factor of two." in shown
    assert read_bias(run) == told and asked == [(Path("pairs.csv"), None)]
    assert run_command(app, ["audit", str(run.path), "--only", "bias", "--by", "place"]) == EXIT_USER
    assert "told by a column of a study" in capsys.readouterr().err
    assert run_command(app, ["audit", str(run.path), "--pairs", "pairs.csv"]) == EXIT_USER
    assert "add --only bias" in capsys.readouterr().err
    study = write_study(tmp_path, num_documents=30, num_rows=100, arms=("generic+full",))
    assert run_command(app, ["audit", str(study), "--only", "bias", "--by", "place", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"bias"} and found["bias"]["tasks"][0]["column"] == "place"
    assert asked[-1] == (None, None, "place", None)
    assert 'id="bias"' in (Run(study).report / "report.html").read_text(encoding="utf-8")
