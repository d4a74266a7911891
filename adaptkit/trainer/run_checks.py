"""Settle before a run starts which operators it uses, and check that its settings fit together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import torch

from adaptkit import ops
from adaptkit.errors import ConfigError, DataError
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.device import peak_flops
from adaptkit.trainer.objective import Objective
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.row_source import Source

USUAL_SHARE, COMPILING_TAKES = 0.3, 60.0
"""Share of a GPU's data-sheet speed that an uncompiled run reaches, and the seconds that compiling takes."""
SAVED, SAVED_OF_RECORDED = 0.2, 0.02
"""Share of its time that compiling saves a run, and one whose steps are recorded: 28 % of 125M, and 1 to 4 %
from 10M to 1B, measured on an H200."""


def resolve(objective: Objective, implementation: str, device: torch.device) -> Objective:
    """The objective with its fused operators chosen by name; what an objective was built with wins over the
    config."""
    built_with = getattr(objective, "implementation", None)
    if built_with is None:
        return objective
    if built_with != "auto":
        implementation = built_with
    return dataclasses.replace(cast(Any, objective), implementation=ops.resolve(implementation, device))


def compiles(
    config: TrainerConfig,
    objective: Objective,
    device: torch.device,
    step_flops: Callable[[], float],
    recorded: bool,
) -> bool:
    """Whether the blocks are compiled; "auto" does it where that saves more time than it takes.

    Args:
        step_flops: what one step costs, asked only where it matters.
        recorded: whether steps are replayed, which leaves less to save.
    """
    if config.compile != "auto":
        return config.compile
    peak = peak_flops(device)
    if peak is None or not getattr(objective, "repeatable", False) or config.parallel == "fsdp":
        return False
    seconds = config.num_steps * step_flops() / (USUAL_SHARE * peak)
    saved = SAVED_OF_RECORDED if recorded else SAVED
    return seconds * saved > COMPILING_TAKES


def check(
    objective: Objective, train: Source, eval: Source | None, config: TrainerConfig, ranks: Ranks
) -> None:
    """Raises: ConfigError or DataError for settings that do not fit the data, the objective or the number of
    ranks."""
    if not len(train):
        raise DataError("there are no training examples", fix="give more text, or a smaller sequence length")
    if eval is not None and not len(eval):
        raise DataError("there are no evaluation examples", fix="give more held-out text, or none")
    if config.select == "best" and eval is None:
        fix = "give dev data, or set trainer.select=last"
        raise ConfigError("select=best needs evaluation data", where="trainer.select", fix=fix)
    share, rest = divmod(config.global_batch_size, ranks.world_size)
    if rest:
        fix = f"choose a multiple of {ranks.world_size}"
        what = f"global_batch_size {config.global_batch_size} cannot be split over {ranks.world_size} ranks"
        raise ConfigError(what, where="trainer.global_batch_size", fix=fix)
    split = ranks.world_size > 1 or 0 < config.microbatch_size < share
    if not objective.separable and split and not hasattr(objective, "contrast"):
        what = (
            f"{type(objective).__name__} looks at the whole batch at once, "
            "so it cannot be split into microbatches or ranks"
        )
        raise ConfigError(
            what, where="trainer.microbatch_size", fix="set trainer.microbatch_size=0 and use one process"
        )
    if config.parallel == "fsdp" and config.optimizer == "adamw8bit":
        fix = "set trainer.optimizer=adamw"
        raise ConfigError("adamw8bit does not work on sharded weights", where="trainer.optimizer", fix=fix)
