"""Results as text for a terminal. Everything shown here is in the `--json` output too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptkit.compare.driver import StudyOutcome
    from adaptkit.run import Run

_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """Left-aligned columns, two spaces apart."""
    rows = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def duration(seconds: float) -> str:
    """`95` -> `1.6 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def plan(found: dict[str, Any]) -> str:
    """The stages of `compare --dry-run` with what each is predicted to cost."""
    rows = [("stage", "what", "FLOPs", "time", "memory", "")]
    for stage in found["stages"]:
        memory = f"{stage['memory_bytes'] / 2**30:.2g} GiB" if stage["flops"] else ""
        flops = f"{stage['flops']:.2g}" if stage["flops"] else ""
        rows.append(
            (
                stage["id"],
                stage["describe"],
                flops,
                duration(stage["seconds"]),
                memory,
                "done" if stage["cached"] else "",
            )
        )
    left = sum(not stage["cached"] for stage in found["stages"])
    jobs = found["machine"]["jobs"]
    time = f"about {duration(found['seconds_left'])} with {jobs} at once"
    return f"{table(rows)}\n\n{len(found['stages'])} stages, {left} to run, {found['flops']:.2g} FLOPs in all, {time}"


def verdict(outcome: StudyOutcome) -> tuple[Any, ...]:
    """Every arm on every task with intervals, where the report lies, and the verdict in one line."""
    from adaptkit.report.tables import terminal_table
    from adaptkit.study.results import collect
    from adaptkit.study.verdict import judge

    results = collect(outcome.study_path)
    table = terminal_table(results, judge(results).winner)
    return table, f"report: {outcome.report_path}", outcome.verdict_line


def origins(found: dict[str, dict[str, Any]]) -> str:
    """One line per value of a config: key, value, where it came from."""
    return table((key, _value(entry["value"]), entry["origin"]) for key, entry in found.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value) or "''"


def result(found: dict[str, Any]) -> str:
    """What a training left behind, one line per field."""
    return table(
        (name.replace("_", " "), _flat(value)) for name, value in found.items() if value not in (None, {}, "")
    )


def result_json(run: Run, result: Any) -> dict[str, Any]:
    """A recipe's result as JSON, with the run directory first."""
    fields = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(result).items()
    }
    return {"run": str(run.path), **fields}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
