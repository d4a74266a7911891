"""What the page needs of a study, as protocols; `report.demo_view.StudyView` fulfils them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from adaptkit.demo.html import render

Judged = Sequence[tuple[Sequence[float], int]]
"""(probability of each class, index of the true one) per item."""


class Dial(Protocol):
    """A number that visitors can move."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def value(self) -> float:
        """Where it stands at first."""

    @property
    def origin(self) -> str:
        """Where that value comes from, in words."""

    @property
    def log(self) -> bool:
        """The slider moves in powers of ten."""

    @property
    def main(self) -> bool:
        """Shown at once, not under "More assumptions"."""

    def show(self, value: float) -> str:
        """A value with its unit."""


class Calibration(Protocol):
    """A temperature fitted on some items, and the calibration error on others without and with it."""

    @property
    def temperature(self) -> float: ...
    @property
    def before(self) -> float: ...
    @property
    def after(self) -> float: ...
    @property
    def num_dev(self) -> int:
        """Items that it was fitted on."""

    @property
    def num_test(self) -> int:
        """Items that the errors were measured on."""

    def apply(self, probabilities: Sequence[float]) -> list[float]: ...


class Study(Protocol):
    """A finished study: pieces of HTML, and the texts that its models are tried on."""

    @property
    def name(self) -> str: ...
    @property
    def tasks(self) -> Sequence[str]: ...
    def verdict(self) -> str: ...
    def evidence(self) -> str: ...
    def about(self) -> str: ...
    def dials(self) -> Sequence[Dial]: ...
    def weigh(self, **values: float) -> str:
        """What the dials' values, by name, come to."""

    def labels(self, task: str) -> Sequence[str]: ...
    def items(self, part: str, task: str) -> Sequence[tuple[str, str]]:
        """(text, label) rows of a task's `dev` or `test` part."""

    def documents(self) -> Sequence[tuple[str, str]]:
        """(name, text) of held-out passages."""

    def questions(self) -> Sequence[tuple[str, str]]:
        """(question, answer) of test rows that a model answers in words."""

    def calibrate(self, dev: Judged, test: Judged) -> Calibration | None: ...


class NoStudy:
    """Stands in for the study of a run or a model folder: nothing was compared."""

    tasks: Sequence[str] = ()

    def __init__(self, folder: Path):
        self.name = folder.resolve().name

    def verdict(self) -> str:
        title, text = "Nothing was compared yet", "This folder holds one model, not a study."
        return render("empty", title=title, text=text, do="adaptkit compare study.yaml")

    def evidence(self) -> str:
        return ""

    def about(self) -> str:
        return ""

    def dials(self) -> Sequence[Dial]:
        return ()

    def weigh(self, **values: float) -> str:
        return ""

    def labels(self, task: str) -> Sequence[str]:
        return ()

    def items(self, part: str, task: str) -> Sequence[tuple[str, str]]:
        return ()

    def documents(self) -> Sequence[tuple[str, str]]:
        return ()

    def questions(self) -> Sequence[tuple[str, str]]:
        return ()

    def calibrate(self, dev: Judged, test: Judged) -> None:
        return None
