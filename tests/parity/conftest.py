"""Fused kernels are tested without a GPU, in Triton's interpreter, which a process chooses before it imports
a kernel.

Tests marked `interpreted` run only under TRITON_INTERPRET=1; test_interpreter.py runs all of them in one
child process. `pytest tests/parity -m gpu` runs the same tests on a GPU, with what they draw at random moved
there. In all of tests/parity uninitialised memory is filled with NaN, so a value that no kernel writes is
seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from adaptkit_kernels import launch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic products on a GPU


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    on_gpu = not launch.INTERPRETED and "gpu" in config.option.markexpr
    kernels = [item for item in items if item.get_closest_marker("interpreted")]
    if on_gpu:
        for item in kernels:
            item.add_marker("gpu")
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
    elif not launch.INTERPRETED:
        config.hook.pytest_deselected(items=kernels)
        items[:] = [item for item in items if item not in kernels]


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernel tests on a GPU make their tensors there; random ones are drawn on the CPU, so that they are the
    same."""
    if launch.INTERPRETED or not request.node.get_closest_marker("interpreted"):
        yield
        return

    def moved(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *args, **options: draw(*args, **{"device": "cpu", **options}).to(
            options.get("device", "cuda")
        )

    for name in ("randn", "rand", "randint", "randperm"):
        monkeypatch.setattr(torch, name, moved(getattr(torch, name)))
    for name, value in list(vars(request.module).items()):
        if name.isupper():
            monkeypatch.setattr(request.module, name, there(value))
    with torch.device("cuda"):
        yield


def there(value: Any) -> Any:
    """A test module's constant with its tensors on the GPU."""
    if isinstance(value, dict):
        return {key: there(part) for key, part in value.items()}
    return value.cuda() if isinstance(value, torch.Tensor) else value


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    assert torch.utils.deterministic.fill_uninitialized_memory and torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)
