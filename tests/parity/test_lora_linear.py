"""A linear layer with its low-rank update against its definition and against peft's layer; 4-bit bases
included."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import lora, reference
from layer_rule import assert_parity, randn, results

SHAPES = {
    "wide": (99, 24, 40, 3),
    "tall": (99, 40, 24, 3),
    "square": (40, 16, 16, 8),
    "few rows": (5, 24, 40, 3),
    "one row": (1, 9, 7, 1),
    "no row": (0, 8, 8, 2),
}
"""tokens, inputs, outputs, rank: both passes augment the weight for "wide", only backward does for "tall",
none for few rows."""


def problem(shape, *, bias=True, dtype=torch.float32):
    """Leaves x, a, b and bias, and the frozen weight."""
    tokens, inputs, outputs, rank = shape
    leaves = [
        randn(tokens, inputs, dtype=dtype),
        randn(rank, inputs, seed=1, dtype=dtype),
        randn(outputs, rank, seed=2, dtype=dtype),
    ]
    return leaves + ([randn(outputs, seed=3, dtype=dtype)] if bias else []), randn(
        outputs, inputs, seed=4, dtype=dtype
    )


def layer_of(operator, weight, **options):
    def layer(x, a, b, bias=None):
        return operator(x, weight.to(x.dtype), a, b, 0.7, bias, **options)

    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_lora_linear(shape, bias, dtype):
    leaves, weight = problem(shape, bias=bias, dtype=dtype)
    assert_parity(layer_of(reference.lora_linear, weight), layer_of(lora.lora_linear, weight), leaves)


@pytest.mark.parametrize("shape", [SHAPES["wide"], SHAPES["tall"]], ids=["wide", "tall"])
def test_the_update_may_see_dropped_inputs(shape):
    leaves, weight = problem(shape)
    mask = (torch.rand(shape[:2], generator=torch.Generator().manual_seed(0)) > 0.3) / 0.7

    def layer(operator):
        return lambda x, a, b, bias: operator(
            x, weight.to(x.dtype), a, b, 0.7, bias, dropped=x * mask.to(x.dtype)
        )

    assert_parity(layer(reference.lora_linear), layer(lora.lora_linear), leaves)


def test_more_dimensions_and_strided_inputs():
    (x, a, b, bias), weight = problem((12, 24, 40, 3))
    for view in (lambda x: x.view(3, 4, 24), lambda x: x.view(3, 4, 24).transpose(0, 1), lambda x: x[::2]):
        assert_parity(
            lambda x, a, b, bias, view=view: reference.lora_linear(
                view(x), weight.to(x.dtype), a, b, 0.7, bias
            ),
            lambda x, a, b, bias, view=view: lora.lora_linear(view(x), weight.to(x.dtype), a, b, 0.7, bias),
            [x, a, b, bias],
        )


def test_inputs_that_need_no_gradient_cost_no_product_with_the_weight():
    (x, a, b, _), weight = problem(SHAPES["wide"])
    a, b = a.requires_grad_(), b.requires_grad_()
    weight_with_nan = torch.full_like(weight, float("nan"))
    y = lora.lora_linear(x, weight_with_nan, a, b, 0.7)
    y.backward(torch.ones_like(y))
    expected = torch.autograd.grad(reference.lora_linear(x, weight, a, b, 0.7).sum(), (a, b))
    for ours, plain in zip((a.grad, b.grad), expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)  # sums in another order


def test_under_autocast_it_computes_in_bfloat16_with_float32_gradients():
    leaves, weight = problem(SHAPES["wide"])
    truth = results(layer_of(reference.lora_linear, weight), leaves, wide=True)
    with torch.autocast("cpu", torch.bfloat16):
        eager, ours = (
            results(layer_of(operator, weight), leaves)
            for operator in (reference.lora_linear, lora.lora_linear)
        )
    for exact, plain, value in zip(truth, eager, ours, strict=True):
        assert value.dtype == (torch.bfloat16 if value is ours[0] else torch.float32)
        assert (value - exact).abs().max() <= 2 * (plain - exact).abs().max() + 1e-6


def test_gradients_of_two_forwards_do_not_mix():
    """Nothing is shared between calls: the first backward runs after the second forward saw other values."""
    leaves, weight = problem(SHAPES["wide"])
    first, second = ([leaf * factor for leaf in leaves] for factor in (1, 2))
    first, second = ([leaf.requires_grad_() for leaf in copies] for copies in (first, second))
    layer = layer_of(lora.lora_linear, weight)
    y, other = layer(*first), layer(*second)
    (y.sum() + 0 * other.sum()).backward()
    expected = torch.autograd.grad(layer_of(reference.lora_linear, weight)(*first).sum(), first)
    for leaf, plain in zip(first, expected, strict=True):
        torch.testing.assert_close(leaf.grad, plain, rtol=1e-4, atol=1e-4)  # sums in another order


def test_augmented_rows_start_at_multiples_of_16():
    for width, rank in ((100, 4), (96, 8), (97, 16)):
        extra = lora.extra_columns(width, rank)
        assert (width + extra) % 16 == 0 and rank <= extra < rank + 16


def four_bit(outputs, inputs):
    """A weight in random codes and scales, and its values."""
    generator = torch.Generator().manual_seed(outputs)
    packed = torch.randint(0, 256, (outputs * inputs // 2, 1), generator=generator, dtype=torch.uint8)
    layout = lora.FourBit(
        torch.rand(outputs * inputs // 64, generator=generator), torch.linspace(-1, 1, 16), 64
    )
    return packed, layout, reference.dequantize_4bit(packed, *layout, (outputs, inputs))


@pytest.mark.interpreted
def test_unpacking_kernel():
    packed, layout, values = four_bit(3, 2112)
    for dtype in (torch.float32, torch.bfloat16):
        out = torch.full((3, 2128), float("nan"), dtype=dtype)
        lora.unpack(packed, layout, out[:, :2112])
        assert torch.equal(out[:, :2112], values.to(dtype)) and out[:, 2112:].isnan().all()


@pytest.mark.parametrize("operator_on", ["torch", pytest.param("triton", marks=pytest.mark.interpreted)])
@pytest.mark.parametrize("shape", [(5, 64, 192, 4), (5, 192, 64, 4)], ids=["wide", "tall"])
def test_four_bit_base(shape, operator_on):
    leaves, _ = problem(shape)
    packed, layout, values = four_bit(shape[2], shape[1])

    def ours(x, a, b, bias):
        return lora.lora_linear(x, packed, a, b, 0.7, bias, four_bit=layout)

    assert_parity(layer_of(reference.lora_linear, values), ours, leaves)


def test_the_layout_is_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(randn(8, 128), blocksize=64, quant_type="nf4")
    values = reference.dequantize_4bit(packed, state.absmax, state.code, 64, (8, 128))
    torch.testing.assert_close(values, functional.dequantize_4bit(packed, state), rtol=0, atol=0)


def test_opcheck():
    for shape in (SHAPES["wide"], SHAPES["tall"], SHAPES["few rows"]):
        (x, a, b, bias), weight = problem(shape)
        x, a, b, bias = (t.requires_grad_() for t in (x, a, b, bias))
        torch.library.opcheck(lora._operator, (x, None, weight, a, b, bias, None, None, 0, 0.7))
        torch.library.opcheck(lora._operator, (x, x.detach() * 2, weight, a, b, None, None, None, 0, 0.7))


def test_whole_graph_compiles():
    leaves, weight = problem(SHAPES["wide"])
    layer = layer_of(lora.lora_linear, weight)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(results(compiled, leaves), results(layer, leaves), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)  # sums in another order
