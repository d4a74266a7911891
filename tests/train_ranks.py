"""What each of two ranks runs under torchrun in test_ranks.py: `torchrun --nproc-per-node 2 train_ranks.py
FOLDER`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tiny_training import Rows, bert, llama, settings

from adaptkit.run import Run
from adaptkit.trainer.objective import CausalLM, Classification
from adaptkit.trainer.trainer import Trainer

OPTIONS = {"ema_decay": 0.9, "eval_every": 3, "microbatch_size": 2}


class Recorded(Rows):
    """Rows that remember the indices they were asked for."""

    def __init__(self, kind: str):
        super().__init__(kind)
        self.asked: list[list[int]] = []

    def collate(self, indices, *, seed, epoch):
        self.asked.append(indices)
        return super().collate(indices, seed=seed, epoch=epoch)


def train(folder: Path, parallel: str) -> None:
    """Train, save what this rank saw and the weights' sum that the caller's model ended with."""
    rows, model = Recorded("causal"), llama()
    config, dev = settings(parallel=parallel, **OPTIONS), Rows("causal", num=5)
    result = Trainer(model, CausalLM(), rows, config, run=Run(folder), eval=dev).fit()
    weights = {name: weight.double().sum().item() for name, weight in model.named_parameters()}
    counts = {"items": result.items_seen, "tokens": result.tokens_seen, "flops": result.flops}
    seen = {"asked": rows.asked, "weights": weights, **counts}
    folder.joinpath(f"rank{os.environ.get('RANK', 0)}.json").write_text(json.dumps(seen))


def main() -> None:
    root = Path(sys.argv[1])
    for parallel in ("ddp", "fsdp"):
        train(root / parallel, parallel)
        train(root / f"resumed-{parallel}", parallel)
    classifier = bert(classify=True)
    Trainer(classifier, Classification(), Rows("classify"), settings(), run=Run(root / "classify")).fit()


if __name__ == "__main__":
    main()
