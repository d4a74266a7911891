"""Every stage of a study, and what it needs.

    prepare -> baselines
            -> tokenizer, base -> trials of each training on text -> each of them, by seed
                               -> trials of each arm on a task    -> each arm on a task, by seed

Learning rates are tuned on the first seed and the whole domain text, then kept for every seed. Where a study
forecasts, each training on the domain text is done with small portions of text and compute first; from those
its largest run is predicted, and begins when the prediction is written:

    trials -> portions -> forecast -> the run that is compared

Where models from scratch are trained at other sizes too, these take their rate from the trials of the study's
own size.

Baselines come first: what word counts reach is known before any model trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from adaptkit import models
from adaptkit.compare.stage import Stage
from adaptkit.study.arms import Adaptation, Arm, Origin, text_trainings
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import Portion
from adaptkit.study.stage_record import BASE, FORECAST, PREPARE, TOKENIZER, StageKey


def build_stages(
    config: StudyConfig, budget: Budget, portions: Sequence[Portion] = (), rungs: Sequence[int] = ()
) -> list[Stage]:
    """All stages of a study, each after what it needs.

    Args:
        portions: what the smaller trainings have, by which is forecast.
        rungs: other sizes that models from scratch are trained at.
    """
    stages = [Stage(PREPARE, "read, deduplicate, decontaminate and split the data")]
    for settings in config.tasks:
        what = f"{settings.name}: answers without a language model"
        stages.append(Stage(StageKey.for_baseline(settings.name), what, (PREPARE,)))
    stages.append(Stage(TOKENIZER, "train the domain tokenizer", (PREPARE,)))
    if config.base:
        stages.append(Stage(BASE, "score the generic model as it is", (PREPARE,)))
    else:
        stages.append(Stage(BASE, "make and score the generic model", (PREPARE,), config.base_flops))
    trainings = [TextTraining(config, budget, origin, task) for origin, task in trained_texts(config)]
    forecast = [training for training in trainings if portions and training.origin.has_law]
    if forecast:
        small = [stage for training in forecast for stage in training.small(portions)]
        stages += [stage for training in forecast for stage in training.trials]
        needs = (PREPARE, *(stage.key for stage in small))
        stages += [*small, Stage(FORECAST, "predict the largest runs from the smaller ones", needs)]
    for training in trainings:
        if training not in forecast:
            stages += training.trials
        stages += training.runs(predicted=training in forecast)
        stages += training.at_sizes(rungs)
    for settings in config.tasks:
        for arm in sorted(config.arms_on(settings), key=lambda arm: arm.adaptation is Adaptation.RAG_LORA):
            stages += _task_stages(config, budget, settings.name, arm)
    return stages


def scores_text(config: StudyConfig) -> bool:
    """Whether the study's models give bits per byte: masked ones do not."""
    return not config.base or models.model_kind(config.base) == "causal"


def language_trainings(config: StudyConfig) -> list[Origin]:
    """The trainings on text of a study.

    Where the base gives no bits per byte, text is learnt only for tasks to start from.
    """
    return text_trainings(config.parsed_arms if scores_text(config) else config.job_arms)


def trained_texts(config: StudyConfig) -> list[tuple[Origin, str | None]]:
    """The trainings on text, and for those on the text of a task's rows the task: one for each."""
    trained: list[tuple[Origin, str | None]] = []
    for origin in language_trainings(config):
        if not origin.per_task:
            trained.append((origin, None))
            continue
        for task in config.tasks:
            if any(arm.origin is origin for arm in config.arms_on(task)):
                trained.append((origin, task.name))
    return trained


def teaching_origins(config: StudyConfig) -> list[Origin]:
    """The trainings that may teach a student: of domain text, and for encoders with its tokenizer."""
    encoders = bool(config.base) and models.model_kind(config.base) in ("masked", "encoder")
    teaching = [origin for origin in language_trainings(config) if origin is not Origin.DISTILLED]
    return [
        origin for origin in teaching if origin.learns_domain and not (encoders and origin.own_vocabulary)
    ]


@dataclass(frozen=True)
class TextTraining:
    """The stages of one training on text."""

    config: StudyConfig
    budget: Budget
    origin: Origin
    task: str | None = None

    @property
    def granted(self) -> float:
        """FLOPs of the run that is compared, for each seed."""
        return self.budget.run(self.budget.text)

    @cached_property
    def trials(self) -> list[Stage]:
        """Its learning rates."""
        return _trials(
            self.budget,
            lambda number, what, tuned: self._stage(
                StageKey.for_language(self.origin, trial=number, task=self.task),
                what,
                self.budget.trial(self.budget.text),
                tuned,
            ),
        )

    def small(self, portions: Sequence[Portion]) -> list[Stage]:
        """Its smaller trainings."""
        return [
            self._stage(
                StageKey.for_language(self.origin, seed=seed, portion=portion),
                f"seed {seed}, {portion.title}",
                self.granted * portion.compute,
                self._tuned,
            )
            for portion in portions
            for seed in range(self.config.seeds)
        ]

    def runs(self, *, predicted: bool) -> list[Stage]:
        """The runs that are compared.

        Args:
            predicted: they begin when what the smaller trainings say of them is written.
        """
        needs = (*self._tuned, FORECAST) if predicted else self._tuned
        return [
            self._stage(
                StageKey.for_language(self.origin, seed=seed, task=self.task),
                f"seed {seed}, all of the text",
                self.granted,
                needs,
            )
            for seed in range(self.config.seeds)
        ]

    def at_sizes(self, rungs: Sequence[int]) -> list[Stage]:
        """The same training of other sizes, where it starts from random weights."""
        if not self.origin.starts_random:
            return []
        return [
            self._stage(
                StageKey.for_language(self.origin, seed=seed, size=size),
                f"seed {seed}, {size / 1e6:g}M parameters",
                self.granted,
                self._tuned,
            )
            for size in rungs
            for seed in range(self.config.seeds)
        ]

    @property
    def _tuned(self) -> tuple[StageKey, ...]:
        return tuple(trial.key for trial in self.trials)

    def _stage(self, key: StageKey, what: str, flops: float, needs: tuple[StageKey, ...]) -> Stage:
        title = self.origin if self.task is None else f"{self.origin} on the text of {self.task}"
        needs = (PREPARE, BASE, TOKENIZER, *needs, *_teachers(self.config, key))
        return Stage(key, f"{title}: {what}", needs, flops)


def _teachers(config: StudyConfig, key: StageKey) -> tuple[StageKey, ...]:
    """The models that a student of this stage may learn from."""
    if key.origin is not Origin.DISTILLED:
        return ()
    others = teaching_origins(config)
    return tuple(StageKey.for_language(other, seed=key.seed) for other in others)


def choosing_lookup(config: StudyConfig, task: str, arm: Arm) -> Arm | None:
    """The arm that chooses on development rows how one that is trained with passages looks them up: the same
    model, or the base, asked with passages; None where neither is in the study."""
    if arm.adaptation is not Adaptation.RAG_LORA:
        return None
    running = config.arms_on(config.task(task))
    asked = [Arm(origin, Adaptation.RAG) for origin in (arm.origin, Origin.GENERIC)]
    return next((other for other in asked if other in running), None)


def _task_stages(config: StudyConfig, budget: Budget, task: str, arm: Arm) -> list[Stage]:
    """Probe and prompt do their trials within the stage; trained adaptations get stages for them."""
    granted = budget.on_task(arm.origin) if arm.trains_on_task else 0.0
    chooser = choosing_lookup(config, task, arm)
    chosen = () if chooser is None else (StageKey.for_task(task, chooser, seed=0),)

    def stage(key: StageKey, what: str, flops: float, needs: tuple[StageKey, ...] = ()) -> Stage:
        origin = (BASE,) if arm.origin.has_weights else ()
        if arm.origin.learns_text:
            origin = (StageKey.for_language(arm.origin, seed=key.seed, task=arm.text_of(task)),)
        return Stage(key, f"{arm.name} on {task}: {what}", (PREPARE, *origin, *chosen, *needs), flops)

    trials = []
    if arm.trains_on_task:
        trials = _trials(
            budget,
            lambda number, what, tuned: stage(
                StageKey.for_task(task, arm, trial=number), what, budget.trial(granted), tuned
            ),
        )
    needs = tuple(trial.key for trial in trials)
    first = stage(StageKey.for_task(task, arm, seed=0), "seed 0", budget.run(granted), needs)
    if arm.is_fixed:
        # Nothing is random in a probe of the base: the other seeds wait for the first and find its run.
        needs += (first.key,)
    others = [
        stage(StageKey.for_task(task, arm, seed=seed), f"seed {seed}", budget.run(granted), needs)
        for seed in range(1, config.seeds)
    ]
    return [*trials, first, *others]


class _TrialStage(Protocol):
    def __call__(self, number: int, what: str, needs: tuple[StageKey, ...]) -> Stage: ...


def _trials(budget: Budget, stage: _TrialStage) -> list[Stage]:
    """The trials of a training: those of the grid, and one more whose rate follows from them."""
    if not budget.num_trials:
        return []
    num = budget.num_trials
    grid = [stage(i, f"learning rate {i + 1} of {num}", ()) for i in range(budget.trials)]
    last = stage(budget.trials, f"learning rate {num} of {num}", tuple(trial.key for trial in grid))
    return [*grid, last]
