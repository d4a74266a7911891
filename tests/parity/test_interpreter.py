"""Every test of a Triton kernel, run in Triton's interpreter in a process of its own: the other tests see no
difference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from adaptkit_kernels import launch

HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(launch.INTERPRETED, reason="this process interprets the kernels already")
@pytest.mark.skipif(not launch.triton_importable(), reason="Triton is not installed")
def test_the_kernels_pass_their_tests_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", str(HERE), "-m", "interpreted", "-p", "no:cacheprovider"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=HERE.parents[1])
    assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
