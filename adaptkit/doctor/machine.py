"""Check the machine without torch: GPUs, memory, disk, and how many threads are free."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil

from adaptkit.doctor.findings import Finding
from adaptkit.doctor.packages import pip

GIB = 2**30
LOW_MEMORY, LOW_DISK, LOW_TMP = 4 * GIB, 5 * GIB, 1 * GIB
OTHER_TMP = "export TMPDIR=$PWD/tmp && mkdir -p $TMPDIR"


@dataclass(frozen=True)
class Gpus:
    """What `nvidia-smi` answered."""

    names: list[str]
    error: str = ""


def check(folder: Path, gpus: Gpus, torch_version: str) -> list[Finding]:
    """Check the machine itself; `folder` is where runs will be written."""
    return [_gpu(gpus, torch_version), _memory(), _disk(folder), _temporary(), *_threads()]


def gpus() -> Gpus:
    """List NVIDIA GPUs as the driver names them; an error where the driver is there but does not answer."""
    if shutil.which("nvidia-smi") is None:
        return Gpus([])
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except subprocess.CalledProcessError as error:
        return Gpus([], (error.stdout or error.stderr or f"exit {error.returncode}").strip().splitlines()[0])
    except (OSError, subprocess.SubprocessError) as error:
        return Gpus([], str(error))
    return Gpus([line.strip() for line in answer.stdout.splitlines() if line.strip()])


def _gpu(gpus: Gpus, torch_version: str) -> Finding:
    if gpus.error:
        fix = "nvidia-smi  (then mend the driver it names)"
        return Finding("gpu", "problem", f"nvidia-smi fails: {gpus.error}", fix)
    if not gpus.names:
        return Finding("gpu", "ok", "none: everything runs on the CPU")
    detail = "; ".join(gpus.names)
    if torch_version.endswith("+cpu"):
        fix = f"{pip()} install --force-reinstall 'torch>=2.13,<2.15'"
        return Finding("gpu", "problem", f"{detail}; but this torch ({torch_version}) cannot use it", fix)
    return Finding("gpu", "ok", detail)


def cpu_flags() -> set[str]:
    """Read the CPU's feature flags; empty where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    listed = [line.partition(":")[2] for line in lines if line.lower().startswith(("flags", "features"))]
    return {flag for flags in listed for flag in flags.split()}


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    free = min(memory.available, container_memory() or memory.available)
    detail = f"{free / GIB:.1f} GiB free of {memory.total / GIB:.1f}"
    if free < LOW_MEMORY:
        return Finding("memory", "warn", detail, "close other programs, or set trainer.microbatch_size lower")
    return Finding("memory", "ok", detail)


def container_memory() -> int | None:
    """Read how many bytes the container's limit leaves; None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        return max(0, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return None


def _disk(folder: Path) -> Finding:
    folder = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < LOW_DISK:
        return Finding("disk", "warn", detail, "give another folder with --root, or free some space")
    return Finding("disk", "ok", detail)


def _temporary() -> Finding:
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("temporary files", "problem", f"cannot be written: {error}", OTHER_TMP)
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < LOW_TMP:
        return Finding("temporary files", "warn", detail, OTHER_TMP)
    return Finding("temporary files", "ok", detail)


def _threads() -> list[Finding]:
    cores = usable_cores()
    busy = os.getloadavg()[0]
    threads = max(1, round(cores - busy))
    advice = f"{threads} recommended (more than are free can be ten times slower)"
    findings = [Finding("threads", "ok", f"{cores:g} cores, load {busy:.1f}: {advice}")]
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting and (not setting.isdecimal() or not 1 <= int(setting) <= cores):
        detail = f"OMP_NUM_THREADS={setting} on {cores:g} cores"
        fix = f"export OMP_NUM_THREADS={threads}  (or unset it)"
        findings.append(Finding("OMP_NUM_THREADS", "problem", detail, fix))
    return findings


def usable_cores() -> float:
    """Count the cores that the affinity mask and the container's quota leave to this process."""
    cores = float(os.cpu_count() or 1)
    if hasattr(os, "sched_getaffinity"):
        cores = float(len(os.sched_getaffinity(0)))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    return cores
