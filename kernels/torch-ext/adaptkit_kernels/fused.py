"""The losses of a head with Triton's row kernels: on a GPU, or in Triton's interpreter."""

from __future__ import annotations

from . import cross_entropy
from .cross_entropy_rows import cross_entropy_rows

linear_cross_entropy, token_nll = cross_entropy.operators("fused", cross_entropy_rows, reads_ignored=True)
