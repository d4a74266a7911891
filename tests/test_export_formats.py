"""Formats: what each needs, and whether a machine has it."""

from __future__ import annotations

import pytest

from adaptkit.errors import ConfigError
from adaptkit.export.formats import find_format, listing, runs_here
from adaptkit.export.hardware import Hardware


def test_what_a_machine_can_serve_is_told_with_the_reason() -> None:
    old, new, gpu = Hardware(), Hardware(flags=frozenset({"avx512f"})), Hardware(gpus=("H200",))
    here = {
        name: [row.here for row in listing(machine)]
        for name, machine in {"old": old, "new": new, "gpu": gpu}.items()
    }
    assert here["old"] == [True, True, True, False, False]
    assert here["new"] == [True, True, True, True, False]
    assert all(here["gpu"])
    broken = Hardware(flags=frozenset({"avx512f", "amx_bf16"}), bf16_fault="attention dies")
    why = {row.format: row.why for row in listing(broken) if row.here}
    assert "attention dies" not in why["fp32"]
    assert why["bf16"].endswith("computed in float32: attention dies") and why["bf16"] == why["int8"]
    assert why["int4"].endswith("computed in float16: attention dies")
    runs, why = runs_here("gpu or avx512", old)
    assert not runs and "int8" in why and "first request" in why
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        find_format("int-8")
