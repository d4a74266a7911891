"""Every stage of a study, and what it needs.

    prepare -> baselines
            -> tokenizer, base -> trials of each training on text -> each of them, by seed
                               -> trials of each arm on a task    -> each arm on a task, by seed

Learning rates are tuned on the first seed and the whole domain text, then kept for every seed. Where a study
forecasts, each training on the domain text is done with small portions of text and compute first; from those
its largest run is predicted, and begins when the prediction is written:

    trials -> portions -> forecast -> the run that is compared

Where it forecasts other numbers of labels, the arms of a task go the same way, with shares of the labels.

Where models from scratch are trained at other sizes too, these take their rate from the trials of the study's
own size.

Baselines come first: what word counts reach is known before any model trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    config: StudyConfig,
    budget: Budget,
    portions: Sequence[Portion] = (),
    rungs: Sequence[int] = (),
    fewer_labels: FewerLabels | None = None,
) -> list[Stage]:
    """All stages of a study, each after what it needs.

    Args:
        portions: what the smaller trainings have, by which is forecast.
        rungs: other sizes that models from scratch are trained at.
        fewer_labels: what arms are trained with on tasks, by which other numbers of labels are forecast.
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
        arms = sorted(config.arms_on(settings), key=lambda arm: arm.adaptation is Adaptation.RAG_LORA)
        on_task = [TaskTraining(config, budget, settings.name, arm) for arm in arms]
        shares = fewer_labels.portions.get(settings.name, ()) if fewer_labels else ()
        if fewer_labels is None or not shares:
            stages += [stage for one in on_task for stage in (*one.trials, *one.runs(()))]
        else:
            stages += _with_label_forecast(settings.name, on_task, fewer_labels)
    return stages


@dataclass(frozen=True)
class FewerLabels:
    """What arms are trained with on tasks, beside all of the labels.

    Attributes:
        portions: task -> shares of its labels.
        flops: what such a training is predicted to take, by task, arm and share.
    """

    portions: Mapping[str, Sequence[Portion]]
    flops: Callable[[str, Arm, Portion], float]


def _with_label_forecast(
    task: str, trainings: Sequence[TaskTraining], fewer_labels: FewerLabels
) -> list[Stage]:
    """The stages of a task whose trainings with all labels are predicted from those with fewer."""
    learning = [training for training in trainings if training.arm.learns_labels]
    small = [stage for training in learning for stage in training.small(fewer_labels)]
    key = StageKey.for_label_forecast(task)
    needs = (PREPARE, *(stage.key for stage in small))
    stages = [stage for training in learning for stage in training.trials]
    stages += [*small, Stage(key, f"{task}: predict the runs with all labels from those with fewer", needs)]
    for training in trainings:
        if training in learning:
            stages += training.runs((key,))
        else:
            stages += [*training.trials, *training.runs(())]
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


@dataclass(frozen=True)
class TaskTraining:
    """The stages of one arm on one task; probe and prompt do their trials within the stage."""

    config: StudyConfig
    budget: Budget
    task: str
    arm: Arm

    @property
    def granted(self) -> float:
        """FLOPs for the task, trials included."""
        return self.budget.on_task(self.arm.origin) if self.arm.trains_on_task else 0.0

    @cached_property
    def trials(self) -> list[Stage]:
        """Its learning rates; none for what trains no weights."""
        if not self.arm.trains_on_task:
            return []
        return _trials(
            self.budget,
            lambda number, what, tuned: self._stage(
                StageKey.for_task(self.task, self.arm, trial=number),
                what,
                self.budget.trial(self.granted),
                tuned,
            ),
        )

    def small(self, fewer_labels: FewerLabels) -> list[Stage]:
        """Its trainings with fewer labels."""
        return [
            self._stage(
                StageKey.for_task(self.task, self.arm, seed=seed, portion=portion),
                f"seed {seed}, {portion.title}",
                fewer_labels.flops(self.task, self.arm, portion),
                self._tuned,
            )
            for portion in fewer_labels.portions[self.task]
            for seed in range(self.config.seeds)
        ]

    def runs(self, predicted: tuple[StageKey, ...]) -> list[Stage]:
        """The runs that are compared.

        Args:
            predicted: what has to be written before they begin.
        """
        needs = (*self._tuned, *predicted)
        first, *others = (
            StageKey.for_task(self.task, self.arm, seed=seed) for seed in range(self.config.seeds)
        )
        # Nothing is random in a probe of the base: the other seeds wait for the first and find its run.
        later = (*needs, first) if self.arm.is_fixed else needs
        granted = self.budget.run(self.granted)
        return [
            self._stage(first, "seed 0", granted, needs),
            *(self._stage(key, f"seed {key.seed}", granted, later) for key in others),
        ]

    @property
    def _tuned(self) -> tuple[StageKey, ...]:
        return tuple(trial.key for trial in self.trials)

    def _stage(self, key: StageKey, what: str, flops: float, needs: tuple[StageKey, ...]) -> Stage:
        origin: tuple[StageKey, ...] = (BASE,) if self.arm.origin.has_weights else ()
        if self.arm.origin.learns_text:
            text = self.arm.text_of(self.task)
            origin = (StageKey.for_language(self.arm.origin, seed=key.seed, task=text),)
        chooser = choosing_lookup(self.config, self.task, self.arm)
        chosen = () if chooser is None else (StageKey.for_task(self.task, chooser, seed=0),)
        title = f"{self.arm.name} on {self.task}: {what}"
        return Stage(key, title, (PREPARE, *origin, *chosen, *needs), flops)


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
