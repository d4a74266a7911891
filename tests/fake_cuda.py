"""Models and batches on a GPU that is not there: fake CUDA tensors have shapes and dtypes, and no values.

They go through the same Python as real ones, so which route is taken and which arguments it is given can be
tested anywhere; what comes out cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Inside, tensors may be made with device="cuda", and autocast believes that there is a GPU."""
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *args, **kwargs: True)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def to_fake_cuda(model: nn.Module) -> nn.Module:
    """`model` with fake CUDA weights and buffers, tied ones still tied; to be called inside `fake_cuda`."""
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                new = nn.Parameter(
                    torch.empty(weight.shape, device="cuda", dtype=weight.dtype), weight.requires_grad
                )
                module._parameters[name] = made.setdefault(id(weight), new)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, device="cuda", dtype=buffer.dtype)
    return model


def batch_on_fake_cuda(batch: dict[str, object]) -> dict[str, object]:
    return {
        name: torch.empty(value.shape, device="cuda", dtype=value.dtype)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in batch.items()
    }
