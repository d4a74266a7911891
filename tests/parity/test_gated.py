"""Gated activations against their definition: the result and both gradients."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import gated, reference
from layer_rule import assert_parity, randn, results

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", gated.KINDS)
@pytest.mark.parametrize("shape", [(3, 7), (2, 3, 2050)])
def test_gated(shape, kind, dtype):
    """Up to 5 standard deviations from zero, where the tails of the activations are."""
    leaves = [randn(*shape, dtype=dtype) * 2, randn(*shape, seed=1, dtype=dtype)]
    assert_parity(lambda g, u: reference.gated(g, u, kind), lambda g, u: gated.gated(g, u, kind), leaves)


@pytest.mark.parametrize("kind", gated.KINDS)
def test_a_pair_in_one_tensor(kind):
    assert_parity(
        lambda x: reference.gated(*x.chunk(2, -1), kind),
        lambda x: gated.gated_pair(x, kind),
        [randn(2, 3, 14)],
    )


@pytest.mark.parametrize("kind", gated.KINDS)
def test_extreme_gates_stay_finite(kind):
    gate = torch.tensor([-1e4, -90.0, -20.0, -1e-30, 0.0, 1e-30, 20.0, 90.0, 1e4])
    leaves = [gate, torch.ones_like(gate)]
    assert_parity(lambda g, u: reference.gated(g, u, kind), lambda g, u: gated.gated(g, u, kind), leaves)
    assert all(value.isfinite().all() for value in results(lambda g, u: gated.gated(g, u, kind), leaves))


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows(rows):
    assert_parity(reference_swiglu, gated.swiglu, [randn(rows, 5), randn(rows, 5, seed=1)])
    assert_parity(
        lambda x: reference_swiglu(*x.chunk(2, -1)), lambda x: gated.gated_pair(x, "silu"), [randn(rows, 6)]
    )


def reference_swiglu(gate, up):
    return reference.gated(gate, up, "silu")


@pytest.mark.parametrize("view", [lambda x: x[:, ::2], lambda x: x[1::2], lambda x: x.T])
def test_non_contiguous_input(view):
    leaves = [randn(8, 8), randn(8, 8, seed=1)]
    assert_parity(
        lambda g, u: reference_swiglu(view(g), view(u)), lambda g, u: gated.swiglu(view(g), view(u)), leaves
    )


def test_geglu_names_its_approximation_as_torch_does():
    gate, up = randn(3, 7), randn(3, 7, seed=1)
    for approximate in ("none", "tanh"):
        expected = torch.nn.functional.gelu(gate, approximate=approximate) * up
        torch.testing.assert_close(gated.geglu(gate, up, approximate=approximate), expected)


@pytest.mark.parametrize("kind", gated.KINDS)
def test_opcheck(kind):
    gate, up = randn(3, 8).requires_grad_(), randn(3, 8, seed=1).requires_grad_()
    torch.library.opcheck(gated._separate_operator, (gate, up, kind))
    torch.library.opcheck(gated._joint_operator, (gate, kind))


def test_whole_graph_compiles():
    def block(gate, up):
        return gated.swiglu(gate, up) + gated.gated_pair(torch.cat((gate, up), -1), "gelu")

    leaves = [randn(3, 8), randn(3, 8, seed=1)]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(results(compiled, leaves), results(block, leaves), strict=True):
        torch.testing.assert_close(ours, plain)
