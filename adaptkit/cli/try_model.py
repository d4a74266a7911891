"""The command that asks a trained model, without a server.

adaptkit try runs/STUDY "the printer is out of paper"
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Root, Seed, Task

if TYPE_CHECKING:
    from adaptkit.export.local_answers import LocalAnswer, LocalModel

app = typer.Typer()
STDIN = "-"

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="A study, run, export or model folder, or its name.", show_default=False
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts to answer; - or none reads one from each line of the input."),
]
Arm = Annotated[str | None, typer.Option(help="Of a study, instead of its recommended one.")]
SearchIn = Annotated[
    list[str] | None,
    typer.Option("--in", metavar="FILE", help="Documents that an encoder looks through. May be repeated."),
]
MaxTokens = Annotated[int, typer.Option("--tokens", help="Tokens to write at most.", min=1)]
NumDocuments = Annotated[int, typer.Option("-k", help="Documents to show.", min=1)]


@command(
    app,
    "try",
    [
        'adaptkit try runs/tickets-1a2b3c4d "the printer is out of paper"',
        'adaptkit try tickets "no more paper" --arm continued+full',
        'adaptkit try runs/pretrain-5e6f7a8b "In room seven" --tokens 20',
        'adaptkit try runs/embed-9c0d1e2f "does aspirin help?" --in notes.jsonl -k 3',
        "adaptkit try runs/finetune-9c0d1e2f - < lines.txt",
    ],
    exits="0 answered",
)
def try_model(
    model: Model,
    texts: Texts = None,
    arm: Arm = None,
    task: Task = None,
    seed: Seed = None,
    search_in: SearchIn = None,
    tokens: MaxTokens = 64,
    k: NumDocuments = 5,
    root: Root = Path("runs"),
) -> Outcome:
    """Ask a trained model, without a server.

    It answers as its kind does: with text, labels, numbers, names, or the nearest documents. Loaded once.
    """
    from adaptkit.export import local_answers
    from adaptkit.export.resolve import resolve

    source = resolve(find_run(model, root), arm=arm, task=task, seed=seed)
    about = local_answers.describe(source)
    for line in about:
        print(line, file=sys.stderr, flush=True)
    loaded = local_answers.load(source, search_in=search_in or [], max_new_tokens=tokens, k=k)
    given = texts or [STDIN]
    several = given != [given[0]] or given == [STDIN]
    rows = [_row(text, answer, several) for text, answer in _answers(loaded, given)]
    return Outcome((), {"model": source.name, "folder": str(source.folder), "about": about, "answers": rows})


def _answers(model: LocalModel, given: list[str]) -> Iterator[tuple[str, LocalAnswer]]:
    for word in given:
        for text in _lines() if word == STDIN else [word]:
            yield text, model.answer(text)


def _lines() -> Iterator[str]:
    """Texts from standard input, one a line; a person is asked for each."""
    asked = sys.stdin.isatty()
    while True:
        if asked:
            print("text (Ctrl-D ends): ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _row(text: str, answer: LocalAnswer, several: bool) -> dict[str, Any]:
    """Print an answer at once, under its text where there are several, and keep it for programs."""
    if several:
        print(f"> {text}")
    print("\n".join(answer.lines), flush=True)
    return {"text": text, **answer.data}
