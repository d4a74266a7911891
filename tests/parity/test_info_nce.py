"""InfoNCE through the head's cross-entropy against the definition: values, gradients, temperature, memory."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import chunked, fused, head, reference
from parity_rule import assert_parity, results
from torch import Tensor

BOTH = [chunked, pytest.param(fused, marks=pytest.mark.interpreted)]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "CPU_ROWS", 10)
    monkeypatch.setattr(head, "CPU_LOGITS", 1)


def embeddings(queries: int, candidates: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(queries)
    both = [torch.randn(count, 16, generator=generator) for count in (queries, candidates)]
    return [torch.nn.functional.normalize(x, dim=1).to(dtype) for x in both]


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize(("queries", "candidates"), [(1, 1), (13, 13), (21, 37)])
def test_values_and_gradients(implementation, dtype, symmetric, queries, candidates):
    labels = torch.randperm(candidates, generator=torch.Generator().manual_seed(0))[:queries]
    for labels_B in (None, labels):
        ours, theirs = (
            lambda q, c, module=module, labels_B=labels_B: module.info_nce(
                q, c, labels_B, temperature=0.05, symmetric=symmetric
            )
            for module in (implementation, reference)
        )
        assert_parity(theirs, ours, embeddings(queries, candidates, dtype))


def test_a_learnt_temperature_gets_its_gradient():
    leaves = [*embeddings(13, 13), torch.tensor(0.07)]
    ours, theirs = (
        lambda q, c, temperature, module=module: module.info_nce(
            q, c, temperature=temperature, symmetric=True
        )
        for module in (chunked, reference)
    )
    assert_parity(theirs, ours, leaves)


def test_autocast_does_not_round_the_scores():
    """A score is up to 1 / temperature = 100, where bf16 is 0.5 apart."""
    leaves = embeddings(30, 30)
    exact = results(lambda q, c: reference.info_nce(q, c, temperature=0.01), leaves, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        for module in (chunked, reference):
            ours = results(lambda q, c, module=module: module.info_nce(q, c, temperature=0.01), leaves)
            torch.testing.assert_close(ours[0].double(), exact[0], rtol=1e-5, atol=1e-5)


def test_the_scores_never_exist_as_a_whole():
    queries, candidates = (x.requires_grad_() for x in embeddings(600, 700))
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        chunked.info_nce(queries, candidates, symmetric=True).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 600 * 600 * 4 / 4
