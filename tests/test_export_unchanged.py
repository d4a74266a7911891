"""What a trained model answers now against what its run recorded: a model that changed is not exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.run import Run


def unlisted(run: Run) -> None:
    """Take the digests out of a run's manifest, as releases before them left it."""
    run.update_manifest(files_written={})


def copied(run: Run, folder: Path) -> Run:
    shutil.copytree(run.path, folder / run.path.name, ignore=shutil.ignore_patterns("export"))
    return Run(folder / run.path.name)


@pytest.mark.parametrize("name", ["mood", "notes"])
def test_a_model_that_answers_as_recorded_is_exported_and_says_so(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    exported = export(resolve(request.getfixturevalue(name).path), "bf16", Options(out=tmp_path / "out"))
    checks = [check for check in exported.parity.checks if "as the run recorded it" in check.name]
    assert checks and all(
        check.ok and check.before == pytest.approx(check.after, abs=1e-3) for check in checks
    )


@pytest.mark.parametrize("name", ["mood", "notes"])
def test_a_model_that_changed_since_it_was_scored_is_refused_by_its_file(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = copied(request.getfixturevalue(name), tmp_path)
    unlisted(run)
    path = run.model / "model.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(0)
    changed = {key: value + torch.randn(value.shape, generator=generator) for key, value in weights.items()}
    save_file(changed, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="has changed since it was scored") as caught:
        export(resolve(run.path), "bf16", Options(out=tmp_path / "out"))
    assert caught.value.where == str(path) and f"delete {run.path} and make it again" in str(caught.value.fix)
    assert not (tmp_path / "out").exists()


def test_items_that_are_not_the_same_are_not_compared(mood: Run, tmp_path: Path) -> None:
    run = copied(mood, tmp_path)
    unlisted(run)
    path = run.items("mood")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "label": "other"}) + "\n" for row in rows))
    exported = export(resolve(run.path), "bf16", Options(out=tmp_path / "out"))
    assert not [check for check in exported.parity.checks if "as the run recorded it" in check.name]
