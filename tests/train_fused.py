"""Run by tests/invariants/test_fused_training.py under Triton's interpreter: each task twice, with fused and
reference layers.

TRITON_INTERPRET=1 python tests/train_fused.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import tiny_embed
from tiny_training import Rows, llama, losses, settings, task
from torch import nn

from adaptkit.distill.teacher import OnlineTeacher
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.objective import Contrastive
from adaptkit.embed.rows import Example, TextRows, groups_of
from adaptkit.run import Run, write_json
from adaptkit.trainer.distillation import Distillation
from adaptkit.trainer.objective import Objective
from adaptkit.trainer.row_source import Source
from adaptkit.trainer.trainer import Trainer

TASKS = {
    "pretrain": 1e-2,
    "masked": 3e-3,
    "classify": 1e-2,
    "lora": 1e-2,
    "contrastive": 3e-3,
    "distillation": 1e-2,
}
"""Learning rates at which so few rows per step teach something."""
BATCH = {"contrastive": 4}
STEPS = 50


def contrastive(folder: Path) -> tuple[nn.Module, Objective, Source]:
    """Pairs in batches of four, in both directions and at two sizes of the vectors."""
    encoder = Encoder.load(tiny_embed.bert(folder / "bert"))
    examples = [
        Example((row["anchor"], row["positive"]), f"pairs:{i}") for i, row in enumerate(tiny_embed.pairs(24))
    ]
    for name, weight in encoder.model.named_parameters():
        weight.requires_grad_("pooler" not in name)
    rows = TextRows(examples, encoder, ("", ""), groups_of(examples))
    return encoder.model, Contrastive(symmetric=True, dimensions=(32, 16)), rows


def distillation(folder: Path) -> tuple[nn.Module, Objective, Source]:
    """A student in the divergences and the labels, beside a teacher that the plain run has taught."""
    teacher, student = llama(), llama(tied=False)
    Trainer(
        teacher, task("pretrain")[1], Rows("causal"), settings(num_steps=20), run=Run(folder / "teacher")
    ).fit()
    weights = {"forward_kl": 0.5, "reverse_kl": 0.3, "cross_entropy": 0.2}
    return (
        student,
        Distillation(OnlineTeacher(teacher, "causal"), weights, "causal", temperature=2.0),
        Rows("causal"),
    )


def prepared(folder: Path, name: str) -> tuple[nn.Module, Objective, Source]:
    if name in ("contrastive", "distillation"):
        return {"contrastive": contrastive, "distillation": distillation}[name](folder)
    return task(name)


def train(folder: Path, name: str, implementation: str, **changes: str) -> dict:
    """Losses of every step, and what was fused."""
    model, objective, rows = prepared(folder, name)
    config = settings(
        num_steps=STEPS,
        global_batch_size=BATCH.get(name, 2),
        learning_rate=TASKS[name],
        checkpoint_every=0,
        implementation=implementation,
        **changes,
    )
    run = Run(folder)
    Trainer(model, objective, rows, config, run=run).fit()
    return {"losses": losses(folder), "facts": run.manifest()["training"]["train"]}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name in TASKS:
        for implementation in ("fused", "reference"):
            write_json(
                root / f"{name}-{implementation}.json",
                train(root / name / implementation, name, implementation),
            )
