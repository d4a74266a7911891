"""How long the tests are that repeat something many times: short in CI, long by `make soak`.

KILLS = soaked(20, 67)      # 20, or 67 where ADAPTKIT_SOAK=1 is set; ADAPTKIT_SOAK=0.5 takes half of that
count("kills", KILLS)       # said at the end of a long form
"""

from __future__ import annotations

import os
from collections import Counter

SHARE = float(os.environ.get("ADAPTKIT_SOAK") or 0)
_counts: Counter[str] = Counter()


def soaked(short: int, long: int) -> int:
    """How often to do something: at least `short`, as often as the long form asks for."""
    return max(short, round(SHARE * long))


def count(what: str, number: int = 1) -> None:
    """Count what was done."""
    _counts[what] += number


def counted() -> list[str]:
    """One line for each thing that was counted."""
    return [f"{number:,} {what}" for what, number in sorted(_counts.items())]
