"""The plan of a study: which arms it runs, every stage, and what each is predicted to cost.

What makes a study's runs what they are (budget in FLOPs, arms, lengths) is decided at its first start and
kept in plan.json; this machine's speed is measured anew at every start. A dry run keeps nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from adaptkit import models
from adaptkit.compare.build_stages import FewerLabels, build_stages, teaching_origins
from adaptkit.compare.choose_arms import choose_arms
from adaptkit.compare.choose_labels import choose_label_portions, label_flops, label_sentences
from adaptkit.compare.choose_portions import choose_portions, forecast_sentences
from adaptkit.compare.choose_sizes import choose_rungs, size_sentences
from adaptkit.compare.costs import Costs, text_sizes
from adaptkit.compare.fixed import Fixed, read_fixed, write_fixed
from adaptkit.compare.gpu_share import with_gpus
from adaptkit.compare.lost_text import cut_sentences, lossy_tokenizers
from adaptkit.compare.outgoing import Outgoing, check_ceiling, outgoing, outgoing_json
from adaptkit.compare.predict import Predictor, wall_seconds
from adaptkit.compare.settles import settled_by
from adaptkit.compare.speed import Machine, measure
from adaptkit.compare.stage import Stage
from adaptkit.compare.usable_base import check_base
from adaptkit.compare.workspace import plan_path, result_path
from adaptkit.distill.shape import check_shape
from adaptkit.errors import ConfigError
from adaptkit.models.capabilities import Capabilities
from adaptkit.models.sentence.pooling_files import check_mean_pooling
from adaptkit.run import Run
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.base_model import base_shape, max_lengths
from adaptkit.study.budget import Budget, check_total, grant
from adaptkit.study.config import LANGUAGE, StudyConfig
from adaptkit.study.forecast_record import WHOLE, Portion
from adaptkit.study.stage_record import StageKey, StageKind

GPUS = (1, 2, 4, 8)
"""Numbers of GPUs that a dry run says the time for, on a machine that has some."""


@dataclass(frozen=True)
class Plan:
    """Stages in an order in which they can run.

    Attributes:
        config: the study's, with its arms and lengths.
        fixed: what a resumed study keeps.
        measured: what it was made from.
    """

    config: StudyConfig
    fixed: Fixed
    measured: Measured
    stages: list[Stage]
    predictor: Predictor

    @property
    def machine(self) -> Machine:
        return self.measured.machine

    @property
    def budget(self) -> Budget:
        return self.fixed.budget

    @property
    def flops(self) -> float:
        return sum(stage.flops for stage in self.stages)

    @property
    def outgoing(self) -> list[Outgoing]:
        """What goes to an API."""
        sizes = self.predictor.costs.tasks
        return list(outgoing(self.config, sizes, self.budget.settings_tried))

    def finished(self, study: Path) -> set[StageKey]:
        """The stages that have left a result."""
        return {stage.key for stage in self.stages if result_path(study, stage.key).exists()}

    def seconds(self, stage: Stage) -> float:
        """Predicted wall time of one stage."""
        return self.predictor.seconds(stage)

    def seconds_left(self, finished: set[StageKey], jobs: int = 0) -> float:
        """Predicted wall time of the stages that are not finished, with so many at once (0: as planned)."""
        left = [stage for stage in self.stages if stage.key not in finished]
        return wall_seconds(left, self.seconds, jobs or self.machine.jobs)


@dataclass(frozen=True)
class Measured:
    """What a plan is made from: the study, this machine, and what everything costs.

    Attributes:
        config: the study's, with the lengths of its tasks.
        base: what the generic model can be used for; None for one that is made on the spot.
        base_budgets: what making that one costs, in budgets of an arm; 0 leaves it as the config says.
    """

    config: StudyConfig
    base: Capabilities | None
    machine: Machine
    costs: Costs
    base_budgets: float = 0.0

    def under(self, amount: float) -> Measured:
        """The same study under another budget."""
        budget = self.config.budget.model_copy(update={"amount": amount})
        base_flops = self.base_budgets * amount or self.config.base_flops
        config = self.config.model_copy(update={"budget": budget, "base_flops": base_flops})
        return dataclasses.replace(self, config=config, costs=self.costs.under(config))

    def decide(self) -> Fixed:
        """Choose the arms under the study's budget.

        Raises: BudgetError where it buys too little.
        """
        config = self.config
        budget = grant(
            config.budget,
            flops_per_token=self.machine.flops_per_token,
            flops_per_second=self.machine.flops_per_second,
            num_seeds=config.seeds,
            has_tasks=bool(config.tasks),
        )
        choice = choose_arms(config, budget, self.costs, self.base)
        config = choice.config
        lengths = {task.name: task.max_length for task in config.tasks}
        without = {task.name: tuple(task.without) for task in config.tasks}
        portions = choose_portions(config, budget, self.costs, choice.arms)
        names = tuple(arm.name for arm in choice.arms)
        rungs = choose_rungs(config, budget, self.costs, choice.arms)
        chosen = config.model_copy(update={"arms": list(names)})
        labels = choose_label_portions(chosen, budget, self.costs)
        return Fixed(budget, names, lengths, without, choice.left_out, portions, rungs, labels)

    def plan(self, fixed: Fixed) -> Plan:
        """The plan once arms and budget are decided."""
        config = fixed.applied_to(self.config)

        def flops(task: str, arm: Arm, portion: Portion) -> float:
            return label_flops(config, fixed.budget, self.costs, config.task(task), arm, portion)

        fewer_labels = FewerLabels(fixed.label_portions, flops)
        stages = build_stages(config, fixed.budget, fixed.portions, fixed.rungs, fewer_labels)
        stages = with_gpus(stages, config, self.costs, self.machine)
        predictor = Predictor(config, self.machine, fixed.budget, self.costs)
        return Plan(config, fixed, self, stages, predictor)


def measure_study(config: StudyConfig) -> Measured:
    """Read what a study would read, and measure this machine with its models.

    Raises: ConfigError for lengths that a model has no positions for; ModelError for a base that no arm can
        start from.
    """
    for own in (task.own_metric for task in config.tasks):
        if own is not None:
            own.check()
    base = check_base(config)
    shape, kind = base_shape(config)
    if kind == "masked" and config.decides == LANGUAGE:
        raise ConfigError(
            "a masked base gives no bits per byte, so it cannot decide on language",
            where="primary",
            fix="name a labelled task as `primary`",
        )
    lengths = max_lengths(config, shape)
    tasks = [task.model_copy(update={"max_length": lengths[task.name]}) for task in config.tasks]
    config = config.model_copy(update={"tasks": tasks})
    machine = measure(config, shape, kind)
    sizes = {task.name: task.task_kind.size(task) for task in tasks}
    return Measured(config, base, machine, Costs(config, shape, kind, text_sizes(config), sizes))


def make_plan(config: StudyConfig, run: Run) -> Plan:
    """The plan of `config`; nothing is written.

    Raises: BudgetError where the budget buys too little, or the study costs more than it may; ConfigError for
        lengths that a model has no positions for, and for arms that give nothing to score; ModelError for a
        base that no arm can start from.
    """
    measured = measure_study(config)
    path = plan_path(run.path)
    fixed = read_fixed(path) if path.exists() else measured.decide()
    plan = measured.plan(fixed)
    if config.base and any(arm.origin is Origin.DISTILLED for arm in plan.config.parsed_arms):
        check_distillable(plan.config)
    machine = plan.machine
    check_total(config.budget, plan.flops, machine.flops_per_token, machine.flops_per_second)
    check_ceiling(plan.config, plan.outgoing)
    return plan


def keep_plan(plan: Plan, study: Path) -> Plan:
    """Write down what a resumed study keeps, and what was predicted at the first start."""
    if plan_path(study).exists():
        return plan
    predicted: dict[str, float] = {}
    for stage in plan.stages:
        kind = stage.key.kind.value
        predicted[kind] = predicted.get(kind, 0.0) + plan.seconds(stage)
    fixed = dataclasses.replace(plan.fixed, predicted=predicted, predicted_seconds=plan.seconds_left(set()))
    write_fixed(plan_path(study), fixed)
    return dataclasses.replace(plan, fixed=fixed)


def check_distillable(config: StudyConfig) -> None:
    """Refuse a base that no student can learn from, or whose student no server would run.

    Raises: ModelError, before anything is trained.
    """
    folder = models.find(config.base)
    check_shape(AutoConfig.from_pretrained(folder, local_files_only=True).model_type)
    if models.model_kind(folder) == "encoder" and not teaching_origins(config):
        check_mean_pooling(folder)


def plan_json(plan: Plan, study: Path) -> dict[str, Any]:
    """What a dry run says."""
    finished = plan.finished(study)
    stages = [
        {
            "id": stage.name,
            "describe": stage.describe,
            "flops": stage.flops,
            "seconds": round(plan.seconds(stage), 1),
            "memory_bytes": plan.machine.memory_bytes,
            "gpus": stage.gpus,
            "cached": stage.key in finished,
        }
        for stage in plan.stages
    ]
    return {
        "arms": arm_rows(plan),
        "left_out": [row.model_dump(mode="json") for row in plan.fixed.left_out],
        "without": plan.config.without,
        "forecast": [
            *forecast_sentences(
                plan.config, plan.budget, plan.predictor.costs, plan.config.text_arms, plan.fixed.portions
            ),
            *label_sentences(plan.config, plan.budget, plan.predictor.costs, plan.fixed.label_portions),
        ],
        "sizes": size_sentences(
            plan.config, plan.budget, plan.predictor.costs, plan.config.text_arms, plan.fixed.rungs
        ),
        "settles": settled_by(plan.config, plan.predictor.costs),
        "stages": stages,
        "flops": plan.flops,
        "seconds_left": round(plan.seconds_left(finished)),
        "seconds_by_gpus": {
            str(number): round(plan.seconds_left(finished, number)) for number in GPUS if plan.machine.gpus
        },
        "budget": {**asdict(plan.budget), "unit": plan.config.budget.unit},
        "machine": asdict(plan.machine),
        "max_lengths": plan.fixed.max_lengths,
        "cut_texts": cut_sentences(plan.config),
        "lossy_tokenizers": lossy_tokenizers(plan.config),
        "outgoing": outgoing_json(plan.config, plan.outgoing),
        "instructions": prompt_instructions(plan.config),
    }


def prompt_instructions(config: StudyConfig) -> dict[str, dict[str, Any]]:
    """Task -> what prompted arms are told before its texts, and whether that was made for want of one."""
    prompted = {
        task.name: task
        for arm in config.job_arms
        if arm.adaptation is not None and arm.adaptation.is_prompted
        for task in config.tasks_of(arm)
    }
    return {
        name: {"text": task.task_kind.instruction(task), "made": not task.instruction.strip()}
        for name, task in prompted.items()
    }


def arm_rows(plan: Plan) -> list[dict[str, Any]]:
    """What every arm costs on text or on a task, over all seeds: its own stages, trials included.

    The training on text that a job arm starts from stands with the arm of the text ledger.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for stage in plan.stages:
        whose = _arm_of(stage.key)
        if whose is None:
            continue
        name, task = whose
        row = rows.setdefault((name, task), {"arm": name, "task": task, "flops": 0.0, "seconds": 0.0})
        row["flops"] += stage.flops
        row["seconds"] += round(plan.seconds(stage), 1)
    return list(rows.values())


def _arm_of(key: StageKey) -> tuple[str, str] | None:
    """The arm and the task that a stage is run for."""
    if key.kind is StageKind.BASELINE and key.task is not None:
        return "no language model", key.task
    if key.kind is StageKind.BASE:
        return Origin.GENERIC.value, LANGUAGE
    if key.origin is not None and key.portion != WHOLE:
        return key.origin.value, "forecast"
    if key.origin is not None and key.size:
        return key.origin.value, "other sizes"
    if key.origin is not None:
        return key.origin.value, key.task or LANGUAGE
    if key.arm is not None and key.task is not None:
        return key.arm.name, key.task if key.portion == WHOLE else f"{key.task}, fewer labels"
    return None
