"""What the doctor reports: one finding per thing looked at, and all of them as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "problem"]
_MARK = {"ok": "ok     ", "warn": "warn   ", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `problem` breaks adaptkit or is unsafe, `warn` costs speed or room."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    """A command that mends it; empty where nothing is to be mended."""


def render(findings: list[Finding]) -> str:
    """Write the findings as text, one line each, a fix on the line below."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{_MARK[finding.status]}  {finding.name:<{width}}  {finding.detail}")
        if finding.fix:
            lines.append(f"{'':7}  {'':<{width}}  fix: {finding.fix}")
    statuses = [finding.status for finding in findings]
    return "\n".join([*lines, "", _count(statuses.count("problem"), statuses.count("warn"))])


def _count(problems: int, warnings: int) -> str:
    found = f"{problems or 'no'} problem{'' if problems == 1 else 's'} found"
    if warnings:
        found += f", {warnings} warning{'' if warnings == 1 else 's'}"
    return found
