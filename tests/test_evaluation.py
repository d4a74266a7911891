"""Losses over a whole source, and the counters of a run. Home of trainer.evaluation and trainer.result."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_training import Rows, task

from adaptkit.errors import DataError
from adaptkit.ops import IGNORE_INDEX
from adaptkit.trainer.evaluation import evaluate
from adaptkit.trainer.objective import LossModule
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.pending import Taken
from adaptkit.trainer.result import Progress, TrainResult


def measured(name: str, source: Rows, batch_size: int) -> dict[str, float]:
    model, objective, _ = task(name, dropout=0.5)
    module = LossModule(model, objective, torch.float32).train()
    means = evaluate(module, objective, source, Ranks(), batch_size)
    assert module.training and not any(weight.grad is not None for weight in model.parameters())
    return means


@pytest.mark.parametrize("name", ["pretrain", "masked", "classify"])
def test_the_mean_is_over_items_whatever_the_batch(name: str) -> None:
    _, _, rows = task(name)
    one_by_one, at_once = (measured(name, rows, size) for size in (1, len(rows)))
    assert one_by_one == pytest.approx(at_once, rel=1e-5)
    assert "loss" in at_once and ("accuracy" in at_once) == (name == "classify")


def test_dropout_is_off_and_the_noise_is_always_the_same() -> None:
    assert measured("masked", Rows("masked"), 8) == measured("masked", Rows("masked"), 8)


def test_data_without_any_label_is_refused_with_its_place() -> None:
    class Unlabelled(Rows):
        def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, torch.Tensor]:
            batch = super().collate(indices, seed=seed, epoch=epoch)
            return {**batch, "labels": torch.full_like(batch["labels"], IGNORE_INDEX)}

    with pytest.raises(DataError, match="no label to measure") as no:
        measured("pretrain", Unlabelled("causal"), 8)
    assert no.value.where == "rows.jsonl:1"


def step(loss: float, items: int = 4, seconds: float = 0.5) -> Taken:
    nothing = torch.zeros(2)
    return Taken(0, [[0]], nothing, nothing, items, 10, 100.0, 0.1, 0.0, seconds=seconds, loss=loss)


def test_a_row_is_averaged_over_the_steps_since_the_last_one() -> None:
    counters = Progress()
    counters.add(step(8.0))
    counters.add(step(2.0, items=1))
    row = counters.row(0.1, 3.0, peak_flops=1000.0)
    assert (row["step"], row["loss"], row["tokens_per_s"], row["mfu"]) == (2, 2.0, 20.0, 0.2)
    counters.add(step(4.0))
    row = counters.row(0.1, 3.0, peak_flops=None)
    assert (row["step"], row["loss"], row["mfu"]) == (3, 1.0, None)
    assert (counters.items_seen, counters.tokens_seen, counters.flops, counters.seconds) == (
        9,
        30,
        300.0,
        1.5,
    )


def test_a_result_says_the_last_evaluation_and_the_best_step() -> None:
    counters = Progress()
    counters.add(step(8.0))
    assert TrainResult.of(counters, "cpu", 1).eval_loss is None
    assert TrainResult.of(counters, "cpu", 1).best_step == 1
    counters.history += [{"eval_loss": 2.0}, {"eval_loss": 3.0}]
    counters.best_step = 7
    result = TrainResult.of(counters, "cpu", 2)
    assert (result.eval_loss, result.best_step, result.tokens_per_s) == (3.0, 7, 20.0)
    cost = result.cost()
    assert (cost["flops"], cost["tokens"], cost["threads"]) == (100.0, 10, 2) and math.isfinite(
        cost["seconds"]
    )
