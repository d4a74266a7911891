"""What the page needs of a study. `adaptkit.report.demo_view.StudyView` gives it; the page itself knows no
study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from adaptkit.demo.html import render
from adaptkit.demo.roles import Arm

Judged = Sequence[tuple[Sequence[float], int]]
"""(probability of each class, index of the true one) per item."""


class Dial(Protocol):
    """A number that can be moved; what `compare` calls by the same name."""

    name: str
    label: str
    low: float
    high: float
    value: float
    origin: str
    log: bool
    main: bool

    def show(self, value: float) -> str: ...


class Calibration(Protocol):
    """A temperature fitted on `num_dev` items, and the calibration error on `num_test` others without and
    with it."""

    temperature: float
    before: float
    after: float
    num_dev: int
    num_test: int

    def apply(self, probabilities: Sequence[float]) -> list[float]: ...


class Study(Protocol):
    """A finished study: pieces of HTML, and the texts that its models are tried on."""

    name: str
    arms: Sequence[Arm]
    tasks: Sequence[str]

    def verdict(self) -> str: ...
    def evidence(self) -> str: ...
    def about(self) -> str: ...
    def dials(self) -> Sequence[Dial]: ...
    def weigh(self, **values: float) -> str: ...
    def labels(self, task: str) -> Sequence[str]: ...
    def items(self, part: str, task: str) -> list[tuple[str, str]]: ...
    def documents(self) -> list[tuple[str, str]]: ...
    def calibrate(self, dev: Judged, test: Judged) -> Calibration | None: ...


class NoStudy:
    """A run or a model folder: there are models to try, and nothing was compared."""

    arms: Sequence[Arm] = ()
    tasks: Sequence[str] = ()

    def __init__(self, folder: Path):
        self.name = folder.resolve().name

    def verdict(self) -> str:
        return render(
            "empty",
            title="Nothing was compared yet",
            text="This folder holds one model, not a study.",
            do="adaptkit compare study.yaml",
        )

    def evidence(self) -> str:
        return ""

    def about(self) -> str:
        return ""

    def dials(self) -> Sequence[Dial]:
        return ()

    def weigh(self, **choice: float) -> str:
        return ""

    def labels(self, task: str) -> Sequence[str]:
        return ()

    def items(self, part: str, task: str) -> list[tuple[str, str]]:
        return []

    def documents(self) -> list[tuple[str, str]]:
        return []

    def calibrate(self, dev: Judged, test: Judged) -> None:
        return None
