"""The compile gate: it walks every kernel, and it refuses what it should; ADAPTKIT_COMPILE_ALL=1 compiles everything here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).resolve().parents[1] / "kernels" / "benchmarks" / "compile_table.py"


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("kernel", ["cross_entropy_row"])
def test_a_kernel_compiles_for_both_generations_within_limits(kernel: str) -> None:
    answer = gate("--only", kernel, "--sample")
    assert answer.returncode == 0, answer.stdout + answer.stderr[-2000:]
    assert answer.stdout.count(f"| {kernel} |") == 4 and "| 80 |" in answer.stdout and "| 90 |" in answer.stdout


def test_nothing_compiled_is_a_failure() -> None:
    assert gate("--only", "no such kernel").returncode == 1


@pytest.mark.slow
@pytest.mark.skipif("ADAPTKIT_COMPILE_ALL" not in os.environ, reason="minutes: set ADAPTKIT_COMPILE_ALL=1")
def test_every_shipped_configuration_compiles_within_limits() -> None:
    answer = gate()
    assert answer.returncode == 0, answer.stdout + answer.stderr[-2000:]
