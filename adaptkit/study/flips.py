"""What would flip a verdict: more seeds or items, more data or compute, other prices or traffic, another
preference. Each with its number, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.breakeven import Prices, Training, Workload, own_usd_per_month
from adaptkit.study.forecast import Forecast
from adaptkit.study.forecast_answers import Answers
from adaptkit.study.label_answers import LabelAnswers
from adaptkit.study.label_forecast import LabelForecast
from adaptkit.study.ownership import Ownership, ownerships
from adaptkit.study.preference import PREFERENCES, Preference
from adaptkit.study.record import TaskRecord
from adaptkit.study.results import Results
from adaptkit.study.task_verdict import TaskVerdict
from adaptkit.study.verdict_line import interval_text, number, what_settles

_TRAFFIC = tuple(10.0**power for power in range(3, 10))
"""Requests a month that are tried."""


@dataclass(frozen=True)
class Flip:
    """One thing that could change the answer.

    Attributes:
        what: would have to change.
        now: where it stands.
        turns: the number at which the answer turns, or why it does not.
    """

    what: str
    now: str
    turns: str


def flips(
    results: Results,
    verdict: TaskVerdict,
    forecast: Forecast | None = None,
    answers: Answers | None = None,
    labels: Sequence[tuple[LabelForecast, LabelAnswers]] = (),
) -> list[Flip]:
    """The table of a task, in the order in which it is read."""
    task = results.task(verdict.task)
    return [
        evidence(results, verdict),
        *data(verdict, forecast, answers),
        *more_labels(verdict, labels),
        traffic(results, task, verdict),
        preferences(results, task, verdict),
    ]


def evidence(results: Results, verdict: TaskVerdict) -> Flip:
    """More seeds and test items: what they would settle, or how far the answer is from turning."""
    items = verdict.pair.num_items if verdict.pair else 0
    now = f"{results.num_seeds} seeds, {items:,} test items"
    if verdict.pair is None:
        return Flip("More seeds or test items", now, "nothing to compare with")
    if not verdict.decided:
        return Flip("More seeds or test items", now, what_settles(verdict))
    pair, room = verdict.pair, distance_to_turning(verdict)
    first, second = verdict.rival, verdict.recommended
    if verdict.outcome == "gain":
        first, second = second, first
    standing = f"{first} minus {second} is now {interval_text(pair)}"
    if room <= 0:
        return Flip("More seeds or test items", now, f"{standing}; more would tell which is better")
    moved = f"the answer changes if that moves by {number(room, pair)}"
    return Flip("More seeds or test items", now, f"{standing}; {moved}")


def distance_to_turning(verdict: TaskVerdict) -> float:
    """How far the interval's deciding end lies from the margin."""
    assert verdict.pair is not None
    low, high = verdict.pair.low, verdict.pair.high
    if not verdict.higher_is_better:
        low, high = -high, -low
    return low - verdict.margin if verdict.outcome == "gain" else verdict.margin - high


def data(verdict: TaskVerdict, forecast: Forecast | None, answers: Answers | None) -> list[Flip]:
    """More text and more compute: where the fitted laws cross, within what they were checked for."""
    text, compute = "More text", "More compute"
    if forecast is None or answers is None:
        asked = "not forecast: set `forecast.share`"
        return [Flip("More text or compute", "one amount of each", asked)]
    now = f"{len(forecast.record.portions) + 1} portions of text and compute"
    if not answers.crossings:
        reason = forecast.reason or "not forecast: that compares a model from scratch with a continued one"
        return [Flip("More text or compute", now, reason)]
    job = f"not forecast for {verdict.task}; in bits per byte, " if verdict.ledger == "jobs" else ""
    names = {"text": text, "compute": compute}
    return [Flip(names[each.axis], now, f"{job}{each.sentence}") for each in answers.crossings]


def more_labels(verdict: TaskVerdict, labels: Sequence[tuple[LabelForecast, LabelAnswers]]) -> list[Flip]:
    """More labels: where the curves of the recommended arm cross those of its cheaper and dearer ways."""
    if verdict.ledger != "jobs":
        return []
    what = "More labels"
    for forecast, answers in labels:
        if forecast.record.task != verdict.task:
            continue
        now = f"{forecast.record.num_labels:,} labels"
        turns = [
            each.sentence
            for each in answers.crossings
            if verdict.recommended in (each.arm, each.against) and not forecast.reason
        ]
        no = f"not forecast for {verdict.recommended}: it was not trained with fewer labels, or has no rival"
        no = forecast.reason or no
        return [Flip(what, now, "; ".join(turns) or no)]
    return [Flip(what, "all labels of the study", "not forecast: set `forecast.labels_share`")]


def traffic(results: Results, task: TaskRecord, verdict: TaskVerdict) -> Flip:
    """Other traffic: from how many requests a month another contender is the cheapest to own."""
    what = "Other traffic or prices"
    if results.record.price is None:
        return Flip(what, "no price for an hour", "give `budget.price` to count in dollars")
    requests = results.record.decision.requests_per_month
    now = f"{requests:,.0f} requests a month" if requests else "traffic not stated"
    owned = ownerships(results, task.name)
    usd_per_hour, months = results.record.price.usd_per_hour, results.record.decision.months
    turns: list[str] = []
    before: str | None = None
    for volume in _TRAFFIC:
        cheapest = _cheapest(owned, verdict.contenders, volume, usd_per_hour, months)
        if cheapest is None:
            return Flip(what, now, "no contender's speed is known: run `adaptkit bench`")
        if cheapest != before:
            turns.append(f"{cheapest} from {volume:,.0f} requests a month on")
        before = cheapest
    return Flip(what, now, "; ".join(turns))


def _cheapest(
    owned: dict[str, Ownership],
    contenders: tuple[str, ...],
    volume: float,
    usd_per_hour: float,
    months: float,
) -> str | None:
    """The contender with the smallest bill, the first (preferred) of equal ones; None where no speed is
    known."""
    bills: dict[str, float] = {}
    for name in contenders:
        speed = owned[name].requests_per_s
        if speed is not None:
            training = Training(owned[name].training_hours, months)
            work, prices = Workload(volume, speed), Prices(usd_per_hour, 0.0, 0.0)
            bills[name] = own_usd_per_month(volume, work, prices, training)
        if (each := owned[name].usd_per_request) is not None:
            bills[name] = volume * each
    return min(bills, key=lambda name: bills[name], default=None)


def preferences(results: Results, task: TaskRecord, verdict: TaskVerdict) -> Flip:
    """Another preference: which contender it would recommend."""
    arms = {arm.name: arm for arm in results.scored_arms(task.name)}
    preferred: dict[str, list[str]] = {}
    for prefer in PREFERENCES:
        order = Preference.of(results, task, prefer)
        chosen = min(verdict.contenders, key=lambda name: order.key(arms[name]))
        preferred.setdefault(chosen, []).append(prefer)
    turns = "; ".join(f"{name} if you prefer {', '.join(by)}" for name, by in preferred.items())
    return Flip("Another preference", f"prefer: {results.record.decision.prefer}", turns)
