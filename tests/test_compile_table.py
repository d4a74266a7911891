"""The compile gate: it walks every kernel, and it refuses what it should. CI=true compiles every
configuration here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
SCRIPT = Path(__file__).resolve().parents[1] / "kernels" / "benchmarks" / "compile_table.py"


def gate(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("kernel", ["cross_entropy_row"])
def test_a_kernel_compiles_for_both_generations_within_limits(kernel: str) -> None:
    answer = gate("--only", kernel, "--sample")
    assert answer.returncode == 0, answer.stdout + answer.stderr[-2000:]
    assert (
        answer.stdout.count(f"| {kernel} |") == 4 and "| 80 |" in answer.stdout and "| 90 |" in answer.stdout
    )


def test_nothing_compiled_is_a_failure() -> None:
    assert gate("--only", "no such kernel").returncode == 1


@pytest.mark.slow
@pytest.mark.skipif("CI" not in os.environ, reason="minutes: set CI=true to compile every configuration")
def test_every_shipped_configuration_compiles_within_limits() -> None:
    answer = gate()
    assert answer.returncode == 0, answer.stdout + answer.stderr[-2000:]


@pytest.mark.parametrize("version", ["3.6.0", "3.9.0"])
def test_the_kept_tables_are_of_these_kernels(version: str) -> None:
    kept = json.loads((SCRIPT.parent / "results" / f"compile_table_{version}.json").read_text())
    spec = importlib.util.spec_from_file_location("compile_table", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script
    spec.loader.exec_module(script)
    assert kept["kernels"] == script.digest(), (
        f"run {kept['command']} --out kernels/benchmarks/results with Triton {version}"
    )
    found = {(row["kernel"], row["configuration"], row["target"]) for row in kept["rows"]}
    assert found == {
        (entry.name, entry.label, target) for entry in script.shipped_kernels() for target in script.TARGETS
    }
    assert kept["failed"] == 0 and not any(row["problems"] for row in kept["rows"])
