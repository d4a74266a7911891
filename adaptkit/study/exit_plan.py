"""Weigh staying with an API against owning each other arm: quality, and what has been paid month by month.

    for option in exit_plan(results, task): option.arm, option.difference, option.paid_back, option.after(12)

Owning costs its training at once and its servers every month; the API costs its requests. `paid_back` is when
owning has cost less in all; `pays_from` is the traffic from which it costs less every month, its training
written off over the months of the decision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.breakeven import HOURS_PER_MONTH, Prices, Training, Workload, crossings, num_servers
from adaptkit.study.intervals import half_width
from adaptkit.study.ownership import API, Ownership, ownerships, request_bills
from adaptkit.study.record import TaskRecord
from adaptkit.study.results import Results
from adaptkit.study.statistics import Comparison

MONTHS = (1, 3, 6, 12, 24)
"""After how many the bills are compared, beside the months of the decision."""


@dataclass(frozen=True)
class PaysFrom:
    """Requests a month from which owning an arm costs less than an API; inf for never.

    Attributes:
        low, high: over the seeds' bills and training hours; None where the speed of a server is not measured
            but counted from the model's size, for nothing tells how far that is off.
    """

    requests: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ExitOption:
    """One arm that could replace an API.

    Attributes:
        api: the arm that is asked over the API.
        difference: score of the arm minus score of the API.
        training_usd: paid once.
        own_usd, api_usd: paid every month.
        pays_from: the traffic from which owning is the cheaper one.
    """

    arm: str
    api: str
    difference: Comparison
    training_usd: float
    own_usd: float
    api_usd: float
    pays_from: PaysFrom

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
                pays_from=_pays_from(results, task, name, api, ownership),
            )
        )
    return sorted(options, key=lambda option: (option.paid_back, -option.difference.difference))


def _pays_from(results: Results, task: TaskRecord, arm: str, api: str, ownership: Ownership) -> PaysFrom:
    record = results.record
    assert record.price is not None and ownership.requests_per_s is not None
    speed, usd_per_hour, months = ownership.requests_per_s, record.price.usd_per_hour, record.decision.months

    def first(usd: float, hours: float) -> float:
        work = Workload(1.0, speed, tokens_in=1.0, tokens_out=0.0)
        return crossings(work, Prices(usd_per_hour, 1e6 * usd, 0.0), Training(hours, months))[0]

    bills = _ends(request_bills(results, task.name, api), results.confidence)
    hours = _ends([cell.cost.seconds / 3600 for cell in results.of(task.name, arm)], results.confidence)
    middle = first(bills[1], hours[1])
    if not ownership.measured:
        return PaysFrom(middle, None, None)
    return PaysFrom(middle, first(bills[2], hours[0]), first(bills[0], hours[2]))


def _ends(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Low end, mean and high end of a t interval over seeds; none is below 0."""
    mean, num = sum(values) / len(values), len(values)
    if num < 2:
        return mean, mean, mean
    variance = sum((value - mean) ** 2 for value in values) / (num - 1) / num
    width = half_width((0.0, 0.0), [(variance, num - 1.0)], confidence)
    return max(0.0, mean - width), mean, mean + width
