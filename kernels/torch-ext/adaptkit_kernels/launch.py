"""How kernels are declared, launched and listed: the ground that every Triton module of this package stands
on.

A kernel module imports `tl` and `jit` from here, so that it imports on a machine without Triton, and ends
with `shipped()`: every configuration that its Python functions may launch, which the ahead-of-time compile
gate walks. Triton decides at decoration whether a kernel is interpreted, so TRITON_INTERPRET=1 must be set
before the first import.

Three habits keep one source right on GPUs and in the interpreter: every load is upcast to float32 (the
    interpreter
computes bfloat16 on raw integers), scalar conditions are written as vectors, and no libdevice function is
called.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except (
    ImportError
):  # no wheel for this platform, or left out on purpose: the plain-torch implementations remain
    triton = tl = None

INTERPRETED: bool = triton is not None and bool(triton.knobs.runtime.interpret)
"""Whether this process runs kernels in Triton's interpreter (on CPU tensors, slowly, for tests)."""

TARGETS = (80, 90)
"""CUDA compute capabilities that every shipped configuration must compile for."""

_NAMES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int64: "i64",
    torch.int32: "i32",
}


@dataclass(frozen=True)
class Launch:
    """A block size with the warps and pipeline stages it is compiled for."""

    block: int
    num_warps: int
    num_stages: int = 1


@dataclass(frozen=True)
class Shipped:
    """One compiled form of a kernel that a Python function of this package may launch.

    Attributes:
        kernel: what `jit` returned.
        label: the configuration in a few words, for the table: "bf16 block 8192".
        signature: parameter name -> Triton type ("*bf16", "i64", "fp32") of every argument that is not a
            constexpr.
        constexprs: parameter name -> value of every constexpr.
        aligned: integer parameters that are multiples of 16 in every launch; pointers always are.
        kind: "row" kernels must move 16 bytes per load, "matmul" kernels must use the tensor cores, "other"
            neither.
    """

    kernel: Any
    label: str
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any] = field(default_factory=dict)
    aligned: tuple[str, ...] = ()
    num_warps: int = 4
    num_stages: int = 1
    kind: str = "row"

    @property
    def name(self) -> str:
        return self.kernel.__name__


def jit(function: Any) -> Any:
    """`triton.jit`, or the function itself where there is no Triton: it is never called there."""
    return function if triton is None else triton.jit(function)


_ROUNDS = INTERPRETED if tl is None else tl.constexpr(INTERPRETED)


@jit
def rounded(x, TYPE: tl.constexpr):
    """float32 x as TYPE, to nearest even; the interpreter's own cast to bfloat16 cuts the bits off, which
    adds up in sums."""
    if _ROUNDS and tl.bfloat16 == TYPE:
        bits = x.to(tl.int32, bitcast=True)
        x = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
    return x.to(TYPE)


def triton_importable() -> bool:
    return triton is not None


def fused_available(device: torch.device | str) -> bool:
    """Whether Triton kernels run on tensors of `device`: a GPU with Triton installed, or a CPU under the
    interpreter."""
    kind = torch.device(device).type
    return triton is not None and (INTERPRETED if kind == "cpu" else kind == "cuda")


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Makes the tensor's GPU current, which is where Triton launches; does nothing for CPU tensors."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def power_of_two(n: int) -> int:
    """The smallest power of two >= n, at least 1."""
    return 1 << max(0, n - 1).bit_length()


def row_launch(columns: int, largest: int) -> Launch:
    """The block for a kernel that walks a row of `columns` elements: the whole row if it fits into `largest`.

    Warps grow with the block so that a thread holds 8 to 32 elements: enough for 16-byte loads, few enough
        for registers.
    """
    block = min(max(power_of_two(columns), 128), largest)
    return Launch(block, num_warps=min(max(block // 512, 1), 16))


def type_name(dtype: torch.dtype) -> str:
    """Triton's name of a dtype in signatures: torch.bfloat16 -> "bf16"."""
    return _NAMES[dtype]


def shipped_kernels() -> list[Shipped]:
    """Every configuration of every kernel of this package, found through the modules' own `shipped()`."""
    package = importlib.import_module(__package__)
    modules = [
        importlib.import_module(f"{__package__}.{info.name}")
        for info in pkgutil.iter_modules(package.__path__)
    ]
    return [entry for module in modules if hasattr(module, "shipped") for entry in module.shipped()]
