"""The record of an export: read back as it was written, of the first release too."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.record import read_export
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json, write_json


def test_the_record_is_read_as_it_was_written(mood: Run, tmp_path: Path) -> None:
    done = export(resolve(mood.path), "int8", Options(out=tmp_path / "out"))
    assert read_export(done.folder) == done.record
    assert (done.record.method, done.record.needs, done.record.labels) == ("rtn", "any", ("bad", "good"))
    assert done.record.group_size is None and done.record.calibration is None and done.record.base is None


def test_other_folders_have_none(mood: Run, model_folders: dict[str, Path]) -> None:
    assert read_export(model_folders["llama"]) is None
    assert read_export(mood.path) is None, "a run has a manifest, too"


def test_exports_of_the_first_release_are_still_served(mood: Run, tmp_path: Path) -> None:
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    manifest = read_json(folder / "manifest.json")
    for key in ("study_name", "origin", "adaptation"):
        del manifest["export"][key]
    write_json(folder / "manifest.json", manifest)
    source = resolve(folder)
    assert source.exported and source.task == "mood" and source.origin is None


def test_a_record_that_does_not_fit_is_refused(mood: Run, tmp_path: Path) -> None:
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    manifest = read_json(folder / "manifest.json")
    manifest["export"]["needs"] = "a miracle"
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(ModelError, match="does not fit at 'needs'") as refused:
        resolve(folder)
    assert refused.value.fix == "export the model again"
