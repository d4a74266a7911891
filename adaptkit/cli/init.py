"""The command that turns files of one's own into a study.

adaptkit init tickets.csv
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptkit.cli import render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Root

if TYPE_CHECKING:
    from adaptkit.compare.first_study import FirstStudy

app = typer.Typer()


@command(
    app,
    "init",
    [
        "adaptkit init tickets.csv",
        "adaptkit init tickets.csv tickets-test.csv manuals/ --minutes 60",
        "adaptkit init train.jsonl --base models/smollm2 --general 'news/*.txt'",
    ],
)
def init(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE [MORE]",
            help="Rows to learn, first; files named test or dev are held out; others are more text.",
            show_default=False,
        ),
    ],
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="The generic model; left out, a small one is made.")
    ] = "",
    general: Annotated[
        list[str] | None,
        typer.Option(help="General text; left out, the installed packages' documentation. May be repeated."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long the study may take.", min=1, max=1e5)] = 8,
    out: Annotated[Path, typer.Option(help="The config to write.")] = Path("study.yaml"),
    root: Root = Path("runs"),
) -> Outcome:
    """Write a study for your own files.

    Guesses columns, measures this machine, fits the budget to it, and shows what word counts reach.
    """
    from adaptkit.compare.first_study import first_study

    study = first_study(files, out=out, root=root, seconds=60 * minutes, base=base, general=general or [])
    next_step = f"adaptkit compare {out}" + ("" if root == Path("runs") else f" --root {root}")
    return Outcome(_shown(study, next_step), _data(study, next_step))


def _shown(study: FirstStudy, next_step: str) -> str:
    task = study.config.tasks[0] if study.config.tasks else None
    columns = ", ".join(f"{role}: {column}" for role, column in study.suggestion.columns.items())
    rows: list[tuple[object, ...]] = [
        ("learns", f"{task.name} ({task.kind})" if task else "the text alone: no column looks like a label"),
        ("columns", columns or "as they are named"),
    ]
    if study.suggestion.others:
        rows.append(("could be learnt too", ", ".join(study.suggestion.others)))
    for baseline in study.baselines:
        if baseline.score is not None:
            metric = baseline.metric.replace("_", " ")
            rows.append((f"{baseline.name}, no language model", f"{metric} {baseline.score:.3f}"))
    rows.append(("budget", f"{study.fit.amount:g} FLOPs per arm, task and seed"))
    rows.append(("time", f"about {render.duration(study.fit.seconds)}"))
    rows.append(("passes over the text", f"{study.fit.epochs:.2g}"))
    rows += _left_out(study)
    return f"{render.table(rows)}\n\nwrote {study.path}\nnext: {next_step}"


def _left_out(study: FirstStudy) -> list[tuple[object, ...]]:
    """Arms that do not run: those that a larger budget has room for, with that budget, and others."""
    missing = study.room.arms if study.room else ()
    rows: list[tuple[object, ...]] = []
    if study.room:
        larger = f"budget.amount={study.room.amount:g}, about {render.duration(study.room.seconds)}"
        rows += [("no room for", ", ".join(missing)), ("room for them", larger)]
    if others := [name for name in study.left_out if name not in missing]:
        rows.append(("left out too", f"{', '.join(others)} (--dry-run says why)"))
    return rows


def _data(study: FirstStudy, next_step: str) -> dict[str, object]:
    return {
        "config": str(study.path),
        "columns": study.suggestion.columns,
        "label": study.suggestion.label,
        "other_labels": list(study.suggestion.others),
        "baselines": [
            {"name": baseline.name, "metric": baseline.metric, "score": baseline.score}
            for baseline in study.baselines
        ],
        "budget": {"flops": study.fit.amount, "bound": study.fit.bound, "epochs": study.fit.epochs},
        "seconds": study.fit.seconds,
        "left_out": list(study.left_out),
        "room": dataclasses.asdict(study.room) if study.room else None,
        "next": next_step,
    }
