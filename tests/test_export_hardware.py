"""The machine as serving sees it: which units it has, and how much memory is free."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from adaptkit.doctor import machine
from adaptkit.export import hardware
from adaptkit.export.hardware import Hardware


@pytest.mark.parametrize(
    ("here", "units"),
    [
        (Hardware(), ()),
        (Hardware(flags=frozenset({"avx512f"})), ("int4",)),
        (Hardware(flags=frozenset({"avx512f", "avx512_bf16"})), ("bf16", "int4", "fp8")),
        (Hardware(flags=frozenset({"amx_bf16"})), ("bf16", "fp8")),
        (Hardware(flags=frozenset({"amx_bf16"}), bf16_fault="it dies"), ("fp8",)),
        (Hardware(flags=frozenset({"bf16"})), ("bf16",)),
        (Hardware(gpus=("H200",)), ("bf16", "int4", "fp8")),
    ],
)
def test_what_a_machine_computes_with_units_made_for_it(here: Hardware, units: tuple[str, ...]) -> None:
    assert tuple(name for name in ("bf16", "int4", "fp8") if getattr(here, name)) == units


@pytest.mark.parametrize(("container", "free"), [(None, 8000), (500, 500), (9000, 8000)])
def test_free_memory_is_what_machine_and_container_leave(
    monkeypatch: pytest.MonkeyPatch, container: int | None, free: int
) -> None:
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: SimpleNamespace(available=8000))
    monkeypatch.setattr(machine, "container_memory", lambda: container)
    monkeypatch.setattr(machine, "gpus", lambda: machine.Gpus(["H200, 143771 MiB, 580.1"]))
    monkeypatch.setattr(machine, "cpu_flags", lambda: {"avx512f"})
    monkeypatch.setattr(machine, "usable_cores", lambda: 3.5)
    assert hardware.look() == Hardware(
        ("H200, 143771 MiB, 580.1",), frozenset({"avx512f"}), cores=3.5, free_bytes=free
    )
