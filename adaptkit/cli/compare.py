"""The commands of a study: run it to its verdict, and write its report again.

adaptkit compare study.yaml
adaptkit report runs/STUDY
adaptkit report runs/STUDY runs/OTHER
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Resume, Root, Words
from adaptkit.config import load
from adaptkit.errors import ConfigError, DataError
from adaptkit.run import Run
from adaptkit.study.config import StudyConfig
from adaptkit.study.record import is_study

if TYPE_CHECKING:
    from adaptkit.compare.driver import StudyOutcome

app = typer.Typer()

Quickstart = Annotated[
    bool, typer.Option("--quickstart", help="Run the built-in study; needs no data, hub or GPU.")
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Print every arm with its FLOPs and time, and those left out; train nothing."
    ),
]
Executor = Annotated[Literal["local", "ray"], typer.Option(help="Processes here, or tasks on a Ray cluster.")]


@command(
    app,
    "compare",
    [
        "adaptkit compare --quickstart",
        "adaptkit compare study.yaml --dry-run",
        "adaptkit compare study.yaml budget.amount=3e14 seeds=5",
        "adaptkit compare study.yaml --executor ray --root /shared/runs",
        "adaptkit compare study.yaml --json > verdict.json",
    ],
    exits="0 decided, 3 undecided",
)
def compare(
    words: Words = None,
    quickstart: Quickstart = False,
    dry_run: DryRun = False,
    executor: Executor = "local",
    resume: Resume = True,
    root: Root = Path("runs"),
) -> Outcome:
    """Say which strategy to take on your text, with error bars.

    Runs every arm under one budget and ends in one VERDICT line and a report.
    """
    from adaptkit.compare import driver

    path, overrides = arguments.divide(words, needed=not quickstart)
    if quickstart:
        path = arguments.write_quickstart(root, path)
    loaded = load(StudyConfig, path, overrides)
    outcome = driver.compare(loaded.config, root, dry_run=dry_run, executor=executor, resume=resume)
    if isinstance(outcome, dict):
        next_step = shlex.join(["adaptkit", "compare", *(words or ["--quickstart"])])
        if root != Path("runs"):
            next_step += f" --root {root}"
        return Outcome((render.plan(outcome), f"next: {next_step}"), {**outcome, "next": next_step})
    return _concluded(outcome)


def _concluded(outcome: StudyOutcome) -> Outcome:
    data = {**outcome.as_json(), "next": render.next_steps(outcome)}
    return Outcome(render.verdict(outcome), data, outcome.exit_code)


@command(
    app,
    "report",
    ["adaptkit report quickstart", "adaptkit report runs/tickets-1a2b3c4d runs/tickets-5e6f7a8b"],
    exits="0 decided, 3 undecided",
)
def report(
    studies: Annotated[
        list[Path],
        typer.Argument(
            metavar="STUDY [OTHER]",
            help="A study's run directory or name, or two of them.",
            show_default=False,
        ),
    ],
    root: Root = Path("runs"),
) -> Outcome:
    """Write a finished study's report again, or show what changed between two studies.

    Reads the run directories and trains nothing.
    """
    from adaptkit.compare import driver

    studies = [arguments.find_run(study, root, study=True) for study in studies]
    for study in studies:
        if not is_study(study):
            fix = "give the folder that `adaptkit compare` named, or a name of `adaptkit runs list`"
            raise DataError("holds no finished study", where=str(study), fix=fix)
    if len(studies) == 1:
        return _concluded(driver.conclude(Run(studies[0])))
    if len(studies) > 2:
        raise ConfigError(f"{len(studies)} studies were given", where="STUDY", fix="give one or two")
    from adaptkit.report.changes import compare_studies

    changes = compare_studies(*studies)
    return Outcome(render.changes(changes), dataclasses.asdict(changes))
