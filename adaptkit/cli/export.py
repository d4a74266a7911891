"""The command that writes a model as a folder that others load.

adaptkit export runs/STUDY         in a format that is served, measured against its source
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Seed, Task
from adaptkit.doctor import extras
from adaptkit.errors import ConfigError

app = typer.Typer()

Model = Annotated[Path | None, typer.Argument(metavar="MODEL", help="A study's, run's or model's folder.")]
Format = Annotated[
    Literal["bf16", "fp32", "int8", "int4", "fp8"], typer.Option(help="What weights are stored in.")
]
Method = Annotated[
    Literal["rtn", "gptq"], typer.Option(help="Round to nearest, or calibrated on training text.")
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where to; the run's export/FORMAT if not given.")
]
Arm = Annotated[str | None, typer.Option(help="Of a study, instead of its recommended one.")]
Calibration = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Text for gptq, instead of the run's.")
]
Evaluation = Annotated[
    Path | None, typer.Option("--eval", metavar="FILE", help="Text to measure on, instead of the run's.")
]
MaxLossBpb = Annotated[
    float | None, typer.Option(help="Bits per byte it may lose; by format if not given.", min=0, max=1000)
]
MaxLossScore = Annotated[
    float | None, typer.Option(help="Task score it may lose; by format if not given.", min=0, max=1)
]
Accuracy = Annotated[
    float | None,
    typer.Option(
        help="Of a classifier: the accuracy wanted of what it answers; it abstains from the rest. Without, "
        "half as many errors as on all.",
        min=0,
        max=1,
    ),
]
SignKey = Annotated[Path | None, typer.Option(metavar="PEM", help="Sign the folder (needs model-signing).")]
List = Annotated[bool, typer.Option("--list", help="Only say which formats this machine can serve.")]


@command(
    app,
    "export",
    [
        "adaptkit export runs/quickstart-1a2b3c4d",
        "adaptkit export runs/quickstart-1a2b3c4d --arm generic+lora --task intent --format int8",
        "adaptkit export runs/pretrain-5e6f7a8b --format int4 --method gptq",
        "adaptkit export models/general --format int8 --out models/general-int8 --eval notes.jsonl",
        "adaptkit export --list",
    ],
    exits="0 exported, within the stated loss",
)
def export(
    model: Model = None,
    format: Format = "bf16",
    method: Method = "rtn",
    out: Out = None,
    arm: Arm = None,
    task: Task = None,
    seed: Seed = None,
    calibration: Calibration = None,
    evaluation: Evaluation = None,
    max_loss_bpb: MaxLossBpb = None,
    max_loss_score: MaxLossScore = None,
    sign_key: SignKey = None,
    accuracy: Accuracy = None,
    list_: List = False,
) -> Outcome:
    """Write a model folder for transformers, vLLM and others.

    Merged weights, tokenizer, card, digests and bill of materials; refused where it answers worse than
    stated.
    """
    if list_:
        from adaptkit.export import formats, hardware

        rows = formats.listing(hardware.look())
        return Outcome(formats.table(rows), {"formats": [dataclasses.asdict(row) for row in rows]})
    if model is None:
        fix = "give a study's, run's or model's folder, or --list"
        raise ConfigError("no model was given", where="command line", fix=fix)
    if sign_key is not None:
        extras.require("sign", extras.SIGNING_MODULES, "--sign-key")
    from adaptkit.export import driver
    from adaptkit.export.resolve import resolve
    from adaptkit.serve.status import StatusLine

    limits = (max_loss_bpb, max_loss_score)
    options = driver.Options(out, method, evaluation, calibration, *limits, sign_key, accuracy)
    source = resolve(find_run(model), arm=arm, task=task, seed=seed)
    status = StatusLine()
    try:
        done = driver.export(source, format, options, lambda text: status.phase(source.name, text))
    finally:
        status.quiet()
    next_step = (
        f'adaptkit verify {done.folder}; adaptkit try {done.folder} "a text"; adaptkit serve {done.folder}'
    )
    return Outcome(f"{done.summary()}\n\nnext: {next_step}", {**done.as_json(), "next": next_step})
