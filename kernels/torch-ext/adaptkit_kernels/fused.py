"""The losses of a head with Triton's row kernels: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

from . import contrastive, cross_entropy, distillation
from .cross_entropy_rows import cross_entropy_rows
from .distillation_rows import distillation_rows

linear_cross_entropy, token_nll = cross_entropy.operators("fused", cross_entropy_rows, reads_ignored=True)
linear_distillation = distillation.operator("fused", distillation_rows, reads_ignored=True)
info_nce = contrastive.operator(linear_cross_entropy)
