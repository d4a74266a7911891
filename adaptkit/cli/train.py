"""The command that makes a small model of a large one.

    adaptkit distill distill.yaml --plan       the student's size, speed and memory; nothing trains
    adaptkit distill distill.yaml

Everything heavy is imported inside the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adaptkit.cli.console import Outcome, command

app = typer.Typer()


@command(
    app,
    "distill",
    [
        "adaptkit distill configs/distill.yaml --plan",
        "adaptkit distill configs/distill.yaml student.layers=4 losses.hidden=1",
        "adaptkit distill configs/distill.yaml student.width=384 student.vocab_size=16k",
        "adaptkit distill configs/distill.yaml signal=offline temperature=2",
        "adaptkit distill configs/distill.yaml student.start=models/small adapter.kind=lora",
        "adaptkit distill configs/distill.yaml teacher=http://127.0.0.1:8000 student.start=models/small signal=text",
        "torchrun --nproc-per-node 8 -m adaptkit distill configs/distill.yaml",
    ],
)
def distill(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG.yaml [key=value ...]", help="A config and overrides."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print size, expected speed-up and memory; train nothing.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run of the same config stopped.")
    ] = True,
    root: Annotated[Path, typer.Option(help="The folder that holds all runs.")] = Path("runs"),
) -> Outcome:
    """Make a small student of a large teacher.

    Fewer blocks, less width or fewer tokens: of a language model, a classifier or an encoder.
    """
    from adaptkit.cli import arguments, render
    from adaptkit.config import load
    from adaptkit.distill import recipe
    from adaptkit.distill.config import DistillConfig

    path, overrides = arguments.divide(words, needed=True)
    loaded = load(DistillConfig, path, overrides)
    if plan:
        from adaptkit.distill.estimate import plan as planned

        found = planned(loaded.config)
        return Outcome(_shown(found), found)
    run = arguments.open_run(loaded.config, root, resume=resume)
    found = render.result_json(run, recipe.distill(loaded.config, run))
    return Outcome(render.result(found), found)


def _shown(found: dict[str, Any]) -> str:
    """A plan as a table: the student beside its teacher."""
    from adaptkit.cli import render

    sides = [side for side in ("student", "teacher") if side in found]
    rows = [("", *sides)]
    for name, value in found["student"].items():
        told = (f"{found[side][name]:,}" if isinstance(value, int) else found[side][name] for side in sides)
        rows.append((name.replace("_", " "), *told))
    rows.append(("served in bf16", *(_bytes(found["serving_bytes"][side]) for side in sides)))
    text = render.table(rows)
    if speed := found["expected_speed_up"]:
        text += "\n\nexpected speed-up: " + ", ".join(f"{ratio:.2f}x {what}" for what, ratio in speed.items())
    memory = found["training_bytes"]
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if size)
    if found["trained"] < found["student"]["params"]:
        parts += f"; {found['trained']:,} parameters learn"
    if found["stored_bytes_per_token"]:
        text += f"\nthe teacher's answers on disk: {found['stored_bytes_per_token']} bytes per token of text"
    return f"{text}\ntraining: about {_bytes(sum(memory.values()))} of memory ({parts}), {found['flops']:.2g} FLOPs"


def _bytes(size: float) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
