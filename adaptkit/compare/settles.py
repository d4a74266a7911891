"""The smallest difference that a study's sizes can settle, said before it runs."""

from __future__ import annotations

import math
from typing import Any

from adaptkit.compare.build_stages import scores_text
from adaptkit.compare.costs import Costs
from adaptkit.study.config import LANGUAGE, StudyConfig
from adaptkit.study.power import smallest_difference
from adaptkit.study.scores import METRICS

TASK_ITEM_SD = 0.45
"""Two arms that disagree on one item in five."""
TEXT_ITEM_SD = 0.1
"""Bits per byte of one passage; .06 was measured for arms .14 apart, .2 for arms .4 apart."""
SEED_SD = 0.01
"""Of one arm's score, from seed to seed."""


def settled_by(config: StudyConfig, costs: Costs) -> list[dict[str, Any]]:
    """For each task: items, seeds, and the difference that they can tell from none; what arms will differ by
    is not known yet, so their noise is that of the studies kept so far."""
    rows = []
    if scores_text(config):
        rows.append(_row(config, LANGUAGE, costs.texts.num_test, len(config.text_arms), TEXT_ITEM_SD))
    for task in config.tasks:
        if math.isinf(METRICS[task.score].most):
            continue  # an error in the user's own unit: nothing is known of its noise
        if not config.arms_on(task):
            continue  # nothing to hold against its baseline
        num_arms = len(config.arms_on(task)) + 1  # the baseline is an arm like the others
        rows.append(_row(config, task.name, costs.tasks[task.name].num_items, num_arms, TASK_ITEM_SD))
    return rows


def _row(config: StudyConfig, task: str, num_items: int, num_arms: int, item_sd: float) -> dict[str, Any]:
    difference = smallest_difference(
        max(2, num_items),
        config.seeds,
        item_sd=item_sd,
        seed_sd=SEED_SD,
        confidence=config.confidence,
        num_arms=max(2, num_arms),
    )
    unit = "bits per byte" if task == LANGUAGE else config.task(task).score
    return {
        "task": task,
        "unit": unit,
        "test_items": num_items,
        "seeds": config.seeds,
        "arms": num_arms,
        "smallest_difference": round(difference, 4),
    }
