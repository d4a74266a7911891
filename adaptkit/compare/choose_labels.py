"""With which shares of a task's labels a study trains its arms, to forecast what other numbers would do.

Each share is trained with as the study trains with all: under the same budget, for as many passes at most. So
a share costs that share where the passes are the limit, and more where the budget is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from adaptkit.compare.choose_portions import LEAST, LeftOpen
from adaptkit.compare.costs import Costs
from adaptkit.study.arms import Arm
from adaptkit.study.budget import MIN_STEPS, Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import Portion, reach_of
from adaptkit.study.label_forecast import LABEL_DOUBT, Lack
from adaptkit.study.law import Place, read_once
from adaptkit.study.task import TaskConfig
from adaptkit.study.tasks.rows import RowKind

HALVINGS = 10
ROWS_PER_LABEL = 2
"""Of a training with fewer labels at least, on average."""
ASKED = (0.25, 1.0, 2.0)
"""Numbers of labels, in the study's, at which scores are asked for."""
WITHOUT = "as forecast.labels_share is 0"


def label_learners(config: StudyConfig, task: TaskConfig) -> list[Arm]:
    """The arms of a task that learn more from more labels, and nothing else."""
    return [arm for arm in config.arms_on(task) if arm.learns_labels]


def choose_label_portions(
    config: StudyConfig, budget: Budget, costs: Costs
) -> dict[str, tuple[Portion, ...]]:
    """Task -> the shares of its labels, the smallest first; none for a task without a forecast.

    Args:
        config: with the arms that were chosen.
    """
    return {
        task.name: _portions(config, budget, costs, task)
        for task in config.tasks
        if config.forecast.labels_share
    }


def why_no_curve(config: StudyConfig, task: TaskConfig) -> str:
    """Why nothing can be forecast of a task's labels, whatever is paid for; empty where it can."""
    kind = task.task_kind
    if not isinstance(kind, RowKind):
        return "its labels are not rows of one file"
    if reason := kind.why_no_label_curve(task):
        return reason
    if not Lack(task.score).has_end:
        return f"{task.score} has no best value, so there is no law of what lacks to it"
    if not label_learners(config, task):
        return "no arm learns from labels"
    return ""


def why_too_few(config: StudyConfig) -> str:
    """That the share pays for too few trainings."""
    share = f"forecast.labels_share={config.forecast.labels_share:g}"
    return f"{share} pays for fewer than {LEAST} trainings with fewer labels: raise it, or give more labels"


def _portions(config: StudyConfig, budget: Budget, costs: Costs, task: TaskConfig) -> tuple[Portion, ...]:
    if why_no_curve(config, task):
        return ()
    arms = [arm for arm in label_learners(config, task) if arm.trains_on_task]
    size = costs.tasks[task.name]
    shares = [
        share
        for share in (0.5**power for power in range(1, HALVINGS + 1))
        if share * size.num_rows >= max(ROWS_PER_LABEL * size.num_labels, size.batch_rows)
        and all(_steps(budget, costs, task, arm, share) >= MIN_STEPS for arm in arms)
    ]
    able = [
        chosen
        for chosen in combinations(shares, LEAST)
        if share_of_flops(budget, costs, task, arms, chosen) <= config.forecast.labels_share
    ]
    if not able:
        return ()
    dearest = min(arms, key=lambda arm: _affordable_steps(budget, costs, task, arm), default=None)
    places = [_place(budget, costs, task, dearest, share) for share in (*shares, *ASKED)]
    left = LeftOpen.of(places, len(shares), LABEL_DOUBT.noise)
    best = min(able, key=lambda chosen: left([shares.index(share) for share in chosen]))
    return tuple(Portion(labels=share) for share in sorted(best))


def _place(budget: Budget, costs: Costs, task: TaskConfig, arm: Arm | None, share: float) -> Place:
    """Where a training with a share of the labels stands, beside the one with all of them."""
    if arm is None:
        return Place(share, share)
    size = costs.tasks[task.name]

    def worth(part: float) -> float:
        rows_read = _steps(budget, costs, task, arm, part) * size.batch_rows
        return read_once(part * size.num_rows, rows_read).read

    return Place(worth(share) / worth(1.0), worth(share) / worth(1.0))


def share_of_flops(
    budget: Budget, costs: Costs, task: TaskConfig, arms: Sequence[Arm], shares: Sequence[float]
) -> float:
    """What trainings with these shares of the labels take of the one with all, for the dearest arm."""
    whole = {arm: _steps(budget, costs, task, arm, 1.0) for arm in arms}
    each = [sum(_steps(budget, costs, task, arm, share) for share in shares) / whole[arm] for arm in arms]
    return max(each, default=sum(shares))


def label_flops(
    config: StudyConfig, budget: Budget, costs: Costs, task: TaskConfig, arm: Arm, portion: Portion
) -> float:
    """What a training with a share of the labels is predicted to learn with."""
    if not arm.trains_on_task:
        return 0.0
    steps = _steps(budget, costs, task, arm, portion.labels)
    return steps * costs.task_step(task, arm) + costs.task_scoring(task, arm, tuning=False)


def _steps(budget: Budget, costs: Costs, task: TaskConfig, arm: Arm, share: float) -> float:
    """Optimizer steps with a share of the labels: what the budget pays for, or all passes."""
    paid = _affordable_steps(budget, costs, task, arm)
    return max(0.0, min(paid, share * costs.task_steps_at_most(task, arm)))


def _affordable_steps(budget: Budget, costs: Costs, task: TaskConfig, arm: Arm) -> float:
    granted = budget.run(budget.on_task(arm.origin))
    return (granted - costs.task_scoring(task, arm, tuning=False)) / costs.task_step(task, arm)


def label_sentences(
    config: StudyConfig, budget: Budget, costs: Costs, portions: dict[str, tuple[Portion, ...]]
) -> list[str]:
    """What a dry run says of the labels: which shares, what they cost, what they can answer."""
    if not config.tasks:
        return []
    if not config.forecast.labels_share:
        return [f"labels: no forecast of other numbers of labels, {WITHOUT} (0.5 is usual)"]
    lines: list[str] = []
    for task in config.tasks:
        chosen = portions.get(task.name, ())
        if not chosen:
            why = why_no_curve(config, task) or why_too_few(config)
            lines.append(f"labels of {task.name}: no forecast, {why}")
            continue
        arms = label_learners(config, task)
        flops = [sum(label_flops(config, budget, costs, task, arm, each) for each in chosen) for arm in arms]
        shares = ", ".join(f"{100 * portion.labels:.3g}%" for portion in chosen)
        count = f"{len(chosen)} trainings more of each of {len(arms)} arms and seed, with {shares} of them"
        lines.append(f"labels of {task.name}: {count}; {max(flops):.2g} FLOPs at most beside the budget")
        lines.append(
            "  from them the runs with all labels are predicted before they begin; where that fails,"
        )
        reach = f"up to {reach_of(chosen):g} times yours, and what twice the labels buy each arm"
        lines.append(f"  nothing is forecast; else from how many labels training beats prompting, {reach}")
    return lines
