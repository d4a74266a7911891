"""Run by tests/invariants/test_fused_training.py under Triton's interpreter: each task twice, with fused and reference layers.

TRITON_INTERPRET=1 python tests/train_fused.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_training import losses, settings, task

from adaptkit.run import Run, write_json
from adaptkit.trainer.trainer import Trainer

TASKS = {"pretrain": 1e-2, "masked": 3e-3, "classify": 1e-2, "lora": 1e-2}
"""Learning rates at which two rows per step teach something."""
STEPS = 50


def train(folder: Path, name: str, implementation: str) -> dict:
    """Losses of every step, and what was fused."""
    model, objective, rows = task(name)
    config = settings(
        num_steps=STEPS, global_batch_size=2, learning_rate=TASKS[name], checkpoint_every=0, implementation=implementation
    )
    run = Run(folder)
    Trainer(model, objective, rows, config, run=run).fit()
    return {"losses": losses(folder), "facts": run.manifest()["training"]["train"]}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    for name in TASKS:
        for implementation in ("fused", "reference"):
            write_json(root / f"{name}-{implementation}.json", train(root / name / implementation, name, implementation))
