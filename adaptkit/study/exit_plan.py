"""Weigh staying with an API against owning each other arm: quality, and what has been paid month by month.

    for option in exit_plan(results, task): option.arm, option.difference, option.paid_back, option.after(12)

Owning costs its training at once and its servers every month; the API costs its requests. `paid_back` is when
owning has cost less in all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from adaptkit.study.breakeven import HOURS_PER_MONTH, Workload, num_servers
from adaptkit.study.ownership import API, ownerships
from adaptkit.study.record import TaskRecord
from adaptkit.study.results import Results
from adaptkit.study.statistics import Comparison

MONTHS = (1, 3, 6, 12, 24)
"""After how many the bills are compared, beside the months of the decision."""


@dataclass(frozen=True)
class ExitOption:
    """One arm that could replace an API.

    Attributes:
        api: the arm that is asked over the API.
        difference: score of the arm minus score of the API.
        training_usd: paid once.
        own_usd, api_usd: paid every month.
    """

    arm: str
    api: str
    difference: Comparison
    training_usd: float
    own_usd: float
    api_usd: float

    @property
    def paid_back(self) -> float:
        """Months after which owning has cost less in all; inf for never."""
        saved = self.api_usd - self.own_usd
        if saved <= 0:
            return math.inf
        return self.training_usd / saved

    def after(self, months: float) -> tuple[float, float]:
        """What owning, and what the API, has cost in all after some months."""
        return self.training_usd + months * self.own_usd, months * self.api_usd


def exit_plan(results: Results, task: TaskRecord) -> list[ExitOption]:
    """The arms that could replace a task's API, the soonest paid back first; none without an API, a price for
    an hour, or traffic. Where several arms ask the API, the one with the best score stands for it."""
    price, requests = results.record.price, results.record.decision.requests_per_month
    asked = [arm.name for arm in results.scored_arms(task.name) if arm.origin == API]
    if not asked or price is None or not requests:
        return []
    replicates = results.replicates(task.name)
    sign = 1.0 if task.higher_is_better else -1.0
    api = max(asked, key=lambda name: sign * replicates.mean(name))
    owned = ownerships(results, task.name)
    api_usd = requests * (owned[api].usd_per_request or 0.0)
    options = []
    for name, ownership in owned.items():
        if name in asked or not ownership.requests_per_s:
            continue
        servers = num_servers(requests, Workload(requests, ownership.requests_per_s).capacity)
        difference = replicates.compare(
            name,
            api,
            margin=task.margin,
            higher_is_better=task.higher_is_better,
            confidence=results.confidence,
        )
        options.append(
            ExitOption(
                arm=name,
                api=api,
                difference=difference,
                training_usd=ownership.training_hours * price.usd_per_hour,
                own_usd=servers * HOURS_PER_MONTH * price.usd_per_hour,
                api_usd=api_usd,
            )
        )
    return sorted(options, key=lambda option: (option.paid_back, -option.difference.difference))
