"""One size of model: its shape, what a token costs, and the memory to train and to serve it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from adaptkit import models
from adaptkit.architecture import Shape, SizeConfig, architecture, cache_bytes_per_token, choose_shape
from adaptkit.planning.config import PlanConfig
from adaptkit.study.spend import meta_model
from adaptkit.trainer.memory import STATE_BYTES, activation_bytes

SERVED_BYTES = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0, "int4": 0.5625}
"""Of a weight; int4 has a scale of two bytes for each group of 32."""
SERVED_SPEED = {"float32": 0.5, "bfloat16": 1.0, "int8": 2.0, "int4": 1.0}
"""Arithmetic of weights in this form, beside that of bfloat16."""
USABLE = 0.9
"""Share of a GPU's memory that a plan fills."""
MAX_TABLE_SHARE = 1 / 3
"""Of the parameters, in the table of tokens."""
SMALLEST_VOCABULARY = 2048


@dataclass(frozen=True)
class Size:
    """A model that could be made.

    Attributes:
        shape, vocab_size: what `adaptkit pretrain` would build for this number of parameters.
        train_flops: of one token of training.
        read_flops: of one token that is read or written while serving.
        state_bytes: weights, gradients and optimizer.
        kept_bytes: what one GPU keeps between forward and backward pass.
        weight_bytes: while serving.
        cache_bytes: keys and values of all requests that are answered at once.
    """

    shape: Shape
    vocab_size: int
    train_flops: float
    read_flops: float
    state_bytes: float
    kept_bytes: float
    weight_bytes: float
    cache_bytes: float

    @property
    def training_bytes(self) -> float:
        """On one GPU that holds all of it."""
        return self.state_bytes + self.kept_bytes

    @property
    def serving_bytes(self) -> float:
        return self.weight_bytes + self.cache_bytes


def size_of(params: int, config: PlanConfig) -> Size:
    """Lay out a model of so many parameters.

    Raises: ConfigError if no shape comes near it.
    """
    vocab_size = _vocab_size(params, config.vocab_size)
    shape = choose_shape(params, vocab_size)
    layout, traffic = config.training, config.traffic
    length = max(2, round(traffic.tokens_in + traffic.tokens_out))
    sized = SizeConfig(params=params, seq_len=layout.seq_len)
    model = meta_model(architecture(sized, vocab_size), "causal")
    tokens = layout.seq_len * layout.microbatch_size
    kept = activation_bytes(
        tokens, shape.layers, shape.width, dtype=layout.dtype, checkpointing=layout.gradient_checkpointing
    )
    number_bytes = 4 if config.serve_in == "float32" else 2
    per_token = cache_bytes_per_token(shape.layers, shape.heads, shape.width // shape.heads, number_bytes)
    return Size(
        shape=shape,
        vocab_size=vocab_size,
        train_flops=_training(model, config),
        read_flops=models.flops_per_token(model, max(1, length // 2)).forward,
        state_bytes=shape.parameters * STATE_BYTES,
        kept_bytes=kept,
        weight_bytes=shape.parameters * SERVED_BYTES[config.serve_in],
        cache_bytes=per_token * length * traffic.at_once,
    )


def _training(model: Any, config: PlanConfig) -> float:
    """FLOPs per token of training; checkpointing computes the forward pass twice."""
    flops = models.flops_per_token(model, config.training.seq_len)
    again = flops.forward if config.training.gradient_checkpointing else 0.0
    return flops.train + again


def _vocab_size(params: int, wanted: int) -> int:
    """The vocabulary asked for, halved while its table would take over a third of the parameters."""
    size = wanted
    while size // 2 >= SMALLEST_VOCABULARY and size * _usual_width(params) > MAX_TABLE_SHARE * params:
        size //= 2
    return size


def _usual_width(params: int) -> float:
    """Width of a model of 12 * width^2 weights a layer whose width is 64 times its layers."""
    return (params * 64 / 12) ** (1 / 3)


def gpus_needed(whole_bytes: float, each_bytes: float, memory_bytes: float) -> int:
    """GPUs that hold `whole_bytes` divided among them, with `each_bytes` on each; 0 where none would do."""
    room = USABLE * memory_bytes - each_bytes
    if room <= 0:
        return 0
    return max(1, math.ceil(whole_bytes / room - 1e-9))
