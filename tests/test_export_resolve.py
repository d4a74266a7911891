"""What a folder stands for, and the sentence for one that stands for no model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adaptkit.errors import DataError, ModelError
from adaptkit.export.resolve import resolve
from adaptkit.run import Run


def test_folders_without_a_model_are_named(tmp_path: Path, mood: Run) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        resolve(tmp_path / "nowhere")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ModelError, match=r"neither a run nor a model \(the folder holds: thesis.txt\)"):
        resolve(tmp_path)
    with pytest.raises(ModelError, match="an adapter, not a whole model"):
        resolve(mood.adapter)


def test_choices_are_for_studies(mood: Run, model_folders: dict[str, Path]) -> None:
    for choice in ({"arm": "generic+lora"}, {"task": "mood"}, {"seed": 0}):
        (option,) = choice
        for folder in (mood.path, model_folders["llama"]):
            with pytest.raises(ModelError, match=f"--{option} picks from a study, and this is none"):
                resolve(folder, **choice)


def test_a_runs_model_folder_is_known_as_the_runs(mood: Run) -> None:
    assert resolve(mood.model) == resolve(mood.path)


def test_what_has_not_ended_says_how_to_go_on(tmp_path: Path) -> None:
    run = Run.open(tmp_path, "study", {"arms": ["generic+lora"]})
    run.start()
    with pytest.raises(DataError, match=r"has not ended \(status: running\)") as refused:
        resolve(run.path, arm="generic+lora")
    assert refused.value.fix == "run the same command again: it resumes"


def test_a_run_of_the_first_release_is_refused(mood: Run, tmp_path: Path) -> None:
    old = Run(shutil.copytree(mood.path, tmp_path / "old"))
    manifest = old.manifest()
    old.manifest_path.unlink()
    old.update_manifest(**{key: value for key, value in manifest.items() if key != "record"})
    for folder in (old.path, old.model):
        with pytest.raises(DataError, match="was made by an older release of adaptkit") as refused:
            resolve(folder)
        assert refused.value.fix == "run the same command again with another --root: it makes a new run"


def test_a_server_finds_and_checks_models_without_torch() -> None:
    modules = "resolve", "papers.provenance", "papers.signature", "parity.http_check", "hardware", "formats"
    names = ", ".join(f"adaptkit.export.{name}" for name in modules)
    code = f"import sys, {names}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
