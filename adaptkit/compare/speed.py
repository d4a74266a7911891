"""What this machine does with the study's model: FLOPs per token, speed, memory, stages at once. Measured
before planning."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from adaptkit import models
from adaptkit.errors import ConfigError
from adaptkit.study.base_model import TextKind, base_shape
from adaptkit.study.config import StudyConfig
from adaptkit.trainer.device import free_cores

PROBE_S = 1.5
PROBE_PARAMS = 20e6  # a larger model's speed is measured on its first layers
ONE_THREAD_PARAMS = 10e6
STATE_BYTES = 16  # fp32 weight, gradient and two Adam moments
ACTIVATION_FLOATS = 34
"""Bytes in half precision per token, layer and hidden unit, without checkpointing (Korthikanti et al. 2022,
section 4)."""


@dataclass(frozen=True)
class Machine:
    """What was measured before planning.

    Attributes:
        flops_per_token: training FLOPs per token of the base model.
        flops_per_second: training speed of one stage.
        memory_bytes: predicted peak memory of one training stage.
        jobs: stages at once.
    """

    flops_per_token: float
    flops_per_second: float
    memory_bytes: float
    jobs: int


def measure(config: StudyConfig) -> Machine:
    """Time a few training steps of the base's shape on random tokens."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape, kind = base_shape(config)
    if kind == "masked" and config.primary == "language":
        raise ConfigError(
            "a masked base gives no bits per byte, so it cannot decide on language",
            where="primary",
            fix="name a labelled task as `primary`",
        )
    with torch.device("meta"):
        model = models.build(shape, kind, seed=0)
    seq_len, rows = config.size.seq_len, config.trainer.microbatch_size or config.trainer.global_batch_size
    flops = models.flops_per_token(model, seq_len).train
    count = models.param_count(model).total
    tokens = rows * seq_len
    activations = 4 * tokens * shape.hidden_size * shape.num_hidden_layers * ACTIVATION_FLOATS / 2
    # A model this small gains nothing from a second thread, and loses tenfold where another process wants the
    # core.
    jobs = config.jobs or (free_cores() if device == "cpu" and count < ONE_THREAD_PARAMS else 1)
    return Machine(flops, _speed(shape, kind, seq_len, device), count * STATE_BYTES + activations, jobs)


def _speed(shape: Any, kind: TextKind, seq_len: int, device: str) -> float:
    """Training FLOPs per second of a model of this width on one thread, or on the GPU."""
    probe = type(shape).from_dict(shape.to_dict())
    with torch.device("meta"):
        while (
            probe.num_hidden_layers > 1
            and models.param_count(models.build(probe, kind, seed=0)).total > PROBE_PARAMS
        ):
            probe.num_hidden_layers //= 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = models.build(probe, kind, seed=0).train()
        torch.nn.Module.to(model, device)
        tokens = torch.randint(0, probe.vocab_size, (8, seq_len), device=device)
        step_flops = models.flops_per_token(model, seq_len).train * tokens.numel()
        steps, begun = -1, time.monotonic()
        while time.monotonic() - begun < PROBE_S or steps < 1:
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            steps += 1
            if steps == 0:  # the first step pays for set-up
                begun = time.monotonic()
        return step_flops * steps / (time.monotonic() - begun)
    finally:
        torch.set_num_threads(threads)
