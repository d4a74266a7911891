"""Stages of a study that do next to nothing, in a module that a process of theirs imports at once."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import result_path


def sleep_long(study: Path, stage: Stage, threads: int) -> None:
    """A stage that does nothing for a long time."""
    time.sleep(120)


def name_the_gpu(study: Path, stage: Stage, threads: int) -> None:
    """A stage that says which GPU it was given, once the other runs too."""
    place = result_path(study, stage.key)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    for _ in range(600):
        if len(list(place.parent.glob("*.json"))) >= 2:
            return
        time.sleep(0.1)


def count_frozen(study: Path, stage: Stage, threads: int) -> None:
    """A stage that says how many objects no collection of garbage looks at."""
    place = result_path(study, stage.key)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(str(gc.get_freeze_count()))
