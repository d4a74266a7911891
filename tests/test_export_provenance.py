"""The manifest of an export: digests of all that it was made from and of each of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_exports import bytes_of

from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.papers.provenance import verify
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json
from adaptkit.run_record import read_record


def test_the_manifest_has_digests_of_data_config_code_and_every_file(
    mood: Run, notes: Run, tmp_path: Path
) -> None:
    folder = export(resolve(mood.path), "bf16", Options(out=tmp_path / "out")).folder
    manifest = read_json(folder / "manifest.json")
    assert manifest["files"].keys() == bytes_of(folder).keys() - {"manifest.json"}
    trainings = [facts["run"] for facts in manifest["lineage"]]
    assert trainings == [mood.path.name, notes.path.name]
    assert manifest["lineage"][1]["data"]["train"]["digest"] == read_record(notes).splits["train"].digest
    assert (
        all(len(facts["config_sha256"]) == 64 for facts in manifest["lineage"])
        and len(manifest["code"]["sha256"]) == 64
    )
    assert manifest["source"]["model.safetensors"] and manifest["export"]["labels"] == ["bad", "good"]
    assert manifest["export"]["needs"] == "any"


@pytest.mark.parametrize("damage", ["changed", "missing", "extra"])
def test_a_folder_that_is_not_what_was_exported_is_found_out(notes: Run, tmp_path: Path, damage: str) -> None:
    folder = export(resolve(notes.path), "bf16", Options(out=tmp_path / "out")).folder
    (folder / "parity.http.json").write_text("{}")
    verify(folder)
    file = folder / ("extra.json" if damage == "extra" else "config.json")
    file.unlink() if damage == "missing" else file.write_text(
        (file.read_text() if file.exists() else "") + " "
    )
    with pytest.raises(
        ModelError,
        match={"changed": "not the file", "missing": "is missing", "extra": "not in the manifest"}[damage],
    ):
        verify(folder)
