"""More training on plain text for an encoder that was saved without a masked-LM head, as sentence encoders
are: TSDAE.

A head that starts from nothing would have to learn before the encoder could, and takes the encoder apart
meanwhile:
all-MiniLM-L6-v2 fell from .78 to .01 nDCG@10 that way (benchmarks/results). Restoring texts from their
vectors trains what such an encoder is for, and its decoder leans on the encoder's own weights (arXiv
2104.06979).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import models
from adaptkit.compare.plan import language_adapter
from adaptkit.compare.speed import text_kind
from adaptkit.compare.workspace import with_trainer
from adaptkit.study.budget import check_steps

if TYPE_CHECKING:
    from adaptkit.compare.workspace import StudyFolder

RATE = 0.03
"""Centre of the learning rates tried, relative to training all weights from scratch: 4e-5 for 23M parameters."""
BATCH = 16


def fits(base: str | Path) -> bool:
    """Whether a base keeps training on text this way."""
    return models.model_kind(base) == "encoder" and text_kind(base) == "masked"


def settings(
    folder: StudyFolder,
    job: str,
    text: str,
    fraction: float,
    flops: float,
    seed: int,
    threads: int,
    rate: float,
) -> Any:
    """The training that `flops` pay for.

    Raises: BudgetError where they buy too few steps.
    """
    from adaptkit.compare.stages.data import train_path
    from adaptkit.embed.config import EmbedConfig
    from adaptkit.embed.training import steps_for_budget

    config = folder.config
    asked = {"global_batch_size": BATCH} | config.trainer.model_dump(exclude_unset=True)
    trainer = asked | {"learning_rate": rate, "seed": seed, "threads": threads}
    made = EmbedConfig(
        name=job,
        base=str(folder.base),
        train={"files": [str(train_path(folder.data, text, fraction))]},
        dev={"files": [str(folder.data / f"{text}.dev.jsonl")]},
        loss="tsdae",
        max_length=config.size.seq_len,
        adapter=config.adapter.model_copy(update={"kind": language_adapter(config, job)}),
    )
    made = with_trainer(made, **trainer)
    return with_trainer(made, num_steps=check_steps(steps_for_budget(made, flops), flops, what=job))
