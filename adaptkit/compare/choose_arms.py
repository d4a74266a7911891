"""Which arms a study runs: those that it names, or every one that its data and budget allow.

An arm that cannot be run is left out with the reason where arms are chosen, and refused where it was named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaptkit.compare.build_stages import scores_text
from adaptkit.compare.costs import Costs
from adaptkit.compare.usable_base import why_base_cannot, why_not_on
from adaptkit.errors import ConfigError, ModelError
from adaptkit.models.capabilities import Capabilities
from adaptkit.study.account_record import LeftOutRecord
from adaptkit.study.arms import Adaptation, Arm, Origin, with_text_arms
from adaptkit.study.budget import MIN_STEPS, Budget, steps_within, times_too_small
from adaptkit.study.config import LANGUAGE, StudyConfig, learns
from adaptkit.study.mixture import domain_share, why_no_mixture
from adaptkit.study.task import TaskConfig
from adaptkit.study.task_size import BYTES_PER_TOKEN

TEXT_ARMS = (
    *(Origin.CONTINUED, Origin.CONTINUED_LORA, Origin.CONTINUED_VOCABULARY),
    *(Origin.MIXED, Origin.SCRATCH, Origin.PLACEBO),
)
LOOKS_UP = Arm(Origin.GENERIC, Adaptation.RAG)
TRAINED_LOOKING_UP = Arm(Origin.GENERIC, Adaptation.RAG_LORA)
API_LOOKING_UP = Arm(Origin.API, Adaptation.RAG)
SEARCHING_ARMS = (Arm(Origin.GENERIC, Adaptation.HYBRID), Arm(Origin.GENERIC, Adaptation.RERANK))
JOB_ARMS = (
    Arm(Origin.GENERIC, Adaptation.PROMPT),
    LOOKS_UP,
    Arm(Origin.GENERIC, Adaptation.PROBE),
    Arm(Origin.GENERIC, Adaptation.LORA),
    TRAINED_LOOKING_UP,
    Arm(Origin.GENERIC, Adaptation.FULL),
    Arm(Origin.CONTINUED, Adaptation.FULL),
    Arm(Origin.MIXED, Adaptation.FULL),
    Arm(Origin.SCRATCH, Adaptation.FULL),
    Arm(Origin.TAPT, Adaptation.FULL),
    Arm(Origin.PLACEBO, Adaptation.FULL),
)
"""What is run where no arms are named; continued-vocabulary only where it has entries to add. Distilled
students and 4-bit bases are for those who ask for them."""


@dataclass(frozen=True)
class Choice:
    """The arms of a study, and those that are left out.

    Attributes:
        config: the study's; each task does without the arms that the base gives no start on it.
    """

    config: StudyConfig
    arms: tuple[Arm, ...]
    left_out: tuple[LeftOutRecord, ...]


@dataclass(frozen=True)
class Training:
    """The shortest training of an arm, on text or on a task."""

    what: str
    flops: float
    step: float
    scoring: float

    @property
    def too_small_by(self) -> float:
        """How many times as much it would need; at most 1 where it has enough."""
        return times_too_small(self.flops, self.step, self.scoring)

    def check(self) -> None:
        """Raises: BudgetError where too few steps are paid for to mean anything."""
        left = max(0.0, self.flops - self.scoring)
        steps_within(left, self.step, what=self.what, needs=self.too_small_by)


def choose_arms(
    config: StudyConfig, budget: Budget, costs: Costs, base: Capabilities | None = None
) -> Choice:
    """The arms that a study runs.

    Raises: BudgetError for a named arm whose trainings would be too short, or where none that trains is left;
        ConfigError for a named arm that gives nothing to score; ModelError for one that the base gives no
        start.
    """
    if config.arms:
        return _named(config, budget, costs, base)
    wanted = list(_without(config, _by_default(config)))
    asked, config = config, _for_base(config, base, wanted)
    left_out: list[LeftOutRecord] = []
    if config.api is not None and looks_up(config):
        reason = "it sends passages of your text to the API: name it in `arms` to run it"
        left_out.append(LeftOutRecord(arm=API_LOOKING_UP.name, reason=reason))
    arms: list[Arm] = []
    for arm in wanted:
        reason = why_not(asked, arm, base) or _too_expensive(config, budget, costs, arm)
        if arm.origin is Origin.MIXED:
            reason = reason or _no_mixture(config, budget, costs)
        if arm.origin.per_task:
            reason = reason or _too_little_text(config, costs, arm)
        if reason:
            left_out.append(LeftOutRecord(arm=arm.name, reason=reason))
        else:
            arms.append(arm)
            left_out += _on_some_tasks(asked, base, arm)
    if not any(arm.origin.learns_text or arm.trains_on_task for arm in arms):
        for arm in wanted:
            for training in trainings(config, budget, costs, arm):
                training.check()
    return _choice(config, arms, left_out)


def _by_default(config: StudyConfig) -> list[Arm]:
    """What a study that names no arms would run."""
    wanted = [Arm(origin) for origin in TEXT_ARMS]
    if not config.extend_vocabulary:
        wanted.remove(Arm(Origin.CONTINUED_VOCABULARY))
    if config.tasks:
        wanted += [arm for arm in JOB_ARMS if not arm.looks_up or looks_up(config)]
    if any(task.task_kind.searches for task in config.tasks):
        wanted += SEARCHING_ARMS
    if config.tasks and config.api is not None:
        wanted.append(Arm(Origin.API, Adaptation.PROMPT))
    return wanted


def looks_up(config: StudyConfig) -> bool:
    """Whether an arm that looks passages up is run unasked: for answers in free text by a causal base that is
    given, and wherever `rag` is set."""
    if config.rag is not None:
        return True
    writes = any(task.task_kind.family == "generate" for task in config.tasks)
    return writes and bool(config.base) and scores_text(config)


def _named(config: StudyConfig, budget: Budget, costs: Costs, base: Capabilities | None) -> Choice:
    arms = list(_without(config, [Arm.parse(name) for name in config.arms]))
    asked, config = config, _for_base(config, base, arms)
    left_out: list[LeftOutRecord] = []
    for arm in arms:
        if arm.ledger == "text" and (reason := why_not(asked, arm)):
            raise ConfigError(
                f"arm '{arm.name}': {reason}", where="arms", fix="name arms on a task, or leave it out"
            )
        if reason := why_base_cannot(asked, base, arm):
            raise ModelError(f"arm '{arm.name}': {reason}", where="arms", fix="leave it out")
        for training in trainings(config, budget, costs, arm):
            training.check()
        left_out += _on_some_tasks(asked, base, arm)
    return _choice(config, arms, left_out)


def _choice(config: StudyConfig, arms: list[Arm], left_out: list[LeftOutRecord]) -> Choice:
    """Raises: ModelError where no arm learns the task that decides."""
    decides = config.decides
    refused = decides != LANGUAGE and config.task(decides).without
    if refused and not any(config.task(decides) in config.tasks_of(arm) for arm in arms):
        reasons = {row.reason: row.arm for row in left_out if row.task in (decides, None)}
        why = "; ".join(f"{arm}: {reason}" for reason, arm in reasons.items())
        fix = "set `primary` to a task that some arm learns, take this one out, or choose another base"
        raise ModelError(f"no arm learns the task that decides ({why})", where=f"tasks.{decides}", fix=fix)
    return Choice(config, _complete(config, arms), tuple(left_out))


def _for_base(config: StudyConfig, base: Capabilities | None, arms: Sequence[Arm]) -> StudyConfig:
    """The study whose tasks do without the arms that the base gives no start on them."""
    refused = {arm.name: why_not_on(config, base, arm) for arm in arms}
    tasks = [
        task.model_copy(
            update={"without": [*task.without, *(arm for arm in refused if task.name in refused[arm])]}
        )
        for task in config.tasks
    ]
    return config.model_copy(update={"tasks": tasks})


def _without(config: StudyConfig, arms: list[Arm]) -> Iterator[Arm]:
    """The arms that the user did not take out, by name or by origin."""
    unwanted = set(config.without)
    return (arm for arm in arms if not unwanted & {arm.name, arm.origin.value})


def _complete(config: StudyConfig, arms: list[Arm]) -> tuple[Arm, ...]:
    """With the arms of the text ledger, where the study has one."""
    complete = with_text_arms(arms)
    return tuple(arm for arm in complete if arm.ledger == "jobs" or scores_text(config))


def why_not(config: StudyConfig, arm: Arm, base: Capabilities | None = None) -> str:
    """Why an arm gives nothing to score, or cannot start from the base; empty where it can."""
    if arm.adaptation is None and not scores_text(config):
        return "a masked base gives no bits per byte"
    if arm.adaptation is not None and not config.tasks_of(arm):
        return _cannot_learn(arm, config.tasks)
    return why_base_cannot(config, base, arm)


def _on_some_tasks(config: StudyConfig, base: Capabilities | None, arm: Arm) -> Iterator[LeftOutRecord]:
    """The tasks that an arm does not learn, and why."""
    reasons = why_not_on(config, base, arm)
    for task in config.tasks if arm.adaptation else []:
        if not learns(task, arm):
            reasons[task.name] = _cannot_learn(arm, [task])
        elif arm.name in task.without:
            reasons[task.name] = "the task's `without` names it"
    for name, reason in reasons.items():
        yield LeftOutRecord(arm=arm.name, task=name, reason=reason)


def _cannot_learn(arm: Arm, tasks: Sequence[TaskConfig]) -> str:
    """Why an arm learns none of these tasks."""
    kinds = ", ".join(sorted({task.kind for task in tasks}))
    if arm.origin.per_task and not any(task.task_kind.has_own_text for task in tasks):
        return f"the rows of tasks of kind {kinds} are no texts to pretrain on"
    return f"{arm.adaptation} gives no answers to tasks of kind {kinds}"


def _too_expensive(config: StudyConfig, budget: Budget, costs: Costs, arm: Arm) -> str:
    """What the budget lacks for an arm; empty where it is enough."""
    found = list(trainings(config, budget, costs, arm))
    worst = max(found, key=lambda training: training.too_small_by, default=None)
    if worst is None or worst.too_small_by <= 1:
        return ""
    amount = config.budget.amount * worst.too_small_by
    return f"{worst.what} would be too short: it needs budget.amount={amount:.2g}"


def _too_little_text(config: StudyConfig, costs: Costs, arm: Arm) -> str:
    """Why the rows of a task are too little text to pretrain on; empty where they are enough."""
    for task in config.tasks_of(arm):
        num_steps = int(costs.text_most(arm.origin, task.name) // costs.text_step(arm.origin))
        if num_steps < MIN_STEPS:
            passes = f"{config.tapt.repetitions:g} passes over the text of {task.name}"
            return f"{passes} are {num_steps} steps of training, and at least {MIN_STEPS} are needed"
    return ""


def _no_mixture(config: StudyConfig, budget: Budget, costs: Costs) -> str:
    """Why the study's texts make no mixture for the tokens that are paid for; empty where they do."""
    num_tokens = costs.text_tokens(Origin.MIXED, budget.run(budget.text))
    domain, general = (num_bytes / BYTES_PER_TOKEN for num_bytes in (costs.texts.domain, costs.texts.general))
    share = domain_share(config.mixed, num_tokens, domain)
    return why_no_mixture(config.mixed, share, (1 - share) * num_tokens / general)


def trainings(config: StudyConfig, budget: Budget, costs: Costs, arm: Arm) -> Iterator[Training]:
    """The shortest training on text, and on each task, that an arm needs."""
    tuned = budget.num_trials > 0
    tasks = [task.name for task in config.tasks_of(arm)] if arm.origin.per_task else [None]
    for task_name in tasks if arm.origin.learns_text else []:
        text = "the text" if task_name is None else f"the text of {task_name}"
        shortest = Training(
            f"a run of {arm.origin} on {text}",
            budget.run(budget.text),
            costs.text_step(arm.origin),
            costs.text_scoring(arm.origin, task_name),
        )
        yield shortest
        if tuned:
            trial = budget.trial(budget.text)
            yield dataclasses.replace(shortest, what=f"one learning-rate trial of {arm.origin}", flops=trial)
    if arm.trains_on_task:
        for task in config.tasks_of(arm):
            yield _shortest_on_task(budget, costs, task, arm, tuned)


def _shortest_on_task(budget: Budget, costs: Costs, task: TaskConfig, arm: Arm, tuned: bool) -> Training:
    granted = budget.on_task(arm.origin)
    flops = budget.trial(granted) if tuned else budget.run(granted)
    what = f"{'one trial' if tuned else 'a run'} of {arm.name} on {task.name}"
    return Training(what, flops, costs.task_step(task, arm), costs.task_scoring(task, arm, tuning=tuned))
