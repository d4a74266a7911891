"""One step of a study's plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adaptkit.study.stage_record import StageKey


@dataclass(frozen=True)
class Stage:
    """A stage, what it waits for, and what it may spend.

    Attributes:
        describe: for people.
        flops: what a training may spend, the scoring of its candidate included; 0 for stages without
        training.
        gpus: that it needs at once, so that its model and its training fit; 1 on a machine without any.
    """

    key: StageKey
    describe: str
    needs: tuple[StageKey, ...] = ()
    flops: float = 0.0
    gpus: int = 1

    @property
    def name(self) -> str:
        return self.key.name


Worker = Callable[[Path, Stage, int], None]
"""Runs one stage of the study in a folder with so many threads, and leaves its result or its error there."""
