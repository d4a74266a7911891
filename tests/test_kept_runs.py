"""`adaptkit runs list` and `show`: each run with kind, state, size, score and the studies that need it.

Home of cli.runs.
"""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
from fake_study import edit_study
from tiny_root import write_root, write_run

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.compare.kept_runs import KeptRun, RunState, kept_runs
from adaptkit.errors import DataError
from adaptkit.run import Run, write_json
from adaptkit.run_lock import hold
from adaptkit.run_record import RecipeKind, RunRecord, SuiteRecord

SPAWN = multiprocessing.get_context("spawn")


def by_name(root: Path) -> dict[str, KeptRun]:
    return {run.name: run for run in kept_runs(root)}


def hold_until_told(path: Path, ready, end) -> None:
    hold(Run(path))
    ready.set()
    end.wait(60)


@pytest.fixture
def busy(tmp_path: Path):
    """A run that another process is at."""
    run = write_run(tmp_path / "runs", "busy-1", status="running")
    ready, end = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold_until_told, args=(run.path, ready, end), daemon=True)
    process.start()
    assert ready.wait(60)
    yield run, process
    end.set()
    process.join()


def test_studies_come_first_and_every_run_says_which_study_needs_it(tmp_path: Path) -> None:
    study = write_root(tmp_path)
    runs = kept_runs(tmp_path)
    assert runs[0].name == study.name and runs[0].is_study and runs[0].state is RunState.FINISHED
    found = by_name(tmp_path)
    assert found["base"].studies == found["prepared"].studies == (study.name,)
    assert found["trial-of-before"].studies == () and found["trial-of-before"].made_by == study.name
    assert found["tickets-1a2b3c4d"].studies == () and found["tickets-1a2b3c4d"].made_by == ""
    assert found["tickets-1a2b3c4d"].kind == "finetune" and found["tickets-1a2b3c4d"].num_bytes > 1000


def test_states_and_scores(tmp_path: Path, busy) -> None:
    root = tmp_path / "runs"
    for status in ("new", "running", "failed"):
        write_run(root, f"was-{status}", status=status)
    suite = SuiteRecord(judged_on="test", num_items=4, metrics={"macro_f1": 0.75, "accuracy": 0.5})
    record = RunRecord(recipe=RecipeKind.FINETUNE, suite="mood", suites={"mood": suite})
    write_run(root, "scored").finish(record=record.model_dump(mode="json"))
    write_json(root / "broken" / "manifest.json", {"status": "finished", "seal": "0"})
    found = by_name(root)
    assert {name: run.state.value for name, run in found.items()} == {
        "busy-1": "running",
        "was-new": "interrupted",
        "was-running": "interrupted",
        "was-failed": "failed",
        "scored": "finished",
        "broken": "damaged",
    }
    assert found["busy-1"].pid == busy[1].pid and found["scored"].score == "0.750 macro f1"
    assert not found["scored"].older and "damaged" in found["broken"].problem


def test_a_run_of_an_earlier_release_is_named_so(tmp_path: Path) -> None:
    write_run(tmp_path, "old").update_manifest(identity_format=2)
    assert by_name(tmp_path)["old"].older


def test_a_study_with_a_damaged_record_is_damaged(tmp_path: Path) -> None:
    study = write_root(tmp_path)
    value = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**value, "primary": "another"}))
    assert by_name(tmp_path)[study.name].state is RunState.DAMAGED


def test_what_a_run_stands_on_is_found_by_its_name_below_any_root(tmp_path: Path) -> None:
    write_run(tmp_path, "base-1")
    for name, base in (("near", "base-1/model"), ("old", "/gone/runs/base-1/model"), ("hub", "owner/name")):
        write_run(tmp_path, name, base=base)
    found = by_name(tmp_path)
    assert found["near"].stands_on == found["old"].stands_on == ("base-1",) and found["hub"].stands_on == ()


def test_the_commands_print_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_root(tmp_path)
    edit_study(study)
    assert run_command(app, ["runs", "list", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert study.name in shown and "finetune" in shown and "runs, " in shown
    assert run_command(app, ["runs", "list", "--root", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert {run["name"] for run in listed} == set(by_name(tmp_path))
    assert run_command(app, ["runs", "show", "base", "--root", str(tmp_path), "--check"]) == 0
    assert "all files hold" in capsys.readouterr().out
    (tmp_path / "base" / "model" / "config.json").write_text("{ }")
    assert run_command(app, ["runs", "show", str(tmp_path / "base"), "--check"]) == 2
    assert "this file is damaged" in capsys.readouterr().err
    assert run_command(app, ["runs", "show", "none", "--root", str(tmp_path)]) == 2


def test_a_root_that_is_not_there_and_an_empty_one(tmp_path: Path) -> None:
    assert kept_runs(tmp_path) == []
    with pytest.raises(DataError, match="no such folder"):
        kept_runs(tmp_path / "none")
