"""Compares strategies: the stages of a study, from the plan to the verdict.

    from adaptkit import compare

    outcome = compare("study.yaml", overrides=["seeds=5"])
    print(outcome.verdict_line, outcome.report_path)

`adaptkit.compare` is this package, and it can be called: a function of that name could not stand beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from adaptkit.compare.driver import StudyOutcome
    from adaptkit.study.config import StudyConfig


def compare(
    study: StudyConfig | str | Path,
    root: str | Path = "runs",
    *,
    overrides: Sequence[str] = (),
    executor: Literal["local", "ray"] = "local",
    resume: bool = True,
) -> StudyOutcome:
    """Run a study to its verdict; a study that was killed goes on where it stopped.

    Args:
        study: a config, or the path of its YAML file.
        root: the folder that holds all runs.
        overrides: `key=value`, as on the command line; for a file only.
        executor: run stages as processes here, or as tasks on a Ray cluster.
        resume: False starts the study's stages afresh; finished trainings of the same config are still found.
    Raises: AdaptkitError for anything that you can mend.
    """
    from adaptkit.compare import driver
    from adaptkit.config import load
    from adaptkit.study.config import StudyConfig

    config = study if isinstance(study, StudyConfig) else load(StudyConfig, study, list(overrides)).config
    outcome = driver.compare(config, Path(root), executor=executor, resume=resume)
    assert not isinstance(outcome, dict), "only a dry run returns a plan"
    return outcome


class _CallablePackage(ModuleType):
    """This package as a function."""

    __call__ = staticmethod(compare)


sys.modules[__name__].__class__ = _CallablePackage
