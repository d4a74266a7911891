"""At which other sizes a study trains its models from scratch, and what a dry run says of them.

Every size spends the FLOPs of the run that is compared, so a larger model reads less text. One that would
take too few steps, or has no shape for the vocabulary, is left out with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.compare.build_stages import scores_text
from adaptkit.compare.costs import Costs
from adaptkit.errors import ConfigError
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.budget import MIN_STEPS, Budget
from adaptkit.study.config import StudyConfig


def choose_rungs(config: StudyConfig, budget: Budget, costs: Costs, arms: Sequence[Arm]) -> tuple[int, ...]:
    """The sizes beside the study's own that can be trained, ascending."""
    origins = _from_scratch(config, arms)
    sizes = [size for size in config.ladder if size != config.size.params and origins]
    return tuple(size for size in sizes if not _why_not(config, budget, costs, origins, size))


def _from_scratch(config: StudyConfig, arms: Sequence[Arm]) -> list[Origin]:
    if not scores_text(config):
        return []
    return [arm.origin for arm in arms if arm.ledger == "text" and arm.origin.starts_random]


def _why_not(
    config: StudyConfig, budget: Budget, costs: Costs, origins: Sequence[Origin], params: int
) -> str:
    """Why a size cannot be trained; empty where it can."""
    sized = costs.at_size(params)
    try:
        lacking = [_times_too_small(budget, sized, origin) for origin in origins]
    except ConfigError as error:
        return error.what
    if max(lacking) <= 1:
        return ""
    amount = config.budget.amount * max(lacking)
    return f"its runs would be shorter than {MIN_STEPS} steps: it needs budget.amount={amount:.2g}"


def _times_too_small(budget: Budget, costs: Costs, origin: Origin) -> float:
    needed = MIN_STEPS * costs.text_step(origin) + costs.text_scoring(origin)
    return needed / budget.run(budget.text)


def size_sentences(
    config: StudyConfig, budget: Budget, costs: Costs, arms: Sequence[Arm], rungs: Sequence[int]
) -> list[str]:
    """What a dry run says of other sizes: which, what they cost and read, and which cannot be trained."""
    if not config.sizes:
        return []
    origins = _from_scratch(config, arms)
    if not origins:
        return ["sizes: none, as no arm from scratch is scored in bits per byte"]
    granted = budget.run(budget.text)
    flops = granted * len(rungs) * len(origins)
    own = size_name(config.size.params)
    others = ", ".join(map(size_name, rungs)) or "no other size"
    cost = f"{flops:.2g} FLOPs a seed beside the budget"
    lines = [
        f"sizes: {', '.join(origins)} also at {others}, {cost}; rates carried over from {own} by 1 / width"
    ]
    for size in config.ladder:
        if size in rungs or size == config.size.params:
            sized = costs.at_size(size)
            steps = min(int((granted - sized.text_scoring(o)) / sized.text_step(o)) for o in origins)
            lines.append(f"  {size_name(size)}: {steps:,} steps")
        else:
            lines.append(f"  {size_name(size)}: left out, {_why_not(config, budget, costs, origins, size)}")
    return lines


def size_name(params: int) -> str:
    """`3M`."""
    return f"{params / 1e6:.3g}M"
