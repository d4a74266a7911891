"""What a careful reader should hold against a study, worst first."""

from __future__ import annotations

from adaptkit.report.data_tables import data_limits
from adaptkit.report.manners import lost_manners
from adaptkit.study.results import BASELINE, Results
from adaptkit.study.task_verdict import Verdict
from adaptkit.study.verdict_line import exclusions

FEW_ITEMS = 300
"""Test items below which the report calls them few."""


def limits(verdict: Verdict, results: Results) -> list[str]:
    """Everything that a study cannot tell."""
    return [
        *unbeaten_baselines(verdict, results),
        *exclusions(verdict.main.missing),
        *_limits_of_evidence(verdict, results),
        *lost_manners(results),
        *data_limits(results.record.data),
        *diverged_rates(results),
        *untuned_rates(results),
        *rates_at_the_edge(results),
        *_limits_of_scope(verdict, results),
    ]


def _limits_of_evidence(verdict: Verdict, results: Results) -> list[str]:
    """What weakens the comparison that was made."""
    limits, pair = [], verdict.main.pair
    if results.num_seeds == 1:
        luck = "One seed: intervals cover the choice of test items, not the luck of training."
        limits.append(f"{luck} Nothing can be decided.")
    elif results.num_seeds == 2:
        spread = "Two seeds: how much trainings differ is hardly measured"
        limits.append(f"{spread}; a 95 % interval can cover as little as 88 %.")
    share = share_read(results)
    if share is not None and share < 0.5:
        read = f"The budget paid for reading {share:.1%} of the domain text"
        limits.append(f"{read}: what the rest would add is the next question.")
    if pair is not None and pair.num_items < FEW_ITEMS:
        few = f"{pair.num_items:,} test items are few"
        limits.append(f"{few}: this is the main reason why intervals are wide.")
    return limits


def share_read(results: Results) -> float | None:
    """Largest share of the domain text that any arm read; None where runs do not tell."""
    read = [cell.text_bytes for cell in results.cells if cell.text_bytes]
    return max(read) / results.domain_bytes if read and results.domain_bytes else None


def _limits_of_scope(verdict: Verdict, results: Results) -> list[str]:
    """What the study did not look at."""
    limits = []
    if all(task.ledger == "text" for task in verdict.tasks):
        difference = "bits per byte tells how well text is modelled, not how well a job is done"
        limits.append(f"No labelled task was scored: {difference}.")
    forecast = results.record.forecast
    if forecast is None or not forecast.predictions:
        change = "nothing is said about how the answer changes with more of them"
        limits.append(f"One amount of text and compute: {change}.")
    turn = "at others the answer may be different, which a larger study would show"
    ladder = results.record.ladder
    size = "One model size"
    if ladder is not None and len(ladder.sizes) > 1:
        size = "One size of the base"
    limits.append(f"{size} and one budget: {turn}.")
    return limits


def unbeaten_baselines(verdict: Verdict, results: Results) -> list[str]:
    """Baselines without a language model that no arm beats on the task that decides."""
    task, replicates = results.task(verdict.main.task), results.replicates(verdict.main.task)
    sign = 1 if task.higher_is_better else -1
    arms = results.scored_arms(task.name)
    best = max((sign * replicates.mean(arm.name) for arm in arms if arm.origin != BASELINE), default=0.0)
    sentences = []
    for arm in arms:
        score = replicates.mean(arm.name)
        if arm.origin == BASELINE and sign * score > best:
            scored = f"scores {score:.3f} on {verdict.main.title}"
            sentences.append(
                f"{arm.name}, without any language model, {scored}: better than every language model."
            )
    return sentences


def diverged_rates(results: Results) -> list[str]:
    """Trials whose loss was no number: what they say of the grid, and that they were counted as the worst."""
    sentences = []
    for tuning in results.record.tuning:
        rates = [f"{trial.learning_rate:g}" for trial in tuning.trials if trial.diverged]
        if rates:
            at = f"Training {tuning.title} diverged at a learning rate of {', '.join(rates)}"
            sentences.append(f"{at}: that counted as the worst of {len(tuning.trials)} trials.")
    return sentences


def untuned_rates(results: Results) -> list[str]:
    """Studies whose arms train at one rate each, by size and kind."""
    if results.record.budget.trials > 1:
        return []
    suggested = "each arm trained at the one that its size and kind suggest"
    return [
        f"No learning rate was tuned: {suggested}. An arm that is far behind, from scratch first of all, "
        "may need another."
    ]


def rates_at_the_edge(results: Results) -> list[str]:
    """Trainings whose best learning rate was the lowest or the highest tried: a better one may lie beyond."""
    names: dict[str, list[str]] = {"lowest": [], "highest": []}
    for tuning in results.record.tuning:
        rates = [trial.learning_rate for trial in tuning.trials]
        if len(rates) < 2:
            continue
        best = min(tuning.trials, key=lambda trial: trial.dev).learning_rate
        if best == min(rates):
            names["lowest"].append(tuning.title)
        if best == max(rates):
            names["highest"].append(tuning.title)
    return [
        f"Of the learning rates tried, the {edge} was best for {', '.join(titles)}: "
        "a rate outside those tried may be better."
        for edge, titles in names.items()
        if titles
    ]
