"""Results as text for a terminal. Everything shown here is in the `--json` output too."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from adaptkit.compare.driver import StudyOutcome
    from adaptkit.data.shift import DomainShift
    from adaptkit.data.text_shift import Distance, Estimate
    from adaptkit.report.changes import SideBySide
    from adaptkit.run import Run

NOT_PAIRED = "No arm was judged on the same items in both: nothing is paired.\n"
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))


def table(rows: Iterable[tuple[object, ...]]) -> str:
    """Align columns to the left, two spaces apart."""
    lines = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def duration(seconds: float) -> str:
    """Write seconds in a fitting unit: `95` -> `1.6 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def plan(planned: dict[str, Any]) -> str:
    """List what `compare --dry-run` says: arms and their cost, those left out, what can be settled."""
    arms = [("arm", "scored on", "FLOPs", "time"), *map(_arm_row, planned["arms"])]
    parts = [table(arms)]
    if planned["left_out"]:
        parts.append(table([("left out", "", "why"), *map(_left_out_row, planned["left_out"])]))
    parts.append(
        table([("smallest difference that can be settled", "", ""), *map(_settled, planned["settles"])])
    )
    if planned["forecast"]:
        parts.append("\n".join(planned["forecast"]))
    if planned["sizes"]:
        parts.append("\n".join(planned["sizes"]))
    if lost := {**planned["cut_texts"], **planned["lossy_tokenizers"]}:
        parts.append("\n".join(f"{name}: {sentence}" for name, sentence in lost.items()))
    if planned["outgoing"]:
        parts.append(_outgoing(planned["outgoing"]))
    for task, instruction in planned["instructions"].items():
        origin = "made, as the task gives none: set `instruction`" if instruction["made"] else "yours"
        parts.append(f"{task}: the instruction of prompts ({origin})\n{indent(instruction['text'], '  ')}")
    stages, jobs = planned["stages"], planned["machine"]["jobs"]
    num_left = sum(not stage["cached"] for stage in stages)
    memory = max((stage["memory_bytes"] for stage in stages), default=0.0)
    each = _memory_each(memory, planned["machine"]["process_bytes"])
    time = f"about {duration(planned['seconds_left'])} with {jobs} at once, {each}"
    count = f"{len(stages)} stages, {num_left} to run"
    parts.append(f"{count}, {planned['flops']:.2g} FLOPs in all, {time}")
    if planned["seconds_by_gpus"]:
        parts.append(_time_by_gpus(planned["seconds_by_gpus"]))
    parts += planned["advice"]
    return "\n\n".join(parts)


def _time_by_gpus(seconds: dict[str, float]) -> str:
    """`on 1, 2, 4, 8 GPUs of this kind, a stage each: about 3 h, 1.6 h, 50 min, 40 min`."""
    numbers, times = ", ".join(seconds), ", ".join(map(duration, seconds.values()))
    return f"on {numbers} GPUs of this kind, a stage each: about {times}"


def _memory_each(whole: float, process: float) -> str:
    """The memory of one stage, and how much of it any process with torch takes; of a GPU's without that."""
    if not process:
        return f"{whole / 2**30:.2g} GiB of GPU memory each, as torch counts it"
    libraries = f"{process / 2**30:.2g} of it Python, torch and other libraries"
    return f"{whole / 2**30:.2g} GiB each ({libraries})"


def _outgoing(sent: dict[str, Any]) -> str:
    """What leaves the house: requests, tokens and dollars at most."""
    rows: list[tuple[object, ...]] = [
        ("sent to the API", "task", "requests", "tokens", "answered", "at most")
    ]
    for row in sent["rows"]:
        counts = [f"{row[name]:,.0f}" for name in ("requests", "tokens_in", "tokens_out")]
        rows.append((row["arm"], row["task"], *counts, f"${row['usd']:.2f}"))
    where = f"{sent['model']} at {sent['url']}: development and test texts, and training rows as examples"
    return f"{table(rows)}\n{where}; ${sent['usd']:.2f} of ${sent['ceiling']:g} at most"


def _arm_row(row: dict[str, Any]) -> tuple[str, ...]:
    flops = f"{row['flops']:.2g}" if row["flops"] else ""
    return row["arm"], row["task"], flops, duration(row["seconds"])


def _left_out_row(row: dict[str, Any]) -> tuple[str, ...]:
    return row["arm"], row["task"] or "", row["reason"]


def _settled(row: dict[str, Any]) -> tuple[str, ...]:
    size = f"{row['smallest_difference']:.3f} {row['unit'].replace('_', ' ')}"
    by = f"{row['test_items']} test items, {row['seeds']} seeds, {row['arms']} arms"
    return row["task"], size, by


def student(planned: dict[str, Any]) -> str:
    """Show the plan of `distill --plan`: the student beside its teacher, its speed, and the training."""
    sides = [side for side in ("student", "teacher") if side in planned]
    rows: list[tuple[object, ...]] = [("", *sides)]
    for name, value in planned["student"].items():
        cells = [planned[side][name] for side in sides]
        if isinstance(value, int):
            cells = [f"{cell:,}" for cell in cells]
        rows.append((name.replace("_", " "), *cells))
    rows.append(("served in bf16", *(_bytes(planned["serving_bytes"][side]) for side in sides)))
    text = table(rows)
    if speed := planned["expected_speed_up"]:
        text += "\n\nexpected speed-up: " + ", ".join(f"{ratio:.2f}x {what}" for what, ratio in speed.items())
    if planned["stored_bytes_per_token"]:
        stored = planned["stored_bytes_per_token"]
        text += f"\nthe teacher's answers on disk: {stored} bytes per token of text"
    memory = planned["training_bytes"]
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if size)
    if planned["trained"] < planned["student"]["params"]:
        parts += f"; {planned['trained']:,} parameters learn"
    needs = f"about {_bytes(sum(memory.values()))} of memory ({parts})"
    return f"{text}\ntraining: {needs}, {planned['flops']:.2g} FLOPs"


def _bytes(size: float) -> str:
    if size >= 2**30:
        return f"{size / 2**30:.2f} GiB"
    return f"{size / 2**20:.1f} MiB"


def verdict(outcome: StudyOutcome) -> tuple[Any, ...]:
    """Show every arm on every task with intervals, where the report lies, and the verdict in one line."""
    from adaptkit.report.tables import terminal_table
    from adaptkit.study.results import collect

    table = terminal_table(collect(outcome.study_path), outcome.recommended)
    return table, f"report: {outcome.report_path}", f"next: {next_steps(outcome)}", outcome.verdict_line


def next_steps(outcome: StudyOutcome) -> str:
    """The commands that use what a study found."""
    study = outcome.study_path
    return f'adaptkit try {study} "a text"; adaptkit serve {study}; adaptkit demo {study}'


def domain_shift(shift: DomainShift) -> str:
    """What `data shift` measured: both sides, how far apart they are, and what to expect."""
    sides = {"domain": shift.domain}
    if shift.general is not None:
        sides["general"] = shift.general
    rows: list[tuple[object, ...]] = [("", *sides)]
    rows.append(("tokens per byte", *(_estimate(side.tokens_per_byte) for side in sides.values())))
    if shift.domain.bits_per_byte is not None:
        rows.append(("bits per byte", *(_estimate(side.bits_per_byte) for side in sides.values())))
    for name, side in sides.items():
        if len(side.by_source) > 1:
            for source, value in side.by_source.items():
                cells = [_estimate(value) if other == name else "" for other in sides]
                rows.append((f"  {source}", *cells))
    parts = [table(rows)]
    apart: list[tuple[object, ...]] = [("distance", "between the sides", "by chance", "")]
    apart += _distance("frequent words not shared", shift.vocabulary)
    apart += _distance("pairs of words, Jensen-Shannon bits", shift.word_pairs)
    apart += _distance("mean states of the base", shift.states)
    if shift.gap is not None:
        apart.append(("bits per byte, domain less general", _estimate(shift.gap), f"{shift.noise:.3f}", ""))
    if len(apart) > 1:
        parts.append(table(apart))
    sampled = [f"{name}: {side.sampled}" for name, side in sides.items()]
    parts.append("\n".join([*sampled, f"tokens of {shift.tokenizer}", f"took {duration(shift.seconds)}"]))
    expected = shift.expectation
    says = "cannot say" if expected.says == "cannot say" else f"{expected.says} to gain"
    parts.append(f"pretraining on this domain: {says}: {expected.reason}")
    return "\n\n".join(parts)


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _distance(name: str, distance: Distance | None) -> list[tuple[object, ...]]:
    if distance is None:
        return []
    words = "beyond chance" if distance.beyond else "within chance"
    return [(name, _estimate(distance.estimate), f"{distance.chance:.3f}", words)]


def changes(side_by_side: SideBySide) -> str:
    """What changed from one study to another, part by part, and both answers."""
    rows: list[tuple[str, ...]] = [("", "what", side_by_side.before, side_by_side.after)]
    rows += [(change.part, change.what, change.before, change.after) for change in side_by_side.changed]
    same = len(side_by_side.changes) - len(side_by_side.changed)
    first, second = side_by_side.lines
    gains = "".join(f"- {gain.sentence}\n" for gain in side_by_side.gains)
    paired = f"Second minus first, paired by item:\n{gains}" if gains else NOT_PAIRED
    return (
        f"{table(rows)}\n\n{same} facts are the same in both.\n\n{paired}\nbefore: {first}\nafter:  {second}"
    )


def origins(values: dict[str, dict[str, Any]]) -> str:
    """Show each value of a config in one line: key, value, where it came from."""
    return table((key, _yaml(entry["value"]), entry["origin"]) for key, entry in values.items())


def _yaml(value: Any) -> str:
    """Write a value as it stands in a config."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) or "''"


def result(fields: dict[str, Any]) -> str:
    """Show what a training left behind, one line per field."""
    shown = {name: value for name, value in fields.items() if value not in (None, {}, "")}
    last = shown.pop("next", "")
    shown |= shown.pop("baseline", {})
    text = table((name.replace("_", " "), _flat(value)) for name, value in shown.items())
    return f"{text}\nnext: {last}" if last else text


def result_json(run: Run, result: DataclassInstance) -> dict[str, Any]:
    """Write a recipe's result as JSON, with the run directory first."""
    fields = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(result).items()
    }
    return {"run": str(run.path), **fields}


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_flat(item)}" for name, item in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
