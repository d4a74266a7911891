"""What each of two ranks runs under torchrun in test_distill_ranks.py: `... train_distill_ranks.py FOLDER
TEACHER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from unittest import mock

import tiny_teachers
from test_distill_objective import encoder, llama, objective
from tiny_training import Rows, settings

from adaptkit.distill import answer_store
from adaptkit.distill.depth import copy_blocks
from adaptkit.distill.recipe import distill
from adaptkit.run import Run
from adaptkit.trainer.trainer import Trainer

LOSSES = {
    "logits": {"forward_kl": 0.9, "cross_entropy": 0.1, "hidden": 0.5},
    "replacing": {"replacing": 1.0},
    "blocks alone": {"hidden": 1.0},
    "vectors": {"cosine": 1.0, "mse": 0.1},
}
SIGNALS = ("online", "offline", "text")


def train(folder: Path, name: str, parallel: str) -> None:
    """A student beside its online teacher; saves what its weights sum to."""
    kind = "encoder" if name == "vectors" else "causal"
    teacher = encoder(4, kind) if name == "vectors" else llama(4)
    student = copy_blocks(teacher, kind, [0, 3], seed=0)
    config = settings(parallel=parallel, eval_every=3, microbatch_size=2)
    rows, dev = (Rows("classify" if name == "vectors" else "causal", num=num) for num in (29, 5))
    result = Trainer(
        student, objective(LOSSES[name], teacher, kind), rows, config, run=Run(folder), eval=dev
    ).fit()
    # A key's bias shifts all scores of a softmax alike: its gradient is rounding alone, which Adam makes as
    # large as any.
    named = [(name, weight) for name, weight in student.named_parameters() if not name.endswith("key.bias")]
    weights = {name: weight.double().sum().item() for name, weight in named}
    told = {"weights": weights, "flops": result.flops}
    folder.joinpath(f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(told))


def recipe(root: Path, teacher: Path, signal: str) -> Run:
    """A whole distillation of a causal teacher."""
    config = tiny_teachers.config(teacher.parents[1], teacher, signal=signal)
    run = Run.open(root / signal, config.name, config.model_dump(mode="json"))
    with mock.patch.object(answer_store, "ROWS_PER_PART", 8):
        distill(config, run)
    return run


def main() -> None:
    root, teacher = Path(sys.argv[1]), Path(sys.argv[2])
    for parallel in ("ddp", "fsdp"):
        for name in LOSSES:
            train(root / f"{parallel}-{name}", name, parallel)
    for signal in SIGNALS:
        recipe(root, teacher, signal)


if __name__ == "__main__":
    main()
