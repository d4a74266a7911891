"""Norms, with and without the residual added, against their definition: both results and every gradient."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import norm_kernels, norms, reference
from layer_rule import assert_parity, randn, results

pytestmark = pytest.mark.interpreted

EPSILON = 1e-5
WIDTHS = [1, 100, 256, 2050]
"""One element, no power of two, several rows per program, one row per program."""


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """Two programs in backward, so that each walks several tiles and the last one is cut."""
    monkeypatch.setattr(norms, "_INTERPRETED_PROGRAMS", 2)


def rows_for(width: int) -> int:
    """One row more than three tiles."""
    return 3 * norm_kernels.tile_of(width).rows + 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", WIDTHS)
def test_add_rms_norm(width, dtype):
    x, residual = (randn(rows_for(width), width, seed=s, dtype=dtype) for s in (0, 1))
    leaves = [x, residual, randn(width, seed=2, dtype=dtype)]
    assert_parity(
        lambda x, r, w: reference.add_rms_norm(x, r, w, EPSILON),
        lambda x, r, w: norms.add_rms_norm(x, r, w, EPSILON),
        leaves,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", WIDTHS)
def test_add_layer_norm(width, dtype):
    x, residual = (randn(rows_for(width), width, seed=s, dtype=dtype) for s in (0, 1))
    leaves = [x, residual, randn(width, seed=2, dtype=dtype), randn(width, seed=3, dtype=dtype)]
    assert_parity(
        lambda x, r, w, b: reference.add_layer_norm(x, r, w, b, EPSILON),
        lambda x, r, w, b: norms.add_layer_norm(x, r, w, b, EPSILON),
        leaves,
    )


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_without_residual_on_few_rows(rows):
    leaves = [randn(rows, 100), randn(100, seed=1)]
    plain = [
        lambda x, w: reference.add_rms_norm(x, None, w, EPSILON)[0],
        lambda x, w: norms.rms_norm(x, w, EPSILON),
    ]
    assert_parity(*plain, leaves)
    centred = [
        lambda x, w: reference.add_layer_norm(x, None, w, None, EPSILON)[0],
        lambda x, w: norms.layer_norm(x, w, None, EPSILON),
    ]
    assert_parity(*centred, leaves)


def test_layer_norm_without_a_scale():
    plain = [
        lambda x: reference.add_layer_norm(x, None, None, None, EPSILON)[0],
        lambda x: norms.layer_norm(x, None, None, EPSILON),
    ]
    assert_parity(*plain, [randn(5, 100)])


def test_gemma_adds_one_to_the_weight():
    leaves = [randn(5, 100), randn(100, seed=1)]
    assert_parity(
        lambda x, w: reference.add_rms_norm(x, None, w, EPSILON, offset=1.0)[0],
        lambda x, w: norms.rms_norm(x, w, EPSILON, offset=1.0),
        leaves,
    )


@pytest.mark.parametrize(
    "view",
    [lambda x: x[:, ::2], lambda x: x[1::2], lambda x: x.T, lambda x: x.unflatten(0, (3, 4)).transpose(0, 1)],
)
def test_non_contiguous_input(view):
    size = view(randn(12, 12)).shape[-1]
    leaves = [randn(12, 12), randn(12, 12, seed=1), randn(size, seed=2)]
    assert_parity(
        lambda x, r, w: reference.add_rms_norm(view(x), view(r), w, EPSILON),
        lambda x, r, w: norms.add_rms_norm(view(x), view(r), w, EPSILON),
        leaves,
    )


def test_non_contiguous_gradients():
    """The gradient of a transposed result arrives with its rows across memory."""
    leaves = [randn(6, 20), randn(20, seed=1)]
    assert_parity(
        lambda x, w: reference.add_rms_norm(x, None, w, EPSILON)[0].T.contiguous(),
        lambda x, w: norms.rms_norm(x, w, EPSILON).T.contiguous(),
        leaves,
    )


def test_a_float32_stream_takes_a_bfloat16_branch():
    """Under autocast the residual stays float32 and the branch is bf16: the sum and the result are
    float32."""
    leaves = [randn(5, 100, dtype=torch.bfloat16), randn(5, 100, seed=1), randn(100, seed=2)]
    assert_parity(
        lambda x, r, w: reference.add_rms_norm(x, r, w, EPSILON),
        lambda x, r, w: norms.add_rms_norm(x, r, w, EPSILON),
        leaves,
    )


@pytest.mark.parametrize("used", [0, 1])
def test_one_of_the_two_results_may_go_unused(used):
    leaves = [randn(5, 100), randn(5, 100, seed=1), randn(100, seed=2)]
    assert_parity(
        lambda x, r, w: reference.add_rms_norm(x, r, w, EPSILON)[used],
        lambda x, r, w: norms.add_rms_norm(x, r, w, EPSILON)[used],
        leaves,
    )


def test_large_values_do_not_cancel():
    """The variance is taken around the mean, not as a difference of squares."""
    leaves = [randn(4, 100) + 1000, randn(100, seed=1), randn(100, seed=2)]
    assert_parity(
        lambda x, w, b: reference.add_layer_norm(x, None, w, b, EPSILON)[0],
        lambda x, w, b: norms.layer_norm(x, w, b, EPSILON),
        leaves,
    )


def test_two_runs_give_the_same_bits():
    leaves = [randn(rows_for(256), 256), randn(256, seed=1), randn(256, seed=2)]
    first, second = (results(lambda x, w, b: norms.layer_norm(x, w, b, EPSILON), leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_rows_that_are_too_wide_are_refused():
    with pytest.raises(ValueError, match="8193 elements"):
        norms.rms_norm(torch.zeros(1, 8193), torch.zeros(8193), EPSILON)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("adds", [False, True])
def test_opcheck(centered, adds):
    x, residual = randn(5, 20).requires_grad_(), randn(5, 20, seed=1).requires_grad_()
    weight, bias = randn(20, seed=2).requires_grad_(), randn(20, seed=3).requires_grad_()
    arguments = (
        x,
        residual if adds else None,
        weight,
        bias if centered else None,
        EPSILON,
        0.0,
        centered,
        torch.float32,
    )
    torch.library.opcheck(norms._operator, arguments)


def test_whole_graph_compiles():
    def block(x, residual, weight):
        y, total = norms.add_rms_norm(x, residual, weight, EPSILON)
        return torch.nn.functional.silu(y) + total

    leaves = [randn(5, 20), randn(5, 20, seed=1), randn(20, seed=2)]
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(results(compiled, leaves), results(block, leaves), strict=True):
        torch.testing.assert_close(ours, plain)
