"""The command that plans a model before it is trained.

adaptkit plan size=1B text_bytes=50G
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli import arguments, render
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Words
from adaptkit.config import load

if TYPE_CHECKING:
    from adaptkit.planning.outcome import Answer, Plan, Row

app = typer.Typer()
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


@command(
    app,
    "plan",
    [
        "adaptkit plan text_bytes=50G",
        "adaptkit plan size=1B gpu.name=A100 traffic.requests_per_month=10M",
        "adaptkit plan usd=10000 text.files=[corpus/] --json",
        "adaptkit plan --study runs/STUDY gpu_hours=200",
        "adaptkit plan size=13B law=sardana-2024 minimise=flops traffic.requests_per_month=2G "
        "traffic.tokens_in=1000 traffic.tokens_out=0 traffic.months=1",
    ],
)
def plan(
    words: Words = None,
    study: Annotated[
        Path | None, typer.Option(metavar="STUDY", help="Take this study's speed, price and scaling law.")
    ] = None,
) -> Outcome:
    """Plan a model: which size, how many tokens, what it costs to train and to serve.

    A table of sizes from 1M to 10B parameters, each trained for as long as its law says is best, with memory,
    hours and dollars. With a goal (size, loss, usd or gpu_hours) also the best buy, first for training alone,
    then with serving counted. Laws, prices and speeds are named; all of them can be set.
    """
    from adaptkit.planning.config import PlanConfig
    from adaptkit.planning.planner import make_plan

    path, overrides = arguments.divide(words, needed=False)
    if study is not None:
        overrides.append(f"study={arguments.find_run(study, study=True)}")
    made = make_plan(load(PlanConfig, path, overrides).config)
    return Outcome(as_text(made), as_json(made))


def as_json(made: Plan) -> dict[str, Any]:
    """A plan for programs; text without end is null."""
    fields = dataclasses.asdict(made)
    fields["law"] = {name: _finite(value) for name, value in fields["law"].items()}
    fields["text_tokens"] = _finite(made.text_tokens)
    price = made.gpu.price
    fields["gpu"]["price"] = None if price is None else price.model_dump(mode="json")
    return fields


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if value == math.inf else value


def as_text(made: Plan) -> str:
    """A plan for people: the table, the best buys, and what was assumed."""
    head = ("size", "shape", "tokens", "passes", "loss", "FLOPs", "GPU hours", "to train")
    tail = ("training memory", "serving memory", "GPUs serving", "to serve")
    lines: list[tuple[object, ...]] = [(*head, *tail)]
    lines += [_row(made, row) for row in made.rows]
    parts = [render.table(lines)]
    parts += [f"no row for {size}: {why}" for size, why in made.left_out.items()]
    if beyond := [count(row.params) for row in made.rows if row.beyond]:
        parts.append(f"beyond what the law was fitted on, so its losses are guesses: {', '.join(beyond)}")
    if made.answers:
        parts.append(_answers(made))
    parts.append("\n".join(["what is assumed:", *(f"- {sentence}" for sentence in made.assumptions)]))
    return "\n\n".join(parts)


def _row(made: Plan, row: Row) -> tuple[object, ...]:
    return (
        count(row.params),
        f"{row.layers} x {row.width}",
        count(row.tokens),
        f"{row.passes:.2g}" if row.passes else "",
        loss_text(row),
        f"{row.train_flops:.2g}",
        f"{row.train_hours:.3g}",
        _usd(row.train_usd),
        fits(row.training_bytes, row.training_gpus, made),
        fits(row.serving_bytes, row.serving_gpus, made),
        row.servers or "",
        "" if not row.servers else f"{_usd(row.serve_usd_per_month)} a month",
    )


def loss_text(of: Row | Answer) -> str:
    """`1.642`, or by a study's own law `1.642 [1.630, 1.655]`."""
    if of.loss_low is None or of.loss_high is None:
        return f"{of.loss:.3f}"
    return f"{of.loss:.3f} [{of.loss_low:.3f}, {of.loss_high:.3f}]"


def fits(num_bytes: float, num_gpus: int, made: Plan) -> str:
    """Memory, and whether one GPU has it."""
    size = f"{num_bytes / 1e9:.2g} GB" if num_bytes < 1e10 else f"{num_bytes / 1e9:.0f} GB"
    if not made.gpu.memory_bytes or num_gpus == 1:
        return size
    if not num_gpus:
        return f"{size}: does not fit any number of {made.gpu.name}, use smaller microbatches"
    return f"{size}: does not fit one {made.gpu.name}, needs {num_gpus}"


def _answers(made: Plan) -> str:
    costs = (f"{made.unit} to train", "to serve", "together", "")
    lines: list[tuple[object, ...]] = [("best buy", "size", "tokens", "passes", "loss", *costs)]
    lines += map(_answer, made.answers)
    text = render.table(lines)
    if made.saved:
        first, last = made.answers[0], made.answers[-1]
        text += (
            f"\n{count(last.params)} trained on {count(last.tokens)} tokens is as good as the "
            f"compute-optimal {count(first.params)}, and takes {made.saved:.1%} less to train and serve."
        )
    doubts = [f"{answer.title}: {answer.beyond}." for answer in made.answers if answer.beyond]
    return "\n".join([text, *doubts])


def _answer(answer: Answer) -> tuple[object, ...]:
    return (
        answer.title,
        count(answer.params),
        count(answer.tokens),
        f"{answer.passes:.2g}" if answer.passes else "",
        loss_text(answer),
        f"{answer.train:.3g}",
        f"{answer.serve:.3g}",
        f"{answer.whole:.3g}",
        "" if answer.usd is None else _usd(answer.usd),
    )


def count(number: float) -> str:
    """`6970000000` -> `6.97B`."""
    for size, letter in _COUNTS:
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.0f}"


def _usd(usd: float | None) -> str:
    if usd is None:
        return "no price"
    return f"${usd:,.2f}" if usd < 100 else f"${usd:,.0f}"
