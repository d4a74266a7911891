"""adaptkit: fine-tune, keep pretraining, or pretrain your own? One command answers, with error bars.

    from adaptkit import compare, load_study

    outcome = compare("study.yaml")                   # what `adaptkit compare study.yaml` does
    results = load_study(outcome.study_path)          # a finished study: arms, tasks, scores with intervals

Importing this package loads neither torch nor transformers: each name is imported when it is first used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from adaptkit.version import __version__

if TYPE_CHECKING:
    from adaptkit.compare import compare
    from adaptkit.study.results import collect as load_study

# Imported by transformers or peft, bitsandbytes warns of an optional kernel that would have to come from the
# hub and that nothing here uses; set before anything can import it, and this message only.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not str(record.msg).startswith("Failed to load CPU gemm_4bit_forward")
)

__all__ = ["__version__", "compare", "load_study"]


def __getattr__(name: str) -> object:
    """Import a public name on its first use."""
    if name == "load_study":
        from adaptkit.study.results import collect

        return collect
    if name == "compare":  # a package that can be called, so that it does not matter what is imported first
        import adaptkit.compare

        return adaptkit.compare
    raise AttributeError(f"module 'adaptkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
