"""What the doctor reports: one finding per thing looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `problem` breaks adaptkit or is unsafe, `warn` costs speed or room."""

    name: str
    status: Status
    detail: str
    fix: str = ""
    """A command that mends it; empty where nothing is to be mended."""
