"""What each of two ranks runs under torchrun in invariants/test_embed.py: `torchrun ... train_embed_ranks.py
FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tiny_embed
from tiny_training import settings

from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.objective import Contrastive
from adaptkit.embed.recipe import embed
from adaptkit.embed.rows import Example, TextRows, groups_of
from adaptkit.run import Run
from adaptkit.trainer.trainer import Trainer

SIZES = (32, 16)


def train(root: Path, name: str, parallel: str, microbatch_size: int) -> None:
    """Train on pairs with a hard negative each; save the sums of the weights that this rank ended with."""
    pairs = tiny_embed.pairs(29)
    told = [(row["anchor"], row["positive"], pairs[i - 2]["positive"]) for i, row in enumerate(pairs)]
    told[3] = (told[2][0], *told[3][1:])  # one question with two answers, mostly on two ranks
    examples = [Example(texts, f"pairs.jsonl:{i + 1}") for i, texts in enumerate(told)]
    encoder = Encoder.load(root / "bert")
    source = TextRows(examples, encoder, ("", ""), groups_of(examples))
    config = settings(parallel=parallel, microbatch_size=microbatch_size, num_steps=4, learning_rate=1e-3)
    objective = Contrastive(symmetric=True, dimensions=SIZES)
    for weight_name, weight in encoder.model.named_parameters():
        weight.requires_grad_("pooler" not in weight_name)
    Trainer(encoder.model, objective, source, config, run=Run(root / name)).fit()
    weights = {key: weight.double().sum().item() for key, weight in encoder.model.named_parameters()}
    (root / name / f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(weights))


def recipe(root: Path, name: str) -> None:
    """The whole recipe, mining and delivery included; and that of text without pairs."""
    trainer = {"num_steps": 4, "global_batch_size": 8, "microbatch_size": 2, "threads": 1}
    data, text = {"files": [str(root / "set")]}, {"files": [str(root / "set" / "corpus.jsonl")]}
    given = {"name": name, "base": str(root / "bert"), "test": data, "trainer": trainer}
    embed(EmbedConfig.model_validate({**given, "train": data, "hard_negatives": 1}), Run(root / name))
    embed(EmbedConfig.model_validate({**given, "train": text, "loss": "tsdae"}), Run(root / f"{name}-tsdae"))


def main() -> None:
    root = Path(sys.argv[1])
    for parallel in ("ddp", "fsdp"):
        train(root, parallel, parallel, 2)
        train(root, f"{parallel}-whole", parallel, 0)
    recipe(root, "recipe-two")


if __name__ == "__main__":
    main()
