"""Describe the machine as serving sees it: GPUs, CPU units, cores, memory. Loads no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import psutil

from adaptkit.doctor import machine, processor

AVX512, FP8_UNITS = "avx512f", ("avx512_bf16", "amx_bf16")


@dataclass(frozen=True)
class Hardware:
    """A machine as serving sees it.

    Attributes:
        gpus: names of NVIDIA GPUs, with their memory; empty on CPU machines.
        flags: CPU feature flags as the kernel lists them.
        cores: usable by this process.
        free_bytes: memory that is available now.
        bf16_fault: why the CPU cannot compute bfloat16 though it lists units for it; empty where it can.
    """

    gpus: tuple[str, ...] = ()
    flags: frozenset[str] = field(default_factory=frozenset)
    cores: float = 1.0
    free_bytes: int = 0
    bf16_fault: str = ""

    @property
    def gpu_bytes(self) -> int:
        """Memory of the first GPU, as its driver states it beside the name; 0 where it does not."""
        stated = re.search(r"(\d+) MiB", self.gpus[0]) if self.gpus else None
        return int(stated[1]) * 2**20 if stated else 0

    @property
    def bf16(self) -> bool:
        """True where bf16 is computed by units made for it."""
        listed = any(flag in self.flags for flag in processor.BF16_FLAGS)
        return bool(self.gpus) or (listed and not self.bf16_fault)

    @property
    def int4(self) -> bool:
        """True where vLLM has a kernel for 4-bit weights: on other CPUs the server starts and dies at its
        first request."""
        return bool(self.gpus) or AVX512 in self.flags

    @property
    def fp8(self) -> bool:
        """True where fp8 is more than a slow detour through torch."""
        return bool(self.gpus) or any(flag in self.flags for flag in FP8_UNITS)


def look() -> Hardware:
    """Describe this machine as it is now; bfloat16 is tried where the CPU lists it, once for each machine."""
    gpus, flags = tuple(machine.gpus().names), frozenset(machine.cpu_flags())
    bf16_fault = ""
    if not gpus:
        bf16_fault = processor.bfloat16_fault(flags)
    free_bytes = min(psutil.virtual_memory().available, machine.container_memory() or 2**63)
    return Hardware(
        gpus=gpus, flags=flags, cores=machine.usable_cores(), free_bytes=free_bytes, bf16_fault=bf16_fault
    )
