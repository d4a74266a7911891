"""Compute a little in bfloat16 as torch and vLLM 0.32 do on a CPU; `processor` runs this in a child process.

    python -m adaptkit.doctor.bfloat16_trial      # "try NAME" before each step, "wrong NAME" after a bad one

A step that the processor does not allow ends the process, which is what the parent wants to know.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable

import torch
from torch.nn.functional import scaled_dot_product_attention

from adaptkit.doctor.processor import open_or_hide_tiles

TOKENS, HEADS, WIDTH, BLOCK = 40, 2, 64, 64
LARGEST_ERROR = 0.1
PRODUCT, ATTENTION = "torch's product in bfloat16", "vLLM's CPU attention in bfloat16"


def main() -> None:
    """Try each step; attention first, and only where vLLM's kernels are installed."""
    open_or_hide_tiles()
    torch.manual_seed(0)
    if _has_vllm_kernels():
        _step(ATTENTION, _attention_error)  # torch's product asks for the tiles by itself
    _step(PRODUCT, _product_error)


def _step(name: str, error_of: Callable[[], float]) -> None:
    print(f"try {name}", flush=True)
    if not error_of() < LARGEST_ERROR:
        print(f"wrong {name}", flush=True)


def _product_error() -> float:
    a, b = torch.randn(2, 64, 64)
    exact = a.bfloat16().float() @ b.bfloat16().float()
    return float((a.bfloat16() @ b.bfloat16() - exact).abs().max() / exact.abs().max())


def _has_vllm_kernels() -> bool:
    """Load the kernels that vLLM loads on this CPU: one of three builds, under one name for torch."""
    with contextlib.suppress(ImportError):  # also raised after the build that holds no module of its name
        if torch.cpu._is_avx512_supported() and not torch.cpu._is_avx512_bf16_supported():
            import vllm._C_AVX512  # noqa: F401
        elif not torch.cpu._is_avx512_supported() and platform.machine() == "x86_64":
            import vllm._C_AVX2  # noqa: F401
        else:
            import vllm._C  # noqa: F401
    return hasattr(torch.ops._C, "cpu_attention_with_kv_cache")


def _attention_error() -> float:
    """Attend within one sequence, over one block of a key/value cache, and compare with torch in float32."""
    kernels, isa = torch.ops._C, _attention_kernel()
    query, key, value = torch.randn(3, TOKENS, HEADS, WIDTH).bfloat16()
    cache = torch.zeros(2, HEADS, 2 * BLOCK, WIDTH, dtype=torch.bfloat16)
    keys, values = cache.chunk(2, dim=2)
    kernels.cpu_attn_reshape_and_cache(key, value, keys, values, torch.arange(TOKENS), isa, 1.0, 1.0, "auto")
    starts = torch.tensor([0, TOKENS], dtype=torch.int32)
    lengths = torch.tensor([TOKENS], dtype=torch.int32)
    shape = (1, HEADS, HEADS, WIDTH, lengths, torch.bfloat16, starts)
    schedule = kernels.get_scheduler_metadata(*shape, True, -1, isa, False, None, "auto")
    blocks, output = torch.zeros(1, 1, dtype=torch.int32), torch.empty_like(query)
    places = (query, keys, values, output, starts, lengths, WIDTH**-0.5, True, None, -1, blocks)
    kernels.cpu_attention_with_kv_cache(*places, 0.0, schedule, None, None, 1.0, 1.0, "auto")
    exact_query, exact_key, exact_value = (states.float().transpose(0, 1) for states in (query, key, value))
    exact = scaled_dot_product_attention(exact_query, exact_key, exact_value, is_causal=True).transpose(0, 1)
    return float((output.float() - exact).abs().max())


def _attention_kernel() -> str:
    """Choose the kernel as vLLM does for bfloat16 and heads of this width."""
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if platform.machine() in ("aarch64", "arm64"):
        return "neon"
    return "vec"


if __name__ == "__main__":
    main()
