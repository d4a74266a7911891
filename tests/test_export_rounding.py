"""Rounded weights: what compressed_tensors reads is what was written, bit for bit."""

from __future__ import annotations

import pytest
import torch
from tiny_exports import weights

from adaptkit.export.quantise.rounding import pack, round_activations, round_to_nearest, unpack


@pytest.mark.parametrize(("grid", "group"), [("int8", None), ("int4", 128), ("int4", 32), ("fp8", None)])
def test_rounding_is_what_compressed_tensors_dequantises(grid: str, group: int | None) -> None:
    lifecycle = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    arguments = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs
    rounded = round_to_nearest(weights(), grid, group)
    scheme = {
        "num_bits": 4 if grid == "int4" else 8,
        "type": "float" if grid == "fp8" else "int",
        "symmetric": True,
    }
    args = arguments(**scheme, strategy="group" if group else "channel", group_size=group)
    theirs = lifecycle.dequantize(rounded.values, rounded.scale.float(), None, args, dtype=torch.float32)
    assert torch.equal(theirs, rounded.dequantised())
    assert rounded.group_size == (group or 256)


@pytest.mark.parametrize(("grid", "most"), [("int8", 0.012), ("int4", 0.14), ("fp8", 0.04)])
def test_rounding_keeps_weights_to_its_precision_whatever_a_rows_size(grid: str, most: float) -> None:
    weight = weights()
    error = (round_to_nearest(weight, grid, 128 if grid == "int4" else None).dequantised() - weight).norm(
        dim=1
    ) / weight.norm(dim=1)
    assert float(error.max()) < most


def test_searched_scales_beat_the_plain_one() -> None:
    weight = weights(3)
    groups = weight.unflatten(1, (-1, 128))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    plain = ((groups / scale).round().clamp(-8, 7) * scale).flatten(1)
    ours = round_to_nearest(weight, "int4", 128).dequantised()
    assert (ours - weight).square().sum() < 0.97 * (plain - weight).square().sum()


def test_nibbles_pack_as_compressed_tensors_packs_them() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    values = torch.randint(-8, 8, (16, 64), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    assert torch.equal(pack(values), helpers.pack_to_int32(values, 4))
    assert torch.equal(unpack(pack(values)), values)


@pytest.mark.parametrize("grid", ["int8", "fp8"])
def test_an_all_zero_row_stays_zero(grid: str) -> None:
    weight = weights()
    weight[3] = 0
    assert round_to_nearest(weight, grid).dequantised()[3].abs().max() == 0
    assert torch.isfinite(round_activations(torch.zeros(2, 8), grid)).all()


def test_activations_are_rounded_row_by_row() -> None:
    x = torch.tensor([[1.0, 0.5, -0.25], [100.0, 50.0, -25.0]])
    error = (round_activations(x, "int8") - x).abs() / x.abs().amax(-1, keepdim=True)
    assert 0 < float(error.max()) <= 0.5 / 127 + 1e-6
