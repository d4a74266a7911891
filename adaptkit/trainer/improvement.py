"""Say by its evaluations whether a training was still improving when it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WORTH = 0.01
"""Of the loss: a smaller share between two evaluations counts as no change."""


def improvement(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence from the rows of metrics.jsonl."""
    losses = [(int(row["step"]), float(row["eval_loss"])) for row in rows if row.get("eval_loss") is not None]
    if len(losses) < 2:
        return "evaluated once or never: trainer.eval_every would tell whether it is still improving"
    (_, before), (last, end) = losses[-2:]
    best_step, best = min(losses, key=lambda pair: pair[1])
    if best_step == last and before - end > WORTH * before:
        fall = 100 * (before - end) / before
        return f"still improving when it ended: the last evaluation took {fall:.0f} % off the dev loss"
    if end - best > WORTH * best:
        return f"best at step {best_step} of {last}: it got worse after that, more steps will not help"
    return f"no longer improving at step {last}: the last evaluations differ by less than 1 %"
