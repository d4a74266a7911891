"""`adaptkit runs prune`: what is deleted is needed by nobody, and nothing is before --yes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from tiny_root import write_root, write_run

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.compare import kept_runs
from adaptkit.compare.prune import RemovableKind, delete, removable
from adaptkit.disk import leftovers
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run, write_text
from adaptkit.run_lock import hold, release
from adaptkit.study.record import read_study, runs_of
from adaptkit.study.results import collect

GONE = 4_000_000
"""No process has this id: Linux counts to 4,194,304, and tests start few."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_root(tmp_path)
    return tmp_path


def places(root: Path, kind: RemovableKind, *, alone: bool = False) -> set[str]:
    return {item.place for item in removable(root, alone=alone) if item.kind is kind}


def test_checkpoints_of_finished_runs_can_go_and_the_study_reads_the_same(root: Path) -> None:
    study = root / "study-fake0001"
    before = collect(study).record
    needed = runs_of(read_study(study))
    assert places(root, RemovableKind.CHECKPOINTS) >= {f"{name}/checkpoints" for name in needed}
    delete(root, removable(root))
    release()
    assert not list(root.glob("*/checkpoints")) and collect(study).record == before
    assert all((root / name / "model" / "config.json").is_file() for name in needed)
    assert removable(root) == []


def test_only_runs_that_a_study_made_and_none_needs_go_unless_asked_for_more(root: Path) -> None:
    assert places(root, RemovableKind.UNNEEDED) == {"trial-of-before"}
    assert places(root, RemovableKind.ALONE) == set()
    assert places(root, RemovableKind.ALONE, alone=True) == {"tickets-1a2b3c4d"}


def test_what_a_kept_run_stands_on_is_kept_however_far_down(root: Path) -> None:
    write_run(root, "grandparent", made_by="deleted-study")
    write_run(root, "parent", made_by="deleted-study", base="grandparent/model")
    write_run(root, "child", base="/earlier/place/parent/model")
    assert places(root, RemovableKind.UNNEEDED) == {"trial-of-before"}
    assert places(root, RemovableKind.ALONE, alone=True) == {"child", "tickets-1a2b3c4d"}
    assert places(root, RemovableKind.UNNEEDED, alone=True) == {"trial-of-before", "parent", "grandparent"}


def test_runs_of_a_study_that_has_not_ended_are_kept(root: Path) -> None:
    study = write_run(root, "later-1", status="running")
    write_text(study.path / "plan.json", "{}")
    write_run(root, "begun", made_by="later-1", status="running")
    assert "begun" not in places(root, RemovableKind.UNNEEDED, alone=True)
    assert not [item for item in removable(root) if item.run in ("begun", "later-1")]


def test_a_run_that_somebody_is_at_is_left_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = removable(root)
    held = lambda run: {"pid": 1, "host": "h"} if run.path.name == "trial-of-before" else {}  # noqa: E731
    monkeypatch.setattr(kept_runs, "holder", held)
    assert not [item for item in removable(root) if item.run == "trial-of-before"]

    def taken(run: Run) -> None:
        raise AdaptkitError("already running")

    monkeypatch.setattr("adaptkit.compare.prune.hold", taken)
    assert delete(root, found) == [] and (root / "trial-of-before").is_dir()


def test_a_run_begun_again_keeps_its_checkpoints(root: Path) -> None:
    found = [item for item in removable(root) if item.run == "base"]
    Run(root / "base").start()
    assert delete(root, found) == [] and Run(root / "base").checkpoints.is_dir()
    release()


def leave(path: Path, size: int = 500) -> Path:
    write_text(path / "model.safetensors" if path.suffix == ".tmp" else path, "w" * size)
    return path


def test_leftovers_of_kills_are_counted_wherever_they_lie_and_those_of_the_living_are_not(root: Path) -> None:
    left = {
        leave(root / "base" / f".model.{GONE}.tmp"),
        leave(root / "base" / "eval" / f".language.json.{GONE}.old"),
        leave(root / "shards" / f".1234.{GONE}.tmp"),
        leave(root / f".study-2.{GONE}.tmp"),
    }
    leave(root / "base" / f".adapter.{os.getppid()}.tmp")
    assert places(root, RemovableKind.LEFTOVER) == {path.relative_to(root).as_posix() for path in left}
    assert sum(item.num_bytes for item in removable(root) if item.kind is RemovableKind.LEFTOVER) == 2000


def test_an_export_that_another_machine_may_be_writing_is_left_for_an_hour(root: Path) -> None:
    folder = leave(root / "base" / "export" / f".int8.{GONE}.tmp")
    assert leftovers(root / "base") == []
    for path in (folder, *folder.iterdir()):
        os.utime(path, (time.time() - 4000, time.time() - 4000))
    assert leftovers(root / "base") == [folder]


def test_the_next_start_of_a_run_removes_and_counts_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = leave(root / "base" / f".model.{GONE}.tmp")
    hold(Run(root / "base"))
    assert not folder.exists() and Run(root / "base").manifest()["leftovers_removed"] == 1
    assert "base: removed 1 leftover of a kill, 500 bytes" in capsys.readouterr().err
    release()


def test_nothing_is_pruned_beside_a_damaged_study(root: Path) -> None:
    path = root / "study-fake0001" / "study.json"
    path.write_text(path.read_text().replace("clinical", "critical"))
    with pytest.raises(AdaptkitError, match="nothing is pruned beside a damaged study"):
        removable(root)


def test_links_are_not_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = write_run(tmp_path_factory.mktemp("disk"), "far", made_by="deleted-study")
    (root / "far").symlink_to(elsewhere.path)
    (root / "trial-of-before" / "link").symlink_to(elsewhere.path)
    delete(root, removable(root, alone=True))
    release()
    assert not (root / "trial-of-before").exists() and elsewhere.checkpoints.is_dir()


def test_the_command_deletes_only_with_yes(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["runs", "prune", "--root", str(root)]
    assert run_command(app, words) == 0
    shown = capsys.readouterr().out
    assert "runs that a study made and none needs: 1, " in shown and "add --yes to delete it" in shown
    assert (root / "trial-of-before").is_dir()
    assert run_command(app, [*words, "--yes", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["deleted"] and done["num_bytes"] > 1000 and not (root / "trial-of-before").exists()
    assert run_command(app, words) == 0 and capsys.readouterr().out == "nothing to delete\n"
