"""What a run changes goes into a checkpoint and comes back. Home of trainer.state."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_training import lora, settings, task
from torch import Tensor, nn

from adaptkit.trainer.checkpoint import Checkpoints
from adaptkit.trainer.objective import LossModule
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.state import State, trained_and_frozen


def stepped(steps: int = 3, **changes: float) -> tuple[nn.Module, State]:
    model, objective, rows = task("pretrain")
    state = State(model, settings(**changes), Ranks())
    module = LossModule(model, objective, torch.float32)
    for index in range(steps):
        total, _ = module(objective.prepare(rows.collate([index, index + 1], seed=0, epoch=0)))
        total.backward()
        state.optimizer.step()
        state.optimizer.zero_grad()
        if state.average:
            state.average.update(state.weights, index)
    return model, state


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in tensors.items()}


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_everything_comes_back_from_a_checkpoint(tmp_path: Path) -> None:
    _, state = stepped(ema_decay=0.9)
    state.remember_best()
    state.progress.step, state.progress.best_loss = 3, 1.5
    values, groups = state.dump()
    checkpoints = Checkpoints(tmp_path, keep=1, identity={})
    checkpoints.save(3, values, groups)
    _, other = stepped(1, ema_decay=0.9)
    checkpoint = checkpoints.newest()
    assert checkpoint is not None
    other.load(checkpoint)
    values_again, groups_again = other.dump()
    assert values_again == values and groups_again.keys() == {"model", "optimizer", "average", "best"}
    assert all(equal(groups[name], groups_again[name]) for name in groups)


def test_the_average_is_in_the_model_only_inside(tmp_path: Path) -> None:
    _, state = stepped(ema_decay=0.9)
    last, average = copied(state.weights), copied(state.average.values)
    with pytest.raises(KeyboardInterrupt), state.averaged():
        assert equal(copied(state.weights), average) and not equal(average, last)
        raise KeyboardInterrupt
    assert equal(copied(state.weights), last) and equal(state.average.values, average)


def test_the_best_weights_are_selected_before_the_averaged_and_these_before_the_last() -> None:
    _, plain = stepped()
    last = copied(plain.weights)
    plain.select()
    assert equal(copied(plain.weights), last)
    _, state = stepped(ema_decay=0.9)
    state.select()
    assert equal(copied(state.weights), state.average.values)
    _, state = stepped(ema_decay=0.9)
    state.best = {name: torch.zeros_like(weight) for name, weight in state.weights.items()}
    state.select()
    assert not any(weight.any() for weight in state.weights.values())


def test_a_model_is_identified_by_shapes_that_train_and_bytes_that_do_not() -> None:
    first, model = trained_and_frozen(lora()), lora()
    assert trained_and_frozen(model) == first
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                weight.add_(1)
                continue
            frozen = name, weight
        assert trained_and_frozen(model) == first
        frozen[1].add_(1)
    changed = trained_and_frozen(model)
    assert changed["frozen weights"] != first["frozen weights"]
    assert changed["trained weights"] == first["trained weights"]
    frozen[1].requires_grad_(True)
    assert trained_and_frozen(model)["trained weights"] != first["trained weights"]
