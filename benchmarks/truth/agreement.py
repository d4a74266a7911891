"""Read the kept pairs of studies, at B and at 4B, and count where the smaller one was right.

Everything is computed again from the kept score of every test item. D* is the compute, in budgets B, from
which a model of one's own is as good as keeping on with the base: predicted by the laws of the study at B,
and measured on the trainings at 4B, at B, and the smaller ones with all of the text, straight between them in
the logarithm of compute.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from keep_study import unpack  # noqa: E402

from adaptkit.study.forecast import FROM_SCRATCH, KEPT_ON, Measured, measure, predict  # noqa: E402
from adaptkit.study.forecast_answers import Crossing, answer, catches  # noqa: E402
from adaptkit.study.forecast_record import WHOLE, Portion  # noqa: E402
from adaptkit.study.law import Place  # noqa: E402
from adaptkit.study.results import Results, collect, is_language, tables_of  # noqa: E402
from adaptkit.study.statistics import Replicates  # noqa: E402
from adaptkit.study.verdict import absolute_margin, judge  # noqa: E402

BUDGETS = {"b": 1.0, "4b": 4.0}
LARGER = BUDGETS["4b"]
WITHIN = 2.0
"""A predicted amount is right within this factor."""


@dataclass(frozen=True)
class Side:
    """A study at one budget.

    Attributes:
        answer: gain, no gain, enough or undecided.
        gains: on text, whether continued was shown to be better by more than the margin than the placebo, or
            than the base as it is where no placebo ran. None where it did not run.
    """

    answer: str
    recommended: str
    line: str
    contenders: tuple[str, ...]
    gains: bool | None


@dataclass(frozen=True)
class Turn:
    """Where a model of one's own catches keeping on with the base, in budgets B.

    Attributes:
        status: of the forecast: at, already, beyond or not forecast; empty where no forecast was asked for.
        predicted, low, high: 0 for below the least, inf for beyond reach.
        measured: the same; None without both budgets or both arms.
        right: whether the measured one agrees; None where nothing was printed or measured.
    """

    status: str
    predicted: float
    low: float
    high: float
    measured: float | None
    right: bool | None


@dataclass(frozen=True)
class Coverage:
    """A score beside what was predicted of it."""

    arm: str
    low: float
    high: float
    measured: float

    @property
    def held(self) -> bool:
        return self.low <= self.measured <= self.high


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    study: str
    control: bool
    expected: dict[str, str]
    sides: dict[str, Side]
    turn: Turn
    largest: tuple[Coverage, ...]
    beyond: tuple[Coverage, ...]
    shift: str
    shift_held: bool | None

    @property
    def agreement(self) -> str:
        """agree; open, where one of the two is undecided; turned, where they say different things."""
        if len(self.sides) < len(BUDGETS):
            return "not run"
        first, second = (self.sides[budget].answer for budget in BUDGETS)
        if first == second:
            return "agree"
        return "open" if "undecided" in (first, second) else "turned"

    @property
    def control_holds(self) -> bool:
        """No study without shift may claim that the domain text, or a model of one's own, gains."""
        return all(side.answer != "gain" and not side.gains for side in self.sides.values())


def rows_of(kept: Path, predictions: Path, studies: Sequence[str] = ()) -> list[Row]:
    """All studies of a folder that were run, or those that are named, in the order of the predictions."""
    expected = yaml.safe_load(predictions.read_text(encoding="utf-8"))
    names = [name for name in expected if (kept / name).is_dir() and (not studies or name in studies)]
    return [_row(kept / name, expected[name]) for name in names]


def _row(folder: Path, expected: dict[str, Any]) -> Row:
    with tempfile.TemporaryDirectory() as temporary:
        results = {
            budget: collect(unpack(folder / budget, Path(temporary) / budget))
            for budget in BUDGETS
            if (folder / budget / "verdict.json").exists()
        }
        sides = {budget: _side(of_budget) for budget, of_budget in results.items()}
        small, large = results.get("b"), results.get("4b")
        says, held = _shift(results, sides)
        return Row(
            study=folder.name,
            control=bool(expected.get("control")),
            expected={budget: expected[budget] for budget in BUDGETS},
            sides=sides,
            turn=_turn(small, large),
            largest=_largest(small),
            beyond=_beyond(small, large),
            shift=says,
            shift_held=held,
        )


def _side(results: Results) -> Side:
    main = judge(results).main
    return Side(main.outcome, main.recommended, main.line, main.contenders, _gains(results))


def _gains(results: Results) -> bool | None:
    """Whether continued was shown to be better on text than the placebo, or else than the base as it is."""
    task = next((task for task in results.tasks if is_language(task)), None)
    if task is None:
        return None
    names = {arm.name for arm in results.scored_arms(task.name)}
    other = "placebo" if "placebo" in names else "generic"
    if not {"continued", other} <= names:
        return None
    pair = _replicates(results).compare(
        "continued",
        other,
        margin=absolute_margin(results, task),
        confidence=results.confidence,
        higher_is_better=task.higher_is_better,
    )
    return pair.outcome == "win"


def _replicates(results: Results) -> Replicates:
    assert results.language is not None
    return results.replicates(results.language.name)


def _shift(results: dict[str, Results], sides: dict[str, Side]) -> tuple[str, bool | None]:
    """What was expected of pretraining, and whether the larger study says so; None where that is open."""
    if not results:
        return "", None
    budget = "4b" if "4b" in results else "b"
    expectation, side = results[budget].record.data.expectation, sides[budget]
    if expectation is None or expectation.says == "cannot say":
        return "cannot say", None
    gained: bool | None = side.answer == "gain"
    if is_language(results[budget].primary):
        gained = side.gains
    elif side.answer == "undecided":
        gained = None
    return expectation.says, None if gained is None else (expectation.says == "likely") == gained


def _turn(small: Results | None, large: Results | None) -> Turn:
    forecast = None if small is None else measure(small)
    if small is None or forecast is None:
        return Turn("", math.inf, 0.0, math.inf, None, None)
    crossing = next((each for each in answer(small, forecast).crossings if each.axis == "compute"), None)
    measured = None if large is None else _measured_turn(small, large)
    if crossing is None or crossing.status == "not forecast":
        return Turn("not forecast", math.inf, 0.0, math.inf, measured, None)
    unit = forecast.record.largest_flops
    ends = (crossing.value / unit, crossing.low / unit, crossing.high / unit)
    right = None if measured is None else _is_right(crossing, ends[0], ends[2], measured, forecast.reach)
    return Turn(crossing.status, *ends, measured, right)


def _is_right(crossing: Crossing, value: float, high: float, measured: float, reach: float) -> bool:
    """An amount: within the factor; already: at most the interval's end; beyond: past where laws are read."""
    if crossing.status == "beyond":
        return measured > reach
    if crossing.status == "already":
        return measured <= high
    return 0 < measured < math.inf and max(measured / value, value / measured) <= WITHIN


def _measured_turn(small: Results, large: Results) -> float | None:
    """In budgets B; 0 where it is ahead from the least on, inf where it is behind at 4B still."""
    own, kept = (_best(large, origins) for origins in (FROM_SCRATCH, KEPT_ON))
    if own is None or kept is None:
        return None
    assert small.language is not None and large.language is not None
    task = small.language.name
    whole = [portion for portion in small.portions(task, own) if portion.text == 1]
    factors = [portion.compute for portion in whole] + [LARGER]
    gaps = [_mean(small, own, portion) - _mean(small, kept, portion) for portion in whole]
    gaps.append(_mean(large, own) - _mean(large, kept))
    return float(catches(np.array([gaps]), np.array(factors))[0])


def _best(results: Results, origins: Sequence[str]) -> str | None:
    if results.language is None:
        return None
    arms = [arm.name for arm in results.scored_arms(results.language.name) if arm.origin in origins]
    return min(arms, key=lambda arm: _mean(results, arm), default=None)


def _mean(results: Results, arm: str, portion: Portion = WHOLE) -> float:
    assert results.language is not None
    cells = results.of(results.language.name, arm, portion)
    return float(np.mean([table.value for table in tables_of(cells, results.language.metric)]))


def _largest(small: Results | None) -> tuple[Coverage, ...]:
    """The largest run of each arm at B, predicted before it began."""
    forecast = None if small is None else measure(small)
    if forecast is None:
        return ()
    return tuple(
        Coverage(check.arm, check.predicted.low, check.predicted.high, check.measured)
        for check in forecast.checks
    )


def _beyond(small: Results | None, large: Results | None) -> tuple[Coverage, ...]:
    """The runs at 4B, by the laws through all trainings at B; withdrawn ones among them."""
    forecast = None if small is None else measure(small)
    if small is None or large is None or forecast is None:
        return ()
    assert small.language is not None
    task, rows = small.language.name, []
    for check in forecast.checks:
        cells = [_cell(small, check.arm, portion) for portion in small.portions(task, check.arm)]
        place = _cell(large, check.arm, WHOLE).place
        from_base = small.arm(check.arm).origin in KEPT_ON
        said = predict(check.arm, cells, place, small.confidence, from_base=from_base)
        rows.append(Coverage(check.arm, said.low, said.high, _mean(large, check.arm)))
    return tuple(rows)


def _cell(results: Results, arm: str, portion: Portion) -> Measured:
    assert results.language is not None
    cells = results.of(results.language.name, arm, portion)
    read = float(np.mean([cell.read_bytes or 0.0 for cell in cells]))
    place = Place(portion.text * results.domain_bytes, max(read, 1.0))
    return Measured(place, np.array([table.value for table in tables_of(cells, results.language.metric)]))
