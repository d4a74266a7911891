"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Words = Annotated[
    list[str] | None, typer.Argument(metavar="CONFIG.yaml [key=value ...]", help="A config and overrides.")
]
Root = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Resume = Annotated[bool, typer.Option(help="Go on where an earlier run of the same config stopped.")]

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL", help="Studies, runs, model folders, each also as NAME=FOLDER.", show_default=False
    ),
]
Arms = Annotated[
    list[str] | None,
    typer.Option("--arm", help="Of a study, instead of its recommended one; may be repeated."),
]
Task = Annotated[str | None, typer.Option(help="Of a study, instead of its primary task.")]
Seed = Annotated[
    int | None,
    typer.Option(help="Of a study, instead of the seed with the best dev score.", min=0, max=10**15),
]

EncoderFolder = Annotated[
    str, typer.Argument(metavar="MODEL", help="An encoder's folder or hub id.", show_default=False)
]
Documents = Annotated[list[str], typer.Argument(help="Files, folders or globs with text, and _id or id.")]
Dimensions = Annotated[
    int, typer.Option(help="Cut vectors to this Matryoshka size; 0 keeps all.", min=0, max=1_000_000)
]
Dtype = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="Arithmetic; bfloat16 is faster where there are units for it."),
]
