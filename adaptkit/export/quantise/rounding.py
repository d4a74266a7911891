"""Round weights to 8 or 4 bits, symmetrically, with a scale per row or per group of inputs, and back.

Shape letters: O outputs, I inputs, G groups of a row (1: a scale per row), S inputs of a group.

Scales are rounded to bfloat16 *before* the weights are divided by them, so that every reader, whatever
precision it keeps scales in, computes with the very scale that was used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.export.formats import Grid

LARGEST = {"int8": 127.0, "int4": 7.0, "fp8": 448.0}  # float8_e4m3fn
SMALLEST = {"int8": -127.0, "int4": -8.0, "fp8": -448.0}
# Part of the largest weight that a 4-bit group reaches: clipping it can lower the group's squared error.
REACHES = (7 / 7.5, 1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76)
TINY = 1e-8
NIBBLES = 8  # 4-bit values in an int32


@dataclass(frozen=True)
class Rounded:
    """A rounded matrix: `values` [O, I] on the grid (int8, or float8_e4m3fn) and bfloat16 `scale` [O, G]."""

    values: Tensor
    scale: Tensor

    @property
    def group_size(self) -> int:
        return self.values.shape[1] // self.scale.shape[1]

    def dequantised(self) -> Tensor:
        """Compute the weights that a reader computes with, float32 [O, I]."""
        values_OGS = self.values.float().unflatten(1, (-1, self.group_size))
        return (values_OGS * self.scale.float()[..., None]).flatten(1)


def round_to_nearest(weight_OI: Tensor, grid: Grid, group_size: int | None = None) -> Rounded:
    """Round each weight to the nearest point of its group's grid.

    Args:
        group_size: inputs that share a scale; divides I. None: all of a row.
    """
    scale_OG = choose_scales(weight_OI, grid, group_size)
    steps_OGS = weight_OI.float().unflatten(1, (scale_OG.shape[1], -1)) / scale_OG.float()[..., None]
    return Rounded(to_grid(steps_OGS, grid).flatten(1), scale_OG)


def choose_scales(weight_OI: Tensor, grid: Grid, group_size: int | None) -> Tensor:
    """Choose bfloat16 scales [O, G]: the largest weight on the grid's end; for int4 what errs least."""
    size = group_size or weight_OI.shape[1]
    weight_OGS = weight_OI.float().unflatten(1, (-1, size))
    most_OG = weight_OGS.abs().amax(-1)
    reaches = REACHES if grid == "int4" else (1.0,)
    candidates = [(most_OG * (reach / LARGEST[grid])).clamp(min=TINY).bfloat16() for reach in reaches]
    if len(candidates) == 1:
        return candidates[0]
    errors = torch.stack([_squared_error(weight_OGS, scale_OG, grid) for scale_OG in candidates])
    return torch.stack(candidates).gather(0, errors.argmin(0, keepdim=True))[0]


def to_grid(steps: Tensor, grid: Grid) -> Tensor:
    """Round weights in units of their scale, of any shape, to grid values: int8, or float8_e4m3fn."""
    if grid == "fp8":
        return steps.clamp(SMALLEST[grid], LARGEST[grid]).to(torch.float8_e4m3fn)
    return steps.round().clamp(SMALLEST[grid], LARGEST[grid]).to(torch.int8)


def round_activations(x: Tensor, grid: Grid) -> Tensor:
    """Round activations as a server does while it runs: each row of the last dimension on its own grid."""
    scale = x.abs().amax(-1, keepdim=True).float().clamp(min=TINY) / LARGEST[grid]
    return (to_grid(x.float() / scale, grid).float() * scale).to(x.dtype)


def pack(values_OI: Tensor) -> Tensor:
    """Pack 4-bit values -8..7 [O, I] into int32 [O, I / 8], first in the lowest bits, each stored plus 8."""
    shifts = torch.arange(NIBBLES, device=values_OI.device) * 4
    nibbles = (values_OI.long() + 8).unflatten(1, (-1, NIBBLES)) << shifts
    packed = nibbles.sum(-1)
    return torch.where(packed >= 2**31, packed - 2**32, packed).int()


def unpack(packed: Tensor) -> Tensor:
    """Unpack int32 [O, I / 8] to int8 [O, I]: the inverse of `pack`."""
    shifts = torch.arange(NIBBLES, device=packed.device) * 4
    return (((packed.long()[..., None] >> shifts) & 15) - 8).flatten(1).to(torch.int8)


def _squared_error(weight_OGS: Tensor, scale_OG: Tensor, grid: Grid) -> Tensor:
    scale = scale_OG.float()[..., None]
    return (to_grid(weight_OGS / scale, grid).float() * scale - weight_OGS).square().sum(-1)
