"""How much domain text a model from scratch reads among general text, and whether the texts are enough.

The share is a setting, and so is how often the domain text may be read: a small text is repeated up to that,
and general text fills the rest (arXiv 2603.16177).
"""

from __future__ import annotations

from adaptkit.study.config import MixedConfig

LEAST_SHARE = 0.01
"""Of the rows: with less domain text than this a model is a general one."""


def domain_share(mixed: MixedConfig, num_tokens: float, domain_tokens: float) -> float:
    """The share of domain rows among `num_tokens` that are read: as set, or what the passes allow."""
    return min(mixed.domain_share, mixed.repetitions * domain_tokens / num_tokens)


def why_no_mixture(mixed: MixedConfig, share: float, general_passes: float) -> str:
    """Why two texts make no mixture: a sentence, or nothing where they do.

    Args:
        share: of domain rows.
        general_passes: how often the general text would be read.
    """
    passes = f"{mixed.repetitions:g} passes"
    if share < LEAST_SHARE:
        return f"{passes} over the domain text are {share:.1%} of what the budget reads: give more of it"
    if general_passes > mixed.repetitions:
        read = f"the general text would be read {general_passes:.0f} times"
        return f"{read}, and more than {passes} teach little: give more of it, or raise mixed.domain_share"
    return ""
