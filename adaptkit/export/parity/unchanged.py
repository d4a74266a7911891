"""Hold what a trained model answers now against what its run recorded when it was scored.

An export is compared with the trained model as it is now. Where that has changed since it was scored, both
agree, and both are wrong: the items that run and export have in common tell.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adaptkit.errors import ModelError
from adaptkit.export.parity.answers import Answers, task_in
from adaptkit.export.parity.evaluation_data import EvaluationData
from adaptkit.export.parity.gate import Check
from adaptkit.export.source import Source
from adaptkit.models.bits_per_byte import bits_per_byte
from adaptkit.run import Run, read_jsonl
from adaptkit.seal import check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Rows = list[dict[str, Any]]
MAX_SCORE_CHANGE, MAX_FLIPS = 0.05, 2
"""Of a task's first metric, or so many items: other hardware rounds otherwise, which flips few items."""
MAX_BPB_CHANGE = 0.01
"""Of bits per byte, as a share."""


def recorded_checks(
    source: Source, tokenizer: PreTrainedTokenizerFast, data: EvaluationData, now: Answers
) -> list[Check]:
    """Compare the first metric and bits per byte now with those recorded, on the items that both have.

    Raises: DataError where the recorded items are damaged.
    """
    if source.run is None or source.record is None or source.record.suite not in source.record.suites:
        return []
    path = Run(source.run).items(source.record.suite)
    if not path.is_file():
        return []
    check(path)
    recorded = {str(row.get("id")): row for row in read_jsonl(path)}
    checks: list[Check] = []
    task = task_in(source, tokenizer, data)
    before, after = _same(recorded, now.item_rows, ("label", "reference"))
    if task is not None and before:
        name = next(iter(now.scores))
        limit = max(MAX_SCORE_CHANGE, MAX_FLIPS / len(before))
        checks.append(_change(name, before, after, lambda rows: float(task.score(rows)[name]), limit))
    before, after = _same(recorded, now.passage_rows, ("num_bytes",))
    if before and bits_per_byte(before) > 0:
        limit = MAX_BPB_CHANGE * bits_per_byte(before)
        checks.append(_change("bits per byte", before, after, bits_per_byte, limit))
    return checks


def _same(recorded: dict[str, dict[str, Any]], rows: Rows, keys: Sequence[str]) -> tuple[Rows, Rows]:
    """The rows of the same items: by id, and with the same values of some keys, one of which they have."""
    pairs = []
    for row in rows:
        before = recorded.get(str(row["id"]), {})
        shared = [key for key in keys if key in row]
        if shared and all(before.get(key) == row[key] for key in shared):
            pairs.append((before, row))
    return [before for before, _ in pairs], [row for _, row in pairs]


def _change(name: str, before: Rows, after: Rows, score: Callable[[Rows], float], limit: float) -> Check:
    was, now = score(before), score(after)
    return Check(f"{name} as the run recorded it, and now", was, now, abs(now - was), limit)


def refuse_changed(checks: Sequence[Check], source: Source) -> None:
    """Refuse a trained model that no longer answers as it did when it was scored.

    Raises: ModelError that names its weights, and what to run again.
    """
    broken = next((check for check in checks if not check.ok), None)
    if broken is None or source.run is None:
        return
    what = f"this model has changed since it was scored: {broken}"
    command = shlex.join(Run(source.run).manifest().get("argv", []))
    again = f"delete {source.run} and make it again: {command}".removesuffix(": ")
    fix = f"{again}; or use the versions of torch and transformers that its manifest.json names"
    weights = next(iter(sorted(source.folder.glob("*.safetensors"))), source.folder)
    raise ModelError(what, where=str(weights), fix=fix)
