"""The plan of a study: every stage, what it needs, and what it is predicted to cost.

    prepare -> tokenizer -> base -> tune.<job>.<i> -> language.<job>.s<seed>.f<fraction> ->
    tune.<task>.<arm>.<i>
            -> task.<task>.<arm>.s<seed>

Learning rates are tuned on the first seed and the whole domain text, then kept for every seed and fraction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adaptkit.compare.executor import Stage, result_path
from adaptkit.run import Run, read_json, write_json
from adaptkit.study.arms import TRAINABLE, Arm, job_adapter, language_jobs
from adaptkit.study.budget import Budget, check_total, grant, steps_within
from adaptkit.study.config import StudyConfig, TaskConfig

SAMPLE_ROWS, BYTES_PER_TOKEN = 200, 3.0
OVERHEAD_S = 8.0  # start, tokenising and scoring of a stage, beside its FLOPs


@dataclass(frozen=True)
class Machine:
    """What was measured before planning."""

    flops_per_token: float
    """Training FLOPs per token of the base model."""
    flops_per_second: float
    """Training speed of one job."""
    memory_bytes: float
    """Predicted peak memory of one training stage."""
    jobs: int
    """Stages at once."""


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run."""

    budget: Budget
    machine: Machine
    stages: list[Stage]

    @property
    def flops(self) -> float:
        return sum(stage.flops for stage in self.stages)

    def cached(self, study: Path) -> set[str]:
        return {stage.id for stage in self.stages if result_path(study, stage.id).exists()}

    def seconds(self, stages: list[Stage]) -> float:
        """Predicted wall time of `stages`."""
        work = sum(stage.flops / self.machine.flops_per_second + OVERHEAD_S for stage in stages)
        return work / self.machine.jobs

    def as_json(self, study: Path) -> dict[str, Any]:
        done = self.cached(study)
        rows = [
            {
                "id": s.id,
                "describe": s.describe,
                "flops": s.flops,
                "seconds": round(s.flops / self.machine.flops_per_second + OVERHEAD_S, 1),
                "memory_bytes": self.machine.memory_bytes,
                "cached": s.id in done,
            }
            for s in self.stages
        ]
        left = [s for s in self.stages if s.id not in done]
        return {
            "stages": rows,
            "flops": self.flops,
            "seconds_left": round(self.seconds(left)),
            "budget": asdict(self.budget),
            "machine": asdict(self.machine),
        }


def make_plan(config: StudyConfig, run: Run) -> Plan:
    """The plan of `config`; what was measured for it is kept with the study, so a resumed study keeps its
    budget.

    Raises: BudgetError where the budget buys too little, or the study costs more than it may.
    """
    path = run.path / "plan.json"
    if path.exists():
        kept = read_json(path)
        budget, machine = Budget(**kept["budget"]), Machine(**kept["machine"])
    else:
        from adaptkit.compare.speed import measure

        machine = measure(config)
        budget = grant(
            config.budget,
            flops_per_token=machine.flops_per_token,
            flops_per_second=machine.flops_per_second,
            num_seeds=config.seeds,
            num_tasks=len(config.tasks),
        )
    _check_steps(config, budget, machine)
    if config.base and any(arm.origin == "distilled" for arm in config.parsed_arms):
        from adaptkit.compare.stages.student import check_base

        check_base(config)
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
    steps_within(
        budget.language_main * config.fractions[0],
        per_step,
        what=f"a run on {config.fractions[0]:.0%} of the text",
    )
    if any(arm.adaptation in TRAINABLE for arm in config.parsed_arms):
        for task in config.tasks:
            shortest, what = (
                (budget.task_trial, "one trial") if budget.trials > 1 else (budget.task_main, "a run")
            )
            steps_within(shortest, _flops_per_step(config, task, machine), what=f"{what} on {task.name}")


def _flops_per_step(config: StudyConfig, task: TaskConfig, machine: Machine) -> float:
    """About what a fine-tuning step of the base on this task costs, from its first rows."""
    if task.kind == "retrieve":
        from adaptkit.compare.stages.retrieve import flops_per_step

        return flops_per_step(config, task)
    from adaptkit.data.readers import read
    from adaptkit.finetune.config import FinetuneConfig

    rows = read(task.train).rows[:SAMPLE_ROWS]
    length = sum(len(row.text.encode()) for row in rows) / len(rows) / BYTES_PER_TOKEN
    rows_per_step = FinetuneConfig.model_fields["trainer"].default.global_batch_size
    return machine.flops_per_token * min(length, task.max_length) * rows_per_step


def build_stages(config: StudyConfig, budget: Budget) -> list[Stage]:
    """All stages of a study, each after what it needs."""
    stages = [Stage("prepare", "prepare", "read, deduplicate, decontaminate and split the data")]
    stages.append(Stage("tokenizer", "tokenizer", "train the domain tokenizer", needs=("prepare",)))
    made = "" if config.base else "make "
    flops = 0.0 if config.base else config.base_flops
    stages.append(Stage("base", "base", f"{made}the generic model", needs=("prepare",), flops=flops))
    for job in language_trainings(config):
        stages += _language_stages(config, budget, job)
    for task in config.tasks:
        stages.append(
            Stage(
                f"baseline.{task.name}",
                "baseline",
                f"baseline of {task.name}",
                {"task": task.name},
                ("prepare",),
            )
        )
        for arm in arms_on(config, task):
            stages += _task_stages(config, budget, task.name, arm)
    return stages


def language_trainings(config: StudyConfig) -> list[str]:
    """The language trainings of a study. Where the base gives no bits per byte, text is learnt only for tasks
    to start from."""
    from adaptkit import models

    scored = not config.base or models.model_kind(config.base) == "causal"
    return language_jobs([arm for arm in config.parsed_arms if scored or arm.origin_job])


def teaching_jobs(config: StudyConfig) -> list[str]:
    """The language trainings whose models a student may learn from: those of domain text; of encoders, with
    one tokenizer."""
    from adaptkit import models

    encoders = bool(config.base) and models.model_kind(config.base) in ("masked", "encoder")
    apart = {"placebo", "distilled"} | ({"scratch"} if encoders else set())
    return [job for job in language_trainings(config) if job not in apart]


def arms_on(config: StudyConfig, task: TaskConfig) -> list[Arm]:
    """The arms that can learn a task: a probe gives labels or vectors, not text; a prompt gives no vectors."""
    unable = {"generate": ("probe",), "retrieve": ("prompt", "qlora")}.get(task.kind, ())
    return [arm for arm in config.parsed_arms if arm.adaptation not in unable]


def _language_stages(config: StudyConfig, budget: Budget, job: str) -> list[Stage]:
    def stage(
        stage_id: str,
        what: str,
        seed: int,
        fraction: float,
        flops: float,
        trial: int | None,
        needs: tuple = (),
    ) -> Stage:
        params = {"job": job, "seed": seed, "fraction": fraction, "flops": flops, "trial": trial}
        return Stage(stage_id, "language", f"{job}: {what}", params, ("base", "tokenizer", *needs), flops)

    def teachers(seed: int, share: float) -> tuple[str, ...]:
        return (
            tuple(language_id(other, seed, share) for other in teaching_jobs(config))
            if job == "distilled"
            else ()
        )

    tuning = [
        stage(
            f"tune.{job}.{i}",
            f"learning rate {i + 1} of {budget.trials}",
            0,
            1.0,
            budget.language_trial,
            i,
            teachers(0, 1.0),
        )
        for i in range(budget.trials if budget.trials > 1 else 0)
    ]
    tuned = tuple(tried.id for tried in tuning)
    return tuning + [
        stage(
            language_id(job, seed, share),
            f"seed {seed}, {share:.0%} of the text",
            seed,
            share,
            budget.language_main * share,
            None,
            (*tuned, *teachers(seed, share)),
        )
        for share in reversed([1.0] if job == "placebo" else config.fractions)
        for seed in range(config.seeds)
    ]


def _task_stages(config: StudyConfig, budget: Budget, task: str, arm: Arm) -> list[Stage]:
    """Probe and prompt do their `trials` within the stage; trained adaptations get tuning stages."""
    trained = arm.adaptation in TRAINABLE

    def stage(
        stage_id: str, what: str, seed: int, flops: float, trial: int | None, needs: tuple = ()
    ) -> Stage:
        params = {"task": task, "arm": arm.name, "seed": seed, "flops": flops, "trial": trial}
        origin = language_id(arm.origin_job, seed, 1.0) if arm.origin_job else "base"
        return Stage(
            stage_id, "task", f"{arm.name} on {task}: {what}", params, ("prepare", origin, *needs), flops
        )

    tuning = [
        stage(
            f"tune.{task}.{arm.name}.{i}",
            f"learning rate {i + 1} of {budget.trials}",
            0,
            budget.task_trial,
            i,
        )
        for i in range(budget.trials if trained and budget.trials > 1 else 0)
    ]
    needs = tuple(tried.id for tried in tuning)
    flops = budget.task_main if trained else 0.0
    first = stage(task_id(task, arm.name, 0), "seed 0", 0, flops, None, needs)
    # Nothing is random in a probe of the base: the other seeds wait for the first and find its run.
    needs += (first.id,) if arm.name == "generic+probe" else ()
    return (
        tuning
        + [first]
        + [
            stage(task_id(task, arm.name, seed), f"seed {seed}", seed, flops, None, needs)
            for seed in range(1, config.seeds)
        ]
    )


def language_id(job: str, seed: int, fraction: float) -> str:
    return f"language.{job}.s{seed}.f{fraction:g}"


def task_id(task: str, arm: str, seed: int) -> str:
    return f"task.{task}.{arm}.s{seed}"


def adapter_kind(config: StudyConfig, adaptation: str) -> str:
    """The adapter that `full`, `lora` or `qlora` means here: rsLoRA and DoRA stand in for LoRA where asked."""
    if adaptation == "lora" and config.adapter.kind in ("rslora", "dora"):
        return config.adapter.kind
    return "none" if adaptation == "full" else adaptation


def language_adapter(config: StudyConfig, job: str) -> str:
    return adapter_kind(config, job_adapter(job, config.continue_with))
