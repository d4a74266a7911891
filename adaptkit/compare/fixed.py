"""What a plan decides once for a study, so that a resumed one does the same: plan.json."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.run import read_sealed, write_sealed
from adaptkit.run_record import Record
from adaptkit.study.account_record import LeftOutRecord
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import Portion

LABELS = "label_portions"


@dataclass(frozen=True)
class Fixed:
    """What a plan decides once for a study, so that a resumed one does the same.

    Attributes:
        arms: names of all arms.
        max_lengths: task -> tokens after which a text is cut.
        without: task -> arms that are left out on it.
        left_out: arms that could not be run, on any task or on one.
        portions: what the smaller trainings have, by which is forecast.
        rungs: sizes beside the study's own that models from scratch are trained at.
        label_portions: task -> shares of its labels that arms are trained with too.
        predicted: kind of stage -> seconds, one stage after another, as predicted at the first start.
        predicted_seconds: wall time of the study.
    """

    budget: Budget
    arms: tuple[str, ...]
    max_lengths: dict[str, int]
    without: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[LeftOutRecord, ...] = ()
    portions: tuple[Portion, ...] = ()
    rungs: tuple[int, ...] = ()
    label_portions: dict[str, tuple[Portion, ...]] = field(default_factory=dict)
    predicted: dict[str, float] = field(default_factory=dict)
    predicted_seconds: float = 0.0

    def applied_to(self, config: StudyConfig) -> StudyConfig:
        """A config with the arms and lengths that were decided."""
        tasks = [
            task.model_copy(
                update={
                    "max_length": self.max_lengths[task.name],
                    "without": list(self.without.get(task.name, task.without)),
                }
            )
            for task in config.tasks
        ]
        return config.model_copy(update={"arms": list(self.arms), "tasks": tasks})


def read_fixed(path: Path) -> Fixed:
    """What a study's plan.json holds."""
    value = read_sealed(path)
    labels = {task: tuple(Portion(**row) for row in rows) for task, rows in value.get(LABELS, {}).items()}
    records = {
        "budget": Budget(**value["budget"]),
        "left_out": tuple(LeftOutRecord(**row) for row in value["left_out"]),
        "portions": tuple(Portion(**row) for row in value.get("portions", ())),
        LABELS: labels,
        "without": {task: tuple(arms) for task, arms in value.get("without", {}).items()},
    }
    return Fixed(**{**value, **records, **{key: tuple(value.get(key, ())) for key in ("arms", "rungs")}})


def write_fixed(path: Path, fixed: Fixed) -> None:
    """Write plan.json."""
    labels = {task: _dumped(rows) for task, rows in fixed.label_portions.items()}
    dumped = {"left_out": _dumped(fixed.left_out), "portions": _dumped(fixed.portions), LABELS: labels}
    write_sealed(path, {**asdict(fixed), **dumped})


def _dumped(records: Iterable[Record]) -> list[dict[str, Any]]:
    return [record.model_dump(mode="json") for record in records]
