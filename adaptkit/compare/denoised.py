"""More training on plain text for an encoder that was saved without a masked-LM head, as sentence encoders are: TSDAE.

A head that starts from nothing would have to learn before the encoder could, and takes the encoder apart meanwhile:
all-MiniLM-L6-v2 fell from .78 to .01 nDCG@10 that way (benchmarks/results). Restoring texts from their vectors trains
what such an encoder is for, and its decoder leans on the encoder's own weights (arXiv 2104.06979).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit import models
from adaptkit.compare.budget import steps_within
from adaptkit.compare.machine import text_kind
from adaptkit.compare.plan import language_adapter

if TYPE_CHECKING:
    from adaptkit.compare.folder import StudyFolder
    from adaptkit.embed.recipe import EmbedConfig

RATE = 0.03
"""Centre of the learning rates tried, relative to training all weights from scratch: 4e-5 for 23M parameters."""
BATCH = 16
SAMPLE = 200


def fits(base: str | Path) -> bool:
    """Whether a base keeps training on text this way."""
    return models.model_kind(base) == "encoder" and text_kind(base) == "masked"


def settings(folder: StudyFolder, job: str, text: str, fraction: float, flops: float, seed: int, threads: int, rate: float) -> Any:
    """The training that `flops` pay for.

    Raises: BudgetError where they buy too few steps.
    """
    from adaptkit.compare.prepare import train_path
    from adaptkit.embed.recipe import EmbedConfig

    config = folder.config
    asked = {"global_batch_size": BATCH} | config.trainer.model_dump(exclude_unset=True)
    made = EmbedConfig(
        name=job,
        base=str(folder.base),
        train={"files": [str(train_path(folder.data, text, fraction))]},
        dev={"files": [str(folder.data / f"{text}.dev.jsonl")]},
        loss="tsdae",
        max_length=config.size.seq_len,
        adapter=config.adapter.model_copy(update={"kind": language_adapter(config, job)}),
    )
    steps = steps_within(flops, asked["global_batch_size"] * flops_per_text(made, asked["global_batch_size"]), what=job)
    trainer = asked | {"num_steps": steps, "learning_rate": rate, "seed": seed, "threads": threads}
    return made.model_copy(update={"trainer": made.trainer.model_copy(update=trainer)})


def flops_per_text(config: EmbedConfig, batch_size: int) -> float:
    """What the trainer will count for a piece of text, padding included, from the first pieces."""
    from adaptkit.embed.denoising import DELETED, NoisyTexts, decoder_of
    from adaptkit.embed.training import base_encoder, examples_of

    encoder = base_encoder(config)
    texts = NoisyTexts(examples_of(config)[0].rows[:SAMPLE], encoder, "")
    groups = [list(range(len(texts)))[i : i + batch_size] for i in range(0, len(texts), batch_size)]
    batches = [texts.collate(group, seed=0, epoch=0) for group in groups]
    tokens = sum(batch[name].numel() for batch in batches for name in batch if name.endswith("input_ids")) / len(texts)
    read, written = (models.flops_per_token(part, round(tokens)).train for part in (encoder.model, decoder_of(encoder, 0)))
    return tokens * (read + written / (1 - DELETED))
