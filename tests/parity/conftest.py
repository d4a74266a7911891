"""Fused kernels are tested without a GPU, in Triton's interpreter, which a process chooses before it imports a kernel.

Tests marked `interpreted` run only under TRITON_INTERPRET=1; test_interpreter.py runs all of them in one child process.
In all of tests/parity uninitialised memory is filled with NaN, so a value that no kernel writes is seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from adaptkit_kernels import launch


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = [item for item in items if launch.INTERPRETED or not item.get_closest_marker("interpreted")]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
