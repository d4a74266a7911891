"""More training on plain text for an encoder without a masked-LM head, as sentence encoders are: TSDAE.

A head that starts from nothing would have to learn before the encoder could, and takes the encoder apart
meanwhile: all-MiniLM-L6-v2 fell from .78 to .01 nDCG@10 that way (benchmarks/results). Restoring texts from
their vectors trains what such an encoder is for, and its decoder leans on the encoder's own weights (arXiv
2104.06979).
"""

from __future__ import annotations

from pathlib import Path

from adaptkit import models
from adaptkit.compare.stages.language_job import (
    FULL_RATE,
    JobOrder,
    LanguageJob,
    Subject,
    adapted_rate,
    files,
)
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.recipe import embed
from adaptkit.embed.start import steps_for_budget
from adaptkit.models.folder import saved_shape
from adaptkit.run import Run
from adaptkit.study.base_model import text_kind
from adaptkit.study.budget import check_steps
from adaptkit.study.spend import meta_model
from adaptkit.trainer.config import with_trainer

RATE = 0.03
"""Centre of the learning rates tried, relative to training from scratch: 4e-5 for 23M parameters."""
BATCH = 16


def is_headless(base: str | Path) -> bool:
    """Whether a base is an encoder that was saved without its masked-LM head."""
    return models.model_kind(base) == "encoder" and text_kind(base) == "masked"


class RestoreTexts(LanguageJob):
    """TSDAE on the text of another job."""

    def __init__(self, job: LanguageJob):
        self.job, self.text = job, job.text

    def train_file(self, order: JobOrder) -> Path:
        return self.job.train_file(order)

    def dev_file(self, order: JobOrder) -> Path:
        return self.job.dev_file(order)

    def rate_share(self, by_adapter: bool) -> float:
        return adapted_rate(by_adapter) * RATE / FULL_RATE

    def subject(self, order: JobOrder) -> Subject:
        base = order.workspace.base_folder
        return Subject(meta_model(saved_shape(base), "encoder"), base)

    def train(self, order: JobOrder) -> tuple[Run, float]:
        workspace, config = order.workspace, order.workspace.config
        settings = EmbedConfig(
            name=order.name,
            base=str(workspace.base_folder),
            train=files(self.train_file(order)),
            dev=files(self.dev_file(order)),
            loss="tsdae",
            max_length=config.size.seq_len,
            adapter=order.adapter,
        )
        asked = {"global_batch_size": BATCH, **order.trainer.model_dump(exclude_unset=True)}
        settings = with_trainer(settings, **asked)
        affordable = steps_for_budget(settings, order.flops, self.job.passes(order))
        steps = check_steps(affordable, order.flops, what=order.name)
        settings = with_trainer(settings, num_steps=steps)
        run = workspace.open(settings.name, settings)
        return run, min(embed(settings, run).dev_scores.values())
