"""The origin `distilled`: the best language model of a study so far, taught to a student of half its depth.

The best is the one with the lowest dev score of the same seed and share of text. What finding it cost is the
other origins' to pay; the student pays for its own training and for its teacher's forward passes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit import models
from adaptkit.compare.build_stages import teaching_origins
from adaptkit.compare.stages.language_job import FULL_RATE, JobOrder, LanguageJob, Subject, files
from adaptkit.compare.workspace import Workspace
from adaptkit.distill.config import DistillConfig
from adaptkit.models.folder import saved_shape
from adaptkit.run import Run
from adaptkit.study.budget import steps_within
from adaptkit.study.spend import meta_model
from adaptkit.trainer.config import with_trainer


class Distillation(LanguageJob):
    """A student of the study's best model."""

    def rate_share(self, by_adapter: bool) -> float:
        return FULL_RATE

    def subject(self, order: JobOrder) -> Subject:
        from adaptkit.distill.shape import student_shape
        from adaptkit.distill.start import teacher_kind

        settings = one_step(order)
        kind = teacher_kind(settings)
        teacher = Path(settings.teacher)
        return Subject(meta_model(student_shape(settings, saved_shape(teacher), kind), kind), teacher)

    def train(self, order: JobOrder) -> tuple[Run, float]:
        from adaptkit.distill.recipe import distill

        settings = distillation(order)
        run = order.workspace.open(settings.name, settings)
        return run, min(distill(settings, run).scores.values())


def best_teacher(workspace: Workspace, seed: int) -> str:
    """The folder of the model with the best dev score: bits per byte, or nats for masked models."""
    base = str(workspace.base_folder)
    scores: dict[str, float] = {}
    for origin in teaching_origins(workspace.config):
        trained = workspace.language(origin, seed)
        assert trained.model is not None
        scores[str(workspace.folder(trained.model))] = trained.dev
    if workspace.base.dev is not None:
        scores[base] = workspace.base.dev
    return min(scores, key=lambda folder: scores[folder]) if scores else base


def distillation(order: JobOrder) -> DistillConfig:
    """The settings that the order's FLOPs pay for.

    Raises: BudgetError where they buy too few steps.
    """
    from adaptkit.distill.estimate import plan

    settings = one_step(order)
    steps = steps_within(order.flops, plan(settings)["flops"], what=order.origin.value)
    return with_trainer(settings, num_steps=steps)


def one_step(order: JobOrder) -> DistillConfig:
    """The settings of a single step, which costs are counted on."""
    workspace = order.workspace
    teacher = best_teacher(workspace, order.seed)
    fields: dict[str, Any] = {
        "name": order.origin.value,
        "teacher": teacher,
        "data": files(workspace.files.train("domain")),
        "dev": files(workspace.files.dev("domain")),
        "size": {"seq_len": workspace.config.size.seq_len},
        "trainer": order.trainer,
    }
    if models.model_kind(teacher) == "encoder":
        fields["losses"] = {"cosine": 1.0}  # it gives vectors, not distributions
    return with_trainer(DistillConfig.model_validate(fields), num_steps=1)
