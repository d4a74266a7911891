"""Turn a budget, or a number of passes over the data, into optimizer steps. Imports no torch."""

from __future__ import annotations

from adaptkit.errors import BudgetError


def steps_within(
    flops: float, flops_per_step: float, *, fix: str, least: int = 1, what: str = "", where: str = "flops"
) -> int:
    """Optimizer steps that `flops` pay for.

    Args:
        least: fewer steps than these are refused.
        what: what is trained, for the message.
        where: the setting that holds the budget.
    Raises: BudgetError below `least` steps.
    """
    steps = int(flops // flops_per_step)
    if steps < least:
        message = f"{flops:.2e} FLOPs buy {steps} steps of {flops_per_step:.2e}; at least {least} needed"
        if what:
            message = f"{what}: {message}"
        raise BudgetError(message, where=where, fix=fix)
    return steps


def steps_of_epochs(epochs: float, num_examples: int, batch_size: int) -> int:
    """Optimizer steps of so many passes over the examples; at least one."""
    return max(1, round(epochs * num_examples / batch_size))


def is_due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps (0: never) is done after this one."""
    return every > 0 and step % every == 0
