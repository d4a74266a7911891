"""Optimizer, learning-rate schedule and weight average; their whole state as named tensors for the
checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adaptkit.doctor import extras
from adaptkit.errors import CheckpointError
from adaptkit.trainer.config import TrainerConfig

BETA1, EPSILON = 0.9, 1e-8
WSD_DECAY = 0.2
"""Share of the steps over which wsd falls; a tenth to a fifth is enough (arXiv 2404.06395, arXiv
2405.18392)."""


def build_optimizer(weights: Mapping[str, nn.Parameter], config: TrainerConfig) -> Optimizer:
    """AdamW over `weights`; matrices are decayed, vectors are not.

    Raises: MissingDependency if adamw8bit is asked for and bitsandbytes is not installed.
    """
    groups = [
        {"params": [w for w in weights.values() if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights.values() if w.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": (BETA1, config.beta2), "eps": EPSILON}
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise extras.missing_extra("", "trainer.optimizer=adamw8bit needs bitsandbytes") from None
    return AdamW8bit(groups, **settings)


def learning_rate(config: TrainerConfig, step: int) -> float:
    """Learning rate of a step (counted from 0): linear warmup to the peak, then the schedule down to the
    floor."""
    warmup = math.ceil(config.warmup_fraction * config.num_steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, config.num_steps - warmup - 1)
    height = {
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "linear": 1 - progress,
        "wsd": min(1.0, (1 - progress) / WSD_DECAY),
        "constant": 1.0,
    }[config.schedule]
    return config.learning_rate * (config.min_lr_ratio + (1 - config.min_lr_ratio) * height)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_state(
    optimizer: Optimizer, weights: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The state as `weight|key` -> tensor and `weight|key` -> number (bitsandbytes counts steps in plain
    integers)."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float] = {}
    for name, weight in weights.items():
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}|{key}"] = value
            else:
                numbers[f"{name}|{key}"] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: Optimizer,
    weights: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, float],
) -> None:
    """Put back what `optimizer_state` gave; tensors already lie where they belong.

    Raises: CheckpointError if a weight is not among `weights`.
    """
    for key, value in {**tensors, **numbers}.items():
        name, _, field = key.rpartition("|")
        if name not in weights:
            raise CheckpointError(
                f"optimizer state for '{name}', which this model does not train",
                fix="use a new run directory",
            )
        optimizer.state[weights[name]][field] = value


class WeightAverage:
    """Exponential average of the weights, with a short memory while few steps were taken.

    The decay of step t is min(decay, (1 + t) / (10 + t)), so early weights do not linger (as in TensorFlow's
    ExponentialMovingAverage with num_updates).
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float):
        self.decay = decay
        self.values = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(weights[name].detach(), 1 - decay)

    @torch.no_grad()
    def swap(self, weights: Mapping[str, Tensor]) -> None:
        """Exchange average and weights in place; swapping twice changes nothing."""
        for name, value in self.values.items():
            weight = weights[name].detach().clone()
            weights[name].copy_(value)
            value.copy_(weight)
