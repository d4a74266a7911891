"""The origin `distilled`: the best language model of a study so far, taught to a student of half its depth.

The best is the one with the lowest dev score of the same seed and share of text. What finding it cost is the
other origins' to pay; the student pays for its own training and for its teacher's forward passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptkit import models
from adaptkit.compare.plan import language_id, teaching_jobs
from adaptkit.compare.stages.data import train_path
from adaptkit.study.budget import steps_within

if TYPE_CHECKING:
    from adaptkit.compare.workspace import StudyFolder
    from adaptkit.study.config import StudyConfig


def best_teacher(folder: StudyFolder, seed: int, fraction: float) -> str:
    """The folder of the best model: its dev score is in bits per byte, or for masked models in nats of one
    tokenizer."""
    found = [folder.result(language_id(job, seed, fraction)) for job in teaching_jobs(folder.config)]
    base = folder.result("base")
    if base["kind"] == "causal":
        found.append(base)
    elif not found:
        return str(folder.base)
    return str(min(found, key=lambda outcome: outcome["dev"])["model"])


def settings(folder: StudyFolder, fraction: float, flops: float, seed: int, threads: int, rate: float) -> Any:
    """The distillation that `flops` pay for.

    Raises: BudgetError where they buy too few steps.
    """
    from adaptkit.distill.config import DistillConfig
    from adaptkit.distill.estimate import plan

    asked = folder.config.trainer.model_dump(exclude_unset=True)
    teacher = best_teacher(folder, seed, fraction)
    fields = {
        "name": "distilled",
        "teacher": teacher,
        "data": {"files": [str(train_path(folder.data, "domain", fraction))]},
        "dev": {"files": [str(folder.data / "domain.dev.jsonl")]},
        "size": {"seq_len": folder.config.size.seq_len},
    }
    if models.model_kind(teacher) == "encoder":
        fields["losses"] = {"cosine": 1.0}  # it gives vectors, not distributions
    trainer = {**asked, "learning_rate": rate, "seed": seed, "threads": threads}
    one_step = DistillConfig.model_validate({**fields, "trainer": {**trainer, "num_steps": 1}})
    steps = steps_within(flops, plan(one_step)["flops"], what="distilled")
    return DistillConfig.model_validate({**fields, "trainer": {**trainer, "num_steps": steps}})


def check_base(config: StudyConfig) -> None:
    """Raises: ModelError for a base that no student can learn from or no server would run, before anything is
    trained."""
    from transformers import AutoConfig

    from adaptkit.distill.pooling_files import check_pooling
    from adaptkit.distill.student import check_shape

    folder = models.find(config.base)
    check_shape(AutoConfig.from_pretrained(folder, local_files_only=True).model_type)
    if models.model_kind(folder) == "encoder" and not teaching_jobs(config):
        check_pooling(folder)
