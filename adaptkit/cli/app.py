"""The command line: `adaptkit COMMAND --help` shows what each command does, with examples.

    adaptkit init tickets.csv          a study for your own files, fitted to this machine
    adaptkit compare study.yaml        fine-tune, keep pretraining, or pretrain your own? with error bars
    adaptkit report runs/STUDY         write a study's report again
    adaptkit audit runs/STUDY          can its confidence be trusted, what does it keep, whom is it unfair to?
    adaptkit provenance FOLDER         from weights back to rows: sources, digests, who learnt a document
    adaptkit plan size=1B              sizes, tokens, hours, dollars and memory, before anything trains
    adaptkit pretrain pretrain.yaml    one model from scratch, or more pretraining of a base
    adaptkit finetune finetune.yaml    one model on one labelled task or on instructions
    adaptkit distill distill.yaml      a small student of a large teacher
    adaptkit embed train embed.yaml    an encoder; also encode, index, search, update, ...
    adaptkit try runs/STUDY "a text"   the recommended model's answer, without a server
    adaptkit export runs/STUDY         the recommended model as a folder, measured against its source
    adaptkit verify FOLDER             whether it still answers as it did when it was exported
    adaptkit serve runs/STUDY          the recommended model behind an OpenAI-compatible endpoint
    adaptkit bench runs/STUDY          what serving it costs
    adaptkit monitor LOG --against FILES   are texts that come in still like those that were learnt from?
    adaptkit deploy FOLDER --print compose   files for containers, a cluster, an init system, a scheduler
    adaptkit demo runs/STUDY           a page for the people who decide
    adaptkit votes FILE                which model people preferred there, with intervals
    adaptkit runs list                 what is in runs/, what can go, and a study as one file
    adaptkit models get smollm2        a base model where no hub is in reach
    adaptkit data check FILES          what is in these files, before anything trains
    adaptkit labels check FILE         which labels are probably wrong, as a CSV for people
    adaptkit labels next FILE          which rows people should label next
    adaptkit data shift FILES          how a domain differs from general text, and what to expect of it
    adaptkit data synthesise FILES     questions, rows or instructions by a generator, filtered
    adaptkit config show study.yaml    each value and where it came from
    adaptkit schema compare            JSON Schema of a config, for editors
    adaptkit doctor                    versions, devices, and each trap with the command that mends it

What is heavy is imported inside the command that needs it: no `--help` loads torch or transformers.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from adaptkit.cli import (
    audit,
    bench,
    compare,
    data,
    demo,
    deploy,
    embed,
    export,
    index,
    index_change,
    init,
    labelling,
    models,
    monitor,
    plan,
    provenance,
    runs,
    serve,
    synthesise,
    train,
    try_model,
    verify,
    votes,
)
from adaptkit.cli.console import run
from adaptkit.version import __version__

app = typer.Typer(
    name="adaptkit",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    init.app,
    compare.app,
    audit.app,
    provenance.app,
    plan.app,
    train.app,
    try_model.app,
    export.app,
    verify.app,
    serve.app,
    bench.app,
    deploy.app,
    monitor.app,
    demo.app,
    votes.app,
):
    app.add_typer(group)
embed.app.add_typer(index.app)
embed.app.add_typer(index_change.app)
app.add_typer(embed.app, name="embed")
app.add_typer(models.models, name="models")
app.add_typer(runs.runs, name="runs")
app.add_typer(synthesise.data, name="data")
app.add_typer(labelling.labels, name="labels")
app.add_typer(data.config, name="config")
app.add_typer(data.app)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    sys.exit(run(app, sys.argv[1:]))


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Fine-tune, keep pretraining, or pretrain your own? One command answers, with error bars."""
    if version:
        print(f"adaptkit {__version__}")
        raise typer.Exit
