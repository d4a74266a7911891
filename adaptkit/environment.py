"""Versions and machine, as manifests record them."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("adaptkit", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy", "safetensors")


def environment() -> dict[str, Any]:
    """Versions and machine: no user name, host name or path."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "code": _code_version(),
    }


@functools.cache
def _code_version() -> dict[str, Any]:
    """Git commit of a source checkout and whether it was modified; empty for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {}

    def git(*args: str) -> str:
        command = ["git", "-C", str(root), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        return {
            "commit": git("rev-parse", "HEAD"),
            "modified": bool(git("status", "--porcelain", "--", "adaptkit", "kernels")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
