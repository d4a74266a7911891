"""The plan of a study: every stage, what it needs, and what it is predicted to cost.

    prepare -> tokenizer, base -> trials of each language job -> each language job, by seed and share of text
            -> trials of each arm on a task -> each arm on a task, by seed

Learning rates are tuned on the first seed and the whole domain text, then kept for every seed and share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.speed import Machine, measure
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import plan_path, result_path
from adaptkit.run import Run, read_json, write_json
from adaptkit.study.arms import Adaptation, Arm, Origin, TextJob, language_jobs
from adaptkit.study.base_model import base_shape
from adaptkit.study.budget import Budget, check_total, grant, steps_within
from adaptkit.study.config import StudyConfig
from adaptkit.study.stage_record import BASE, PREPARE, TOKENIZER, StageKey

OVERHEAD_S = 8.0  # start, tokenising and scoring of a stage, beside its FLOPs


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run."""

    budget: Budget
    machine: Machine
    stages: list[Stage]

    @property
    def flops(self) -> float:
        return sum(stage.flops for stage in self.stages)

    def finished(self, study: Path) -> set[StageKey]:
        """The stages that have left a result."""
        return {stage.key for stage in self.stages if result_path(study, stage.key).exists()}

    def seconds(self, stage: Stage) -> float:
        """Predicted wall time of one stage."""
        return stage.flops / self.machine.flops_per_second + OVERHEAD_S

    def as_json(self, study: Path) -> dict[str, Any]:
        finished = self.finished(study)
        rows = [
            {
                "id": stage.name,
                "describe": stage.describe,
                "flops": stage.flops,
                "seconds": round(self.seconds(stage), 1),
                "memory_bytes": self.machine.memory_bytes,
                "cached": stage.key in finished,
            }
            for stage in self.stages
        ]
        left = sum(self.seconds(stage) for stage in self.stages if stage.key not in finished)
        return {
            "stages": rows,
            "flops": self.flops,
            "seconds_left": round(left / self.machine.jobs),
            "budget": asdict(self.budget),
            "machine": asdict(self.machine),
        }


def make_plan(config: StudyConfig, run: Run) -> Plan:
    """The plan of `config`. What was measured for it stays with the study: a resumed one keeps its budget.

    Raises: BudgetError where the budget buys too little, or the study costs more than it may.
    """
    path = plan_path(run.path)
    if path.exists():
        measured = read_json(path)
        budget, machine = Budget(**measured["budget"]), Machine(**measured["machine"])
    else:
        machine = measure(config)
        budget = grant(
            config.budget,
            flops_per_token=machine.flops_per_token,
            flops_per_second=machine.flops_per_second,
            num_seeds=config.seeds,
            num_tasks=len(config.tasks),
        )
    _check_steps(config, budget, machine)
    if config.base and any(arm.origin is Origin.DISTILLED for arm in config.parsed_arms):
        check_distillable(config)
    plan = Plan(budget, machine, build_stages(config, budget))
    check_total(config.budget, plan.flops, machine.flops_per_token, machine.flops_per_second)
    if not path.exists():
        write_json(path, plan.as_json(run.path))
    return plan


def _check_steps(config: StudyConfig, budget: Budget, machine: Machine) -> None:
    """Raises: BudgetError where the shortest training would have too few steps to mean anything."""
    per_step = machine.flops_per_token * config.size.seq_len * config.trainer.global_batch_size
    if budget.trials > 1:
        steps_within(budget.language_trial, per_step, what="one learning-rate trial")
    share = config.fractions[0]
    steps_within(budget.language_main * share, per_step, what=f"a run on {share:.0%} of the text")
    if not any(arm.adaptation.trains for arm in config.parsed_arms):
        return
    shortest, what = (budget.task_trial, "one trial") if budget.trials > 1 else (budget.task_main, "a run")
    for task in config.tasks:
        per_step = task.task_kind.step_flops(task, base_shape(config)[0], machine.flops_per_token)
        steps_within(shortest, per_step, what=f"{what} on {task.name}")


def check_distillable(config: StudyConfig) -> None:
    """Refuse a base that no student can learn from, or whose student no server would run.

    Raises: ModelError, before anything is trained.
    """
    from transformers import AutoConfig

    from adaptkit.distill.shape import check_shape
    from adaptkit.models.sentence.pooling_files import check_mean_pooling

    folder = models.find(config.base)
    check_shape(AutoConfig.from_pretrained(folder, local_files_only=True).model_type)
    if models.model_kind(folder) == "encoder" and not teaching_jobs(config):
        check_mean_pooling(folder)


def build_stages(config: StudyConfig, budget: Budget) -> list[Stage]:
    """All stages of a study, each after what it needs."""
    stages = [
        Stage(PREPARE, "read, deduplicate, decontaminate and split the data"),
        Stage(TOKENIZER, "train the domain tokenizer", (PREPARE,)),
    ]
    if config.base:
        stages.append(Stage(BASE, "the generic model", (PREPARE,)))
    else:
        stages.append(Stage(BASE, "make the generic model", (PREPARE,), config.base_flops))
    for job in language_trainings(config):
        stages += _language_stages(config, budget, job)
    for task in config.tasks:
        stages.append(Stage(StageKey.for_baseline(task.name), f"baseline of {task.name}", (PREPARE,)))
        for arm in config.arms_on(task):
            stages += _task_stages(config, budget, task.name, arm)
    return stages


def language_trainings(config: StudyConfig) -> list[TextJob]:
    """The trainings on text of a study.

    Where the base gives no bits per byte, text is learnt only for tasks to start from.
    """
    scored = not config.base or models.model_kind(config.base) == "causal"
    return language_jobs([arm for arm in config.parsed_arms if scored or arm.origin_job])


def teaching_jobs(config: StudyConfig) -> list[TextJob]:
    """The trainings that may teach a student: of domain text, and for encoders with its tokenizer."""
    encoders = bool(config.base) and models.model_kind(config.base) in ("masked", "encoder")
    apart = {Origin.PLACEBO, Origin.DISTILLED} | ({Origin.SCRATCH} if encoders else set())
    return [job for job in language_trainings(config) if job.origin not in apart]


def num_trials(budget: Budget) -> int:
    """Learning rates that are tried in stages of their own: a single one needs no trial."""
    return budget.trials if budget.trials > 1 else 0


def _language_stages(config: StudyConfig, budget: Budget, job: TextJob) -> list[Stage]:
    def teachers(seed: int, share: float) -> tuple[StageKey, ...]:
        if job.origin is not Origin.DISTILLED:
            return ()
        return tuple(StageKey.for_language(other, seed=seed, share=share) for other in teaching_jobs(config))

    def stage(key: StageKey, what: str, flops: float, needs: tuple[StageKey, ...]) -> Stage:
        return Stage(key, f"{job.name}: {what}", (BASE, TOKENIZER, *needs), flops)

    trials = [
        stage(
            StageKey.for_language(job, trial=i),
            f"learning rate {i + 1} of {budget.trials}",
            budget.language_trial,
            teachers(0, 1.0),
        )
        for i in range(num_trials(budget))
    ]
    tuned = tuple(trial.key for trial in trials)
    shares = [1.0] if job.origin is Origin.PLACEBO else config.fractions
    runs = [
        stage(
            StageKey.for_language(job, seed=seed, share=share),
            f"seed {seed}, {share:.0%} of the text",
            budget.language_main * share,
            (*tuned, *teachers(seed, share)),
        )
        for share in reversed(shares)
        for seed in range(config.seeds)
    ]
    return trials + runs


def _task_stages(config: StudyConfig, budget: Budget, task: str, arm: Arm) -> list[Stage]:
    """Probe and prompt do their `trials` within the stage; trained adaptations get stages for them."""

    def stage(key: StageKey, what: str, flops: float, needs: tuple[StageKey, ...] = ()) -> Stage:
        origin = StageKey.for_language(arm.origin_job, seed=key.seed) if arm.origin_job else BASE
        return Stage(key, f"{arm.name} on {task}: {what}", (PREPARE, origin, *needs), flops)

    trials = [
        stage(
            StageKey.for_task(task, arm, trial=i),
            f"learning rate {i + 1} of {budget.trials}",
            budget.task_trial,
        )
        for i in range(num_trials(budget) if arm.adaptation.trains else 0)
    ]
    needs = tuple(trial.key for trial in trials)
    flops = budget.task_main if arm.adaptation.trains else 0.0
    first = stage(StageKey.for_task(task, arm, seed=0), "seed 0", flops, needs)
    if arm == Arm(Origin.GENERIC, Adaptation.PROBE):
        # Nothing is random in a probe of the base: the other seeds wait for the first and find its run.
        needs += (first.key,)
    others = [
        stage(StageKey.for_task(task, arm, seed=seed), f"seed {seed}", flops, needs)
        for seed in range(1, config.seeds)
    ]
    return [*trials, first, *others]
