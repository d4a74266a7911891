"""Studies that lie in memory only: the score of every arm and seed is set to the digit.

    results = results_of({"continued": [1.80, 1.81], "scratch": [1.70, 1.71]})

Where fake_study.py draws studies from a known truth and writes files, these leave nothing to chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.run_record import SplitRecord
from adaptkit.study.data_record import CorpusRecord, DataRecord
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.record import ArmRecord, BaseRecord, BudgetRecord, StudyRecord, TaskRecord
from adaptkit.study.results import Cell, Cost, ItemRow, Results

BYTES = 100
LANGUAGE = TaskRecord(
    name="language", kind="language", metric="bits_per_byte", higher_is_better=False, margin=0.01
)
TICKET = TaskRecord(
    name="ticket", kind="classify", metric="accuracy", higher_is_better=True, margin=0.01, labels=("a", "b")
)
EVERY_ARM_COSTS = Cost(flops=3.0e14, seconds=600, tokens=1e6, peak_memory_bytes=9e8)


def language_rows(score: float, num_items: int, noise: np.ndarray | None = None) -> list[ItemRow]:
    """Documents of 100 bytes whose bits per byte are exactly `score`."""
    values = score + (np.zeros(num_items) if noise is None else noise - noise.mean())
    nats = values * BYTES * math.log(2)
    return [{"id": f"d{i:05}", "nats": float(n), "num_bytes": BYTES} for i, n in enumerate(nats)]


def label_rows(score: float, num_items: int) -> list[ItemRow]:
    """Labelled items of which the share `score` is right."""
    right = round(score * num_items)
    return [
        {"id": f"r{i:05}", "label": "a", "prediction": "a" if i < right else "b"} for i in range(num_items)
    ]


def results_of(
    scores: Mapping[str, Sequence[float]],
    *,
    task: TaskRecord = LANGUAGE,
    dev: Mapping[str, float] | None = None,
    baselines: Mapping[str, float] | None = None,
    costs: Mapping[str, Cost] | None = None,
    text_bytes: float | None = None,
    num_items: int = 400,
    item_noise: float = 0.0,
    **fields: Any,
) -> Results:
    """A study of one task.

    Args:
        scores: arm -> score of each seed.
        dev: arm -> its development score; the mean of the test scores where none is given.
        item_noise: spread over items of each arm's own noise, which moves no score.
        fields: of StudyRecord.
    """
    make_rows = language_rows if task.kind == "language" else label_rows
    cells = []
    for number, (arm, seeds) in enumerate(scores.items()):
        noise = np.random.default_rng(number).normal(0, item_noise, num_items) if item_noise else None
        more = (noise,) if task.kind == "language" else ()
        for seed, score in enumerate(seeds):
            judged = (dev or {}).get(arm, float(np.mean(seeds)))
            cells.append(
                Cell(
                    arm=arm,
                    seed=seed,
                    portion=WHOLE,
                    task=task.name,
                    run=Path(f"{arm}-{seed}"),
                    suite=task.name,
                    rows=make_rows(score, num_items, *more),
                    dev=None if math.isnan(judged) else judged,
                    cost=(costs or {}).get(arm, EVERY_ARM_COSTS),
                    text_bytes=text_bytes,
                )
            )
    cells += [
        Cell(name, 0, WHOLE, task.name, Path(name), task.name, make_rows(score, num_items), None, Cost())
        for name, score in (baselines or {}).items()
    ]
    arms = [*(arm_of(name) for name in scores), *(baseline_of(name) for name in baselines or {})]
    num_seeds = max(len(seeds) for seeds in scores.values())
    return Results(Path("study"), record_of(arms, task, num_seeds, **fields), cells, {})


def record_of(arms: Sequence[ArmRecord], task: TaskRecord, num_seeds: int, **fields: Any) -> StudyRecord:
    split = SplitRecord(kind="text", documents=10, num_bytes=1_000_000, digest="0" * 64)
    defaults = {
        "name": "notes",
        "question": "Pretrain?",
        "command": "adaptkit compare study.yaml",
        "primary": task.name,
        "confidence": 0.95,
        "arms": tuple(arms),
        "seeds": tuple(range(num_seeds)),
        "shares": (1.0,),
        "tasks": (task,),
        "data": DataRecord(corpora={"domain": CorpusRecord(train=split, test=split)}),
        "budget": BudgetRecord(
            flops_per_seed=3.1e14,
            unit="flops",
            asked="3.1e14",
            task_share=0.2,
            text_flops_per_seed=2.48e14,
            trials=3,
            held_equal=(),
        ),
        "scores": (),
        "base": BaseRecord(model="base"),
    }
    return StudyRecord(**(defaults | fields))


def arm_of(name: str) -> ArmRecord:
    """An arm of the jobs ledger where an adaptation is named, else of the text ledger."""
    origin, _, adaptation = name.partition("+")
    ledger = "jobs" if adaptation else "text"
    return ArmRecord(name=name, origin=origin, adaptation=adaptation or None, ledger=ledger, describe=name)


def baseline_of(name: str) -> ArmRecord:
    return ArmRecord(name=name, origin="baseline", ledger="jobs", describe="no language model")
