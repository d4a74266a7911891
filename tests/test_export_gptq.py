"""GPTQ: on text like what it was calibrated on it loses less than rounding to the nearest."""

from __future__ import annotations

import torch
from tiny_exports import weights

from adaptkit.export.quantise.gptq import gptq
from adaptkit.export.quantise.rounding import round_to_nearest


def test_gptq_loses_less_than_nearest_on_text_like_what_it_was_calibrated_on() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(256, 256, generator=generator) * torch.logspace(0, -2, 256)[:, None]
    seen, unseen = (torch.randn(2000, 256, generator=generator) @ mixing for _ in range(2))
    weight = weights(5)
    nearest, calibrated = round_to_nearest(weight, "int4", 128), gptq(weight, seen.T @ seen, "int4", 128)
    assert calibrated.scale.shape == nearest.scale.shape and calibrated.values.dtype == torch.int8
    errors = [(unseen @ (weight - r.dequantised()).T).square().sum() for r in (nearest, calibrated)]
    assert errors[1] < 0.6 * errors[0]


def test_gptq_survives_inputs_that_never_vary() -> None:
    hessian = torch.zeros(64, 64)
    hessian[0, 0] = 4.0
    rounded = gptq(weights(1, 8, 64), hessian, "int4", 32)
    assert torch.isfinite(rounded.dequantised()).all()
