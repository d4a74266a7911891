"""The scripts that measure on a GPU run here too, at toy sizes: nobody finds them broken when a GPU is
lent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_operators_benchmark_checks_and_times_every_operator(tmp_path):
    pytest.importorskip("triton")
    command = [
        sys.executable,
        str(ROOT / "kernels/benchmarks/ops_on_gpu.py"),
        "--smoke",
        "--out",
        str(tmp_path / "ops.json"),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "ops.json").read_text())
    names = {row["case"].split()[0] for row in found["rows"]}
    layers = {"add_rms_norm", "add_layer_norm", "swiglu", "rope", "lora_linear"}
    assert names == layers | {"linear_cross_entropy", "linear_distillation", "info_nce"}
    assert {row["case"] for row in found["rows"]} == {row["case"] for row in found["checks"]}
    for row in found["checks"]:
        assert row["errors"]["float32"]["ours"] < 1e-3
    for row in found["rows"]:
        assert row["speed_ratio"]["eager"] > 0 and not row["failed"]
    assert found["versions"]["torch"] and found["date"] and "--smoke" in found["command"]


def test_without_a_gpu_nothing_is_measured():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "kernels/benchmarks/ops_on_gpu.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and "no GPU here" in done.stderr
