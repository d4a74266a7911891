"""All operators in one graph, compiled by Inductor: the graph does not break, and values and gradients
stay."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import fused
from adaptkit_kernels.gated import swiglu
from adaptkit_kernels.lora import lora_linear
from adaptkit_kernels.norms import add_layer_norm, add_rms_norm, rms_norm
from adaptkit_kernels.rope import rope
from adaptkit_kernels.teachers import HiddenTeacher
from layer_rule import randn, results
from torch import Tensor

pytestmark = pytest.mark.interpreted
TOKENS, WIDTH, VOCAB, RANK = 6, 32, 40, 4


def step(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: Tensor, head: Tensor, angles: Tensor
) -> Tensor:
    """A decoder block in small, and every loss on what comes out of it."""
    labels = torch.arange(TOKENS)
    made = lora_linear(rms_norm(x, scale, 1e-5), weight.detach(), a, b, 0.5)
    heads = made.view(1, TOKENS, 2, WIDTH // 2).transpose(1, 2)
    turned = rope(heads, heads, angles.cos(), angles.sin())[0].transpose(1, 2).reshape(TOKENS, WIDTH)
    normed, total = add_rms_norm(turned, x, scale, 1e-5)
    hidden, _ = add_layer_norm(swiglu(normed, made), total, scale, None, 1e-5)
    teacher = HiddenTeacher(total.detach(), head.detach(), None)
    distilled, *_ = fused.linear_distillation(hidden, head, teacher, labels, ce_weight=0.5)
    matched = fused.info_nce(hidden, total, temperature=1.0, symmetric=True)
    return fused.linear_cross_entropy(hidden, head, labels) + distilled + matched


def test_a_step_of_all_operators_compiles_as_one_graph():
    leaves = [
        randn(TOKENS, WIDTH),
        randn(WIDTH, WIDTH, seed=1),
        randn(RANK, WIDTH, seed=2),
        randn(WIDTH, RANK, seed=3),
        randn(WIDTH, seed=4),
        randn(VOCAB, WIDTH, seed=5),
    ]
    half = randn(1, TOKENS, WIDTH // 4, seed=6)
    angles = torch.cat([half, half], dim=-1)
    compiled = torch.compile(step, fullgraph=True)
    ours, plain = (results(lambda *given, run=run: run(*given, angles), leaves) for run in (compiled, step))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
