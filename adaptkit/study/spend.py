"""What a training spends beside learning: scoring its candidate on development data is paid from the same
budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adaptkit import models
from adaptkit.errors import BudgetError
from adaptkit.run import Run, read_sealed, write_sealed


def meta_model(shape: Any, kind: models.Kind, num_labels: int | None = None) -> Any:
    """A model of a transformers config without weights, to count its parameters and FLOPs."""
    with torch.device("meta"):
        return models.build(shape, kind, seed=0, num_labels=num_labels)


def forward_flops(model: Any, lengths: Sequence[int]) -> float:
    """FLOPs of reading texts of so many tokens once, without training."""
    if not lengths:
        return 0.0
    mean = max(1, round(sum(lengths) / len(lengths)))
    return sum(lengths) * models.flops_per_token(model, mean).forward


def token_lengths(tokenizer: Any, texts: Sequence[str], max_length: int = 0) -> list[int]:
    """Tokens of each text, cut at `max_length` where one is given."""
    lengths = [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
    return [min(length, max_length) for length in lengths] if max_length else lengths


def after_scoring(flops: float, scoring: float, what: str) -> float:
    """What is left to learn with once a candidate's scoring is paid for.

    Raises: BudgetError where nothing is.
    """
    if flops <= scoring:
        spent = f"{what}: scoring on development data takes {scoring:.2e} of {flops:.2e} FLOPs"
        fix = "raise budget.amount or budget.trial_share, or lower dev_items"
        raise BudgetError(f"{spent}, which leaves nothing to learn with", where="budget.amount", fix=fix)
    return flops - scoring


def charge_scoring(run: Run, flops: float) -> None:
    """Add what scoring a finished run's candidate took to its cost.json, once."""
    cost = read_sealed(run.cost_path)
    if "scoring_flops" not in cost:
        write_sealed(run.cost_path, {**cost, "flops": cost["flops"] + flops, "scoring_flops": flops})
