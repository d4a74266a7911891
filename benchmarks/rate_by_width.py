"""Which rule carries a learning rate from a small model to a wider one: a sweep on one CPU thread.

    python benchmarks/rate_by_width.py --out benchmarks/results/rate_by_width.json

Models of adaptkit's own shapes read the same bytes of Python source in the same order, at each rate of a grid
in steps of 2. The best rate of the narrowest, by a parabola through its best three, is carried to others by

same                as it is
params^-1/4         by the rule of `default_learning_rate`
1/width             of all weights
1/width, matrices   of the matrices inside blocks, as in muP (arXiv 2203.03466); the table keeps the rate

The first three are read off the grid of each width, between its points by a straight line, which errs against
the rule; the last is run. What a rule loses is the held-out loss there less the least of the parabola.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptkit import models
from adaptkit.architecture import SizeConfig, architecture
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.optim import build_optimizer, learning_rate

SIZES = (150_000, 400_000, 1_000_000)
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
SEQ_LEN, BATCH, NUM_STEPS = 128, 4, 150
VOCABULARY = 256
HELD_OUT_ROWS = 128


@dataclass(frozen=True)
class Curve:
    """Held-out losses of one width, by rate.

    Attributes:
        matrices_only: loss at the rate carried by 1/width of the matrices alone; None for the narrowest.
    """

    params: int
    width: int
    losses: dict[float, float]
    matrices_only: float | None = None

    @property
    def best(self) -> tuple[float, float]:
        """Rate and loss at the lowest point of the parabola through the lowest three, in log rate."""
        rates, losses = np.log2(list(self.losses)), np.array(list(self.losses.values()))
        middle = min(max(int(losses.argmin()), 1), len(losses) - 2)
        near = slice(middle - 1, middle + 2)
        square, slope, level = np.polyfit(rates[near], losses[near], 2)
        at = float(np.clip(-slope / (2 * square), rates[0], rates[-1]))
        return 2**at, float(square * at * at + slope * at + level)

    def at(self, rate: float) -> float:
        """The loss at a rate, on a straight line between those that were tried."""
        return float(np.interp(math.log2(rate), np.log2(list(self.losses)), list(self.losses.values())))


def text() -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes of the standard library's source in rows, to train on and held out."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    raw = np.frombuffer(b"".join(path.read_bytes() for path in paths), dtype=np.uint8)
    rows = torch.tensor(raw[: len(raw) // SEQ_LEN * SEQ_LEN].astype(np.int64)).view(-1, SEQ_LEN)
    shuffled = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return shuffled[HELD_OUT_ROWS:], shuffled[:HELD_OUT_ROWS]


def train(shape: Any, rate: float, matrix_share: float, rows: torch.Tensor, held_out: torch.Tensor) -> float:
    """Held-out nats per byte after a training of NUM_STEPS.

    Args:
        matrix_share: rate of the matrices inside blocks, in that of all other weights.
    """
    model = models.build(shape, "causal", seed=0)
    config = TrainerConfig(learning_rate=rate, num_steps=NUM_STEPS)
    named = dict(model.named_parameters())
    inside = {name: w for name, w in named.items() if ".layers." in name and w.ndim == 2}
    others = {name: w for name, w in named.items() if name not in inside}
    parts = [(build_optimizer(inside, config), matrix_share), (build_optimizer(others, config), 1.0)]
    for step in range(NUM_STEPS):
        batch = rows[step * BATCH : (step + 1) * BATCH]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, share in parts:
            for group in optimizer.param_groups:
                group["lr"] = share * learning_rate(config, step)
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        return float(model(input_ids=held_out, labels=held_out).loss)


def sweep(size: int, narrowest: Curve | None, rows: torch.Tensor, held_out: torch.Tensor) -> Curve:
    """All rates at one size, and the rate that is carried to its matrices alone."""
    shape = architecture(SizeConfig(params=size, seq_len=SEQ_LEN), VOCABULARY)
    losses = {}
    for rate in RATES:
        begun = time.monotonic()
        losses[rate] = train(shape, rate, 1.0, rows, held_out)
        print(f"{size:9,} width {shape.hidden_size} rate {rate:g}: {losses[rate]:.4f}", end="  ")
        print(f"{time.monotonic() - begun:.0f} s", flush=True)
    alone = None
    if narrowest is not None:
        share = narrowest.width / shape.hidden_size
        alone = train(shape, narrowest.best[0], share, rows, held_out)
    params = models.param_count(models.build(shape, "causal", seed=0)).total
    return Curve(params, shape.hidden_size, losses, alone)


def row(curve: Curve, narrowest: Curve) -> dict[str, Any]:
    """What each rule loses at a width."""
    rate, (best_rate, least) = narrowest.best[0], curve.best
    carried = {
        "same": rate,
        "params^-1/4": rate * (curve.params / narrowest.params) ** -0.25,
        "1/width": rate * narrowest.width / curve.width,
    }
    lost = {rule: round(curve.at(at) - least, 4) for rule, at in carried.items()}
    if curve.matrices_only is not None:
        lost["1/width, matrices"] = round(curve.matrices_only - least, 4)
    exponent = None
    if curve is not narrowest:
        exponent = round(math.log(best_rate / rate) / math.log(curve.width / narrowest.width), 3)
    return {
        "params": curve.params,
        "width": curve.width,
        "losses": {f"{at:g}": round(loss, 4) for at, loss in curve.losses.items()},
        "best rate": float(f"{best_rate:.3g}"),
        "least loss": round(least, 4),
        "exponent of width": exponent,
        "lost": lost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="parameters, the narrowest first")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    rows, held_out = text()
    curves: list[Curve] = []
    for size in settings.sizes:
        curves.append(sweep(size, curves[0] if curves else None, rows, held_out))
    table = [row(curve, curves[0]) for curve in curves]
    for each in table:
        print(json.dumps(each))
    if settings.out:
        conditions = {
            "bytes_per_step": SEQ_LEN * BATCH,
            "steps": NUM_STEPS,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        settings.out.write_text(json.dumps({**conditions, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
