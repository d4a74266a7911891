"""`kernels/` as a kernel-builder project: a build loads beside the installed package, and the names fit."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tomllib
from pathlib import Path

import adaptkit_kernels
import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1] / "kernels"


@pytest.fixture
def build(tmp_path):
    """The package as kernel-builder lays it out, loaded under another name as the `kernels` library does."""
    folder = tmp_path / "torch-cuda"
    shutil.copytree(
        PROJECT / "torch-ext/adaptkit_kernels", folder, ignore=shutil.ignore_patterns("__pycache__")
    )
    (folder / "_ops.py").write_text(
        'def add_op_namespace_prefix(op_name):\n    return f"_adaptkit_kernels_0123abc::{op_name}"\n'
    )
    spec = importlib.util.spec_from_file_location("adaptkit_kernels_0123abc", folder / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith(spec.name)]:
        del sys.modules[name]


def test_the_build_file_names_the_package():
    settings = tomllib.loads((PROJECT / "build.toml").read_text())
    assert settings["general"]["name"].replace("-", "_") == adaptkit_kernels.__name__
    assert "torch-noarch" in settings and (PROJECT / "torch-ext" / adaptkit_kernels.__name__).is_dir()


def test_a_build_works_beside_the_installed_package(build):
    hidden, weight = torch.randn(9, 8, requires_grad=True), torch.randn(11, 8)
    labels = torch.arange(9)
    for package, namespace in ((adaptkit_kernels, "adaptkit_kernels"), (build, "_adaptkit_kernels_0123abc")):
        loss = package.chunked.linear_cross_entropy(hidden, weight, labels)
        assert hasattr(getattr(torch.ops, namespace), "linear_cross_entropy_chunked")
        torch.testing.assert_close(
            loss, torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="sum")
        )
    assert build.launch.__name__ != adaptkit_kernels.launch.__name__
