"""Rotary embedding, with and without QK-norm, partial and packed, against its definition."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import reference, rope
from layer_rule import assert_parity, randn, results

pytestmark = pytest.mark.interpreted

SHAPES = {
    "equal heads": (2, 5, 3, 3, 16, 16),
    "shared keys": (1, 7, 4, 1, 16, 16),
    "odd sizes": (2, 3, 5, 2, 12, 12),
    "quarter turned": (2, 3, 2, 2, 24, 6),
    "one token": (1, 1, 1, 1, 4, 2),
    "no token": (2, 0, 2, 1, 8, 8),
    "several tiles": (1, 40, 16, 4, 16, 16),
}
"""batch, tokens, heads of queries, heads of keys, head size, turned part of it."""


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    monkeypatch.setattr(rope, "_INTERPRETED_PROGRAMS", 2)


def problem(shape, dtype=torch.float32, norm=False):
    """Leaves (transposed as in attention inside `turn`) and the angles of each token."""
    batch, tokens, q_heads, k_heads, size, turned = shape
    leaves = [randn(batch, tokens, heads, size, dtype=dtype) for heads in (q_heads, k_heads)]
    if norm:
        leaves += [randn(size, seed=s, dtype=dtype) for s in (3, 4)]
    angles = randn(1, tokens, turned // 2, seed=5)
    angles = torch.cat((angles, angles), -1)
    return leaves, angles.cos(), angles.sin()


def turn(operator, cos, sin, **options):
    def layer(q, k, q_weight=None, k_weight=None):
        both = (cos.to(q.dtype), sin.to(q.dtype))
        return operator(
            q.transpose(1, 2), k.transpose(1, 2), *both, q_weight_D=q_weight, k_weight_D=k_weight, **options
        )

    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_rope(shape, norm, dtype):
    leaves, cos, sin = problem(shape, dtype, norm)
    cos, sin = cos.to(dtype), sin.to(dtype)  # the angles are rounded once, for all that are compared
    assert_parity(turn(reference.rope, cos, sin), turn(rope.rope, cos, sin), leaves)


@pytest.mark.parametrize("norm", [False, True])
def test_packed_positions_pick_rows_of_a_table(norm):
    leaves, cos, sin = problem((2, 5, 3, 1, 8, 8), norm=norm)
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    options = {"positions_BT": positions}
    assert_parity(
        turn(reference.rope, cos[0], sin[0], **options), turn(rope.rope, cos[0], sin[0], **options), leaves
    )
    packed, plain = (
        turn(rope.rope, c, s, **o)(*leaves)
        for c, s, o in ((cos[0], sin[0], options), (cos[0][positions], sin[0][positions], {}))
    )
    assert all(torch.equal(a, b) for a, b in zip(packed, plain, strict=True))


def test_angles_per_example():
    leaves, cos, sin = problem((2, 5, 3, 1, 8, 8))
    cos, sin = (torch.cat((angle, angle.flip(1))) for angle in (cos, sin))
    assert_parity(turn(reference.rope, cos, sin), turn(rope.rope, cos, sin), leaves)


def test_any_layout_of_queries():
    """A contiguous [B, H, T, D] tensor and one whose heads are not contiguous themselves."""
    leaves, cos, sin = problem((2, 5, 3, 3, 8, 8))
    for view in (
        lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        assert_parity(
            lambda q, k: turn(reference.rope, cos, sin)(q, k),
            lambda q, k, view=view: turn(rope.rope, cos, sin)(view(q), view(k)),
            leaves,
        )


def test_lengths_are_kept():
    leaves, cos, sin = problem((2, 5, 3, 1, 8, 8))
    for out, leaf in zip(turn(rope.rope, cos, sin)(*leaves), leaves, strict=True):
        torch.testing.assert_close(out.transpose(1, 2).norm(dim=-1), leaf.norm(dim=-1))


@pytest.mark.parametrize("norm", [False, True])
def test_opcheck(norm):
    leaves, cos, sin = problem((1, 5, 3, 1, 8, 8), norm=norm)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    q, k = (leaf.transpose(1, 2) for leaf in leaves[:2])
    torch.library.opcheck(rope._operator, (q, k, cos[0], sin[0], None, *(leaves[2:] or (None, None)), 1e-6))


def test_whole_graph_compiles():
    leaves, cos, sin = problem((1, 5, 3, 1, 8, 8), norm=True)
    layer = turn(rope.rope, cos, sin)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(results(compiled, leaves), results(layer, leaves), strict=True):
        torch.testing.assert_close(ours, plain)
