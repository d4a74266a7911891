"""The formats a model is exported in: what each stores, what it needs to run, and whether this machine has that.

    adaptkit export --list

vLLM's int4 kernels need AVX512 or a GPU. Without them a server starts, calls itself healthy and dies at the first
request; so the need is written into the manifest and checked by whoever serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from adaptkit.errors import ConfigError, nearest

Grid = Literal["int8", "int4", "fp8"]
Need = Literal["any", "gpu or avx512", "gpu"]
GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True)
class Format:
    """One way to store a model.

    Attributes:
        grid: what weights are rounded to; None keeps floating point.
        dtype: of the weights that are not rounded.
        activations: whether the server rounds activations too, per token, as it runs.
        needs: the machine that serves it.
        max_loss_bpb: bits per byte that it may lose against its source.
        max_loss_score: task score (or cosine of embeddings) that it may lose.
    """

    name: str
    grid: Grid | None
    dtype: Literal["float32", "bfloat16"]
    activations: bool
    needs: Need
    describe: str
    max_loss_bpb: float
    max_loss_score: float

    @property
    def grouped(self) -> bool:
        return self.grid == "int4"


_ALL = (
    Format("fp32", None, "float32", False, "any", "float32 weights, as trained", 1e-5, 0.0),
    Format("bf16", None, "bfloat16", False, "any", "bfloat16 weights, half the size", 0.005, 0.01),
    Format("int8", "int8", "bfloat16", True, "any", "W8A8: int8 weights per output, activations per token", 0.02, 0.01),
    Format("int4", "int4", "bfloat16", False, "gpu or avx512", "W4A16: int4 weights in groups of 128 inputs", 0.02, 0.01),
    Format("fp8", "fp8", "bfloat16", True, "gpu", "W8A8: float8_e4m3 weights per output, activations per token", 0.02, 0.01),
)
FORMATS = {format.name: format for format in _ALL}


def find_format(name: str) -> Format:
    """Raises: ConfigError for a name that is no format."""
    if name not in FORMATS:
        what = f"no format '{name}'{nearest(name, FORMATS)}"
        raise ConfigError(what, where="--format", fix=f"choose from {', '.join(FORMATS)}")
    return FORMATS[name]


@dataclass(frozen=True)
class Machine:
    """What serving depends on: CPU flags (`avx2`, `avx512f`, ...) and the GPU's name and compute capability, if any."""

    cpu_flags: frozenset[str]
    gpu: str = ""
    capability: tuple[int, int] = (0, 0)

    def runs(self, needs: Need) -> tuple[bool, str]:
        """Whether a format with these needs can be served here, and why, in words."""
        if needs == "any":
            return True, "runs on every CPU and GPU"
        if self.gpu and needs == "gpu" and self.capability < (7, 5):
            return False, f"the GPU ({self.gpu}) is too old for 8-bit floats"
        if self.gpu:
            return True, f"there is a GPU ({self.gpu})"
        if needs == "gpu":
            return False, "made for GPUs, and there is none here; CPUs run it slowly if at all: use int8"
        if "avx512f" in self.cpu_flags:
            return True, "the CPU has AVX512"
        return False, "needs a GPU or a CPU with AVX512: without, vLLM starts and dies at the first request; use int8"

    def dtype(self) -> str:
        """What vLLM should compute in here: float32 where the CPU has no bfloat16 units (measured 2 to 10 times faster)."""
        return "bfloat16" if self.gpu or {"avx512_bf16", "amx_bf16"} & self.cpu_flags else "float32"

    def as_json(self) -> dict[str, Any]:
        flags = sorted(flag for flag in self.cpu_flags if flag.startswith(("avx", "amx")))
        return {"cpu_flags": flags, "gpu": self.gpu or None, "serving_dtype": self.dtype()}


@cache
def this_machine(*, gpu: bool = True) -> Machine:
    """The machine that this process runs on; without `gpu` it is not asked for one, which spares importing torch."""
    return Machine(_cpu_flags(), *(_gpu() if gpu else ("", (0, 0))))


def listing(machine: Machine) -> list[dict[str, Any]]:
    """One row per format: name, describe, needs, runs here, why."""
    rows = []
    for format in FORMATS.values():
        runs, why = machine.runs(format.needs)
        rows.append({"format": format.name, "stores": format.describe, "needs": format.needs, "here": runs, "why": why})
    return rows


def _cpu_flags() -> frozenset[str]:
    """Flags of the first CPU; empty where the system does not tell (then nothing beyond `any` is promised)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return next(
        (frozenset(line.partition(":")[2].split()) for line in lines if line.startswith(("flags", "Features"))), frozenset()
    )


def _gpu() -> tuple[str, tuple[int, int]]:
    import torch

    if not torch.cuda.is_available():
        return "", (0, 0)
    return torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
