"""Whole runs: 50 steps with fused layers and a fused loss follow the plain run's loss within 1e-3, for every
objective.

The kernels run in Triton's interpreter, in one process of their own; on a machine with a GPU they run there
as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import train_fused
from adaptkit_kernels import launch

from adaptkit.run import read_json

ROOT = Path(__file__).resolve().parents[2]
FUSED = {
    "pretrain": {"rms_norm", "add_norm", "gated", "rope"},
    "masked": {"layer_norm", "add_norm"},
    "classify": {"layer_norm", "add_norm"},
    "lora": {"rms_norm", "add_norm", "gated", "rope", "lora_linear"},
    "contrastive": {"layer_norm", "add_norm"},
    "distillation": {"rms_norm", "add_norm", "gated", "rope"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    if not launch.triton_importable():
        pytest.skip("Triton is not installed")
    root = tmp_path_factory.mktemp("fused")
    paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "tests", ROOT / "kernels/torch-ext"))
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": paths,
    }
    command = [sys.executable, train_fused.__file__, root]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", train_fused.TASKS)
def test_fused_training_follows_the_reference(runs, name):
    follows(
        *(read_json(runs / f"{name}-{implementation}.json") for implementation in ("fused", "reference")),
        name,
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", train_fused.TASKS)
def test_on_a_gpu_it_follows_the_reference_too(tmp_path, name):
    follows(
        *(
            train_fused.train(tmp_path / word, name, word, precision="fp32")
            for word in ("fused", "reference")
        ),
        name,
    )


def follows(fused: dict, plain: dict, name: str) -> None:
    assert fused["facts"]["fused_layers"].keys() == FUSED[name] and not plain["facts"]["fused_layers"]
    assert fused["facts"]["implementation"] == "fused" and plain["facts"]["implementation"] == "reference"
    assert len(fused["losses"]) == len(plain["losses"]) == train_fused.STEPS
    assert max(abs(a - b) for a, b in zip(fused["losses"], plain["losses"], strict=True)) < 1e-3
    assert sum(plain["losses"][-10:]) < sum(plain["losses"][:10]), (
        "the task teaches nothing, so it proves nothing"
    )
