"""What this machine offers a training run: device, arithmetic, free cores, memory, peak speed."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch
from torch import Tensor

from adaptkit.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Dense bf16 FLOP/s without sparsity, from NVIDIA's data sheets (read 2026-11).
PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def default_device() -> torch.device:
    """This process's GPU (by LOCAL_RANK) if there is one, else the CPU.

    There, torch may no longer choose cuDNN for attention by itself: under a mask its gradients can be NaN
    (pytorch #196678, on Hopper, torch 2.11 on), and each new length of padded rows costs it a new plan.
    """
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(False)
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as CUDA_VISIBLE_DEVICES names it."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in named.split(",")] if named else list(map(str, range(number)))
    return names[:number]


def gpu_bytes() -> float:
    """Memory of one of them; 0 without any."""
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0.0


def placed(model: PreTrainedModel) -> PreTrainedModel:
    """`model` on this process's GPU, if there is one."""
    torch.nn.Module.to(model, default_device())  # transformers' own `to` refuses quantised weights
    return model


def send(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch on `device`; to a GPU through pinned memory, so that the host does not wait for the copy.
    Numbers stay numbers."""
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    if device.type == "cuda":
        sent = {name: value.pin_memory().to(device, non_blocking=True) for name, value in tensors.items()}
    else:
        sent = {name: value.to(device) for name, value in tensors.items()}
    return {**batch, **sent}


def cpu_has_bf16() -> bool:
    """Whether matrix products in bf16 run in hardware here (AVX512-BF16 or AMX); elsewhere they are
    emulated."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: "auto" is bf16 on GPUs that have it, fp32 elsewhere.

    Raises: ConfigError for bf16 where it would be emulated: 12 times slower than fp32, measured on an AVX2
        machine.
    """
    on_gpu = device.type == "cuda"
    if precision == "fp32" or (precision == "auto" and not on_gpu):
        return torch.float32
    in_hardware = torch.cuda.is_bf16_supported() if on_gpu else cpu_has_bf16()
    if in_hardware:
        return torch.bfloat16
    if precision == "auto":
        return torch.float32
    what = f"this {device.type} has no bf16 units; training in bf16 would be many times slower than in fp32"
    raise ConfigError(what, where="trainer.precision", fix="set trainer.precision=fp32 (or auto)")


def free_cores() -> int:
    """Cores that nobody uses right now, at least 1, shared among the ranks of this machine.

    Two threads on a machine with two busy cores can be ten times slower than one. An OMP_NUM_THREADS set by
    the user (or by torchrun) is the user's answer and is taken.
    """
    if (set_by_user := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        return max(1, int(set_by_user))
    busy = psutil.cpu_percent(interval=0.2) / 100 * (psutil.cpu_count() or 1)
    free = min(_allowed_cores(), (psutil.cpu_count() or 1) - busy)
    return max(1, round(free) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def allowed_cores() -> int:
    """Cores that this process may use, busy or not: for work of one thread each, which shares a core without
    harm. An OMP_NUM_THREADS is the user's answer here too."""
    if (set_by_user := os.environ.get("OMP_NUM_THREADS", "")).isdigit():
        return max(1, int(set_by_user))
    return max(1, int(_allowed_cores()))


def _allowed_cores() -> float:
    """Cores that the affinity mask and the container's quota leave to this process."""
    cores = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    if quota == "max":
        return cores
    return min(cores, int(quota) / int(period))


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of `peak_memory`, where the system allows it (Linux does)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory(device: torch.device) -> int:
    """Most bytes held since the last reset: of the GPU's allocator, or resident in this process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):  # unlike getrusage's, this peak starts anew with `reset_peak_memory`
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if peak:
            return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_flops(device: torch.device) -> float | None:
    """Data-sheet bf16 FLOP/s of the device, or None where it is not known (every CPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)


def describe(device: torch.device) -> str:
    """The device in words, for manifests and cost files."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
