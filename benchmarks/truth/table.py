"""Print the truth table: what a study says at a budget B, beside what it says at 4B.

python benchmarks/truth/table.py                         of the kept studies
python benchmarks/truth/table.py DIR/kept --publish      of a folder that run.py filled, which is copied
                                                         here, and the table written into README.md
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from agreement import BUDGETS, WITHIN, Coverage, Row, Side, Turn, rows_of  # noqa: E402

from adaptkit.run import write_json, write_text  # noqa: E402

NOT_PRINTED = "not printed"
PREDICTED = "predictions.yaml"
BEGIN, END = "<!-- table.py writes from here -->", "<!-- to here -->"


def print_table(kept: Path, predictions: Path) -> list[Row]:
    """The table in Markdown, and the summary under it."""
    rows = rows_of(kept, predictions)
    print("\n".join(text_of(rows)))
    return rows


def text_of(rows: Sequence[Row]) -> list[str]:
    """Lines of Markdown: the table, what the goals ask, and what did not hold."""
    held = [f"- {line}" for line in summary(rows)]
    missed = [f"- {line}" for line in misses(rows)] or ["- nothing"]
    return [*_table(rows), "", "Counted:", "", *held, "", "Did not hold, or is open:", "", *missed]


def _table(rows: Sequence[Row]) -> list[str]:
    heads = [
        "study",
        "expected B, 4B",
        "says at B",
        "says at 4B",
        "",
        "D* predicted",
        "measured",
        "largest at B",
        "runs at 4B",
        "shift",
    ]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    return lines + [f"| {' | '.join(cells(row))} |" for row in rows]


def cells(row: Row) -> list[str]:
    """What the table shows of a study."""
    expected = ", ".join(dict.fromkeys(row.expected.values()))
    says = [_says(row.sides.get(budget)) for budget in BUDGETS]
    name = f"{row.study} (control)" if row.control else row.study
    measured = "" if row.turn.measured is None else _times(row.turn.measured, "4")
    counted = [_counted(row.largest), _counted(row.beyond)]
    shift = row.shift + {True: ": held", False: ": did not", None: ""}[row.shift_held]
    return [name, expected, *says, row.agreement, _printed(row.turn), measured, *counted, shift]


def _says(side: Side | None) -> str:
    return "" if side is None else f"{side.answer}: {side.recommended}"


def _printed(turn: Turn) -> str:
    if turn.status == "":
        return ""
    if turn.status == "not forecast":
        return NOT_PRINTED
    if turn.status == "beyond":
        return _times(turn.predicted, "reach")
    said = _times(turn.predicted, f"{turn.high:.3g}" if math.isfinite(turn.high) else "reach")
    return f"{said} [{_times(turn.low, '')}, {_times(turn.high, 'reach')}]"


def _times(value: float | None, most: str) -> str:
    """`1.7 B`."""
    if value is None:
        return "not measured"
    if value == 0:
        return "from the least"
    return f"beyond {most}" if math.isinf(value) else f"{value:.2g} B"


def _counted(covered: Sequence[Coverage]) -> str:
    return f"{sum(each.held for each in covered)} of {len(covered)}" if covered else ""


def summary(rows: Sequence[Row]) -> list[str]:
    """What the goals ask, counted."""
    pairs = [row for row in rows if len(row.sides) == len(BUDGETS)]
    agreed, opened, turned = (_count(pairs, word) for word in ("agree", "open", "turned"))
    controls = [row for row in pairs if row.control]
    held = sum(row.control_holds for row in controls)
    asked = [row.turn for row in pairs if row.turn.status]
    amounts = [turn for turn in asked if turn.status == "at"]
    others = [turn for turn in asked if turn.status in ("already", "beyond")]
    largest = [each for row in rows for each in row.largest]
    beyond = [each for row in rows for each in row.beyond]
    judged = [row for row in rows if row.shift_held is not None]
    ours = [row.expected[budget] == side.answer for row in rows for budget, side in row.sides.items()]
    return [
        f"verdicts agree in {agreed} of {len(pairs)} (goal: 9 of 10); "
        f"{opened} open at one budget, {turned} turned",
        f"controls without shift: tie or undecided in {held} of {len(controls)} (goal: all)",
        f"D* within a factor {WITHIN:g}: {_right(amounts)} printed as an amount (goal: 8 of 10); "
        f"{_right(others)} printed as beyond reach or reached already held; "
        f"{len(asked) - len(amounts) - len(others)} of {len(asked)} not printed",
        f"95 % intervals held: {_counted(largest)} largest runs at B, {_counted(beyond)} runs at 4B",
        f"the expectation of `data shift` held in {sum(bool(row.shift_held) for row in judged)} of "
        f"{len(judged)}; {len(rows) - len(judged)} cannot say or open",
        f"our own predictions: {sum(ours)} of {len(ours)} answers as expected",
    ]


def _count(rows: Sequence[Row], word: str) -> int:
    return sum(row.agreement == word for row in rows)


def _right(turns: Sequence[Turn]) -> str:
    return f"{sum(bool(turn.right) for turn in turns)} of {len(turns)}"


def misses(rows: Sequence[Row]) -> list[str]:
    """Every disagreement and every interval that was missed, with its numbers."""
    lines = []
    for row in rows:
        if row.agreement != "agree":
            lines.append(f"{row.study}: {row.agreement}" + "".join(map(_line, row.sides.items())))
        if row.control and not row.control_holds:
            lines.append(f"{row.study}: a control without shift gains")
        for name, covered in (("largest run at B", row.largest), ("run at 4B", row.beyond)):
            lines += [f"{row.study}: {name} of {_missed(each)}" for each in covered if not each.held]
        if row.turn.right is False:
            lines.append(f"{row.study}: D* {_printed(row.turn)}, measured {_times(row.turn.measured, '4')}")
        if row.shift_held is False:
            lines.append(f"{row.study}: pretraining was {row.shift} to gain, which did not hold")
    return lines


def _line(named: tuple[str, Side]) -> str:
    budget, side = named
    return f"; at {budget.upper()} {side.line.removeprefix('VERDICT: ').partition('; not tried')[0]}"


def _missed(each: Coverage) -> str:
    return f"{each.arm} {each.measured:.3f}, predicted {each.low:.3f} to {each.high:.3f}"


def publish(kept: Path, rows: Sequence[Row]) -> None:
    """Copy the kept studies to results/, beside all numbers, and write the table into README.md."""
    results = HERE / "results"
    for row in rows:
        for budget in row.sides:
            target = results / row.study / budget
            if target != kept / row.study / budget:
                shutil.copytree(kept / row.study / budget, target, dirs_exist_ok=True)
    table = [{**dataclasses.asdict(row), "agreement": row.agreement} for row in rows]
    write_json(results / "table.json", _json({"summary": summary(rows), "rows": table}))
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    body = "\n".join([BEGIN, "", *text_of(rows), "", END])
    write_text(readme, before + body + after)


def _json(value: Any) -> Any:
    """JSON has no infinity."""
    replaced: Callable[[Any], Any] = _json
    if isinstance(value, dict):
        return {name: replaced(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(part) for part in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kept", type=Path, nargs="?", default=HERE / "results")
    parser.add_argument(
        "--publish", action="store_true", help="write results/ and README.md beside this file"
    )
    arguments = parser.parse_args()
    rows = print_table(arguments.kept, HERE / PREDICTED)
    if arguments.publish:
        publish(arguments.kept, rows)


if __name__ == "__main__":
    main()
