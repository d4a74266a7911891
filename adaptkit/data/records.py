"""What is read from files before anyone knows what its columns mean: records, and why one cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
Place = str
"""Where a record stands in its file: its line, or `line:column`; of parquet the number of the row."""


@dataclass(frozen=True)
class Fault:
    """Why one record cannot be used, and what to do about it."""

    what: str
    fix: str
