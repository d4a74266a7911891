"""Show and log what a run does: four hooks, the metrics file, and the progress bar or its JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from adaptkit.run import Run

if TYPE_CHECKING:
    from adaptkit.trainer.result import TrainResult


class Hooks:
    """Called by the trainer at four places; subclass and override.

    Hooks see rows, never tensors, and run on rank 0 only.

    resume
    for each step:
        batches -> losses -> gradients -> clip -> update
        every log_every steps and after the last:   on_step_end(row)
        every eval_every steps and after the last:  on_eval(row)
        every checkpoint_every and after the last:  on_checkpoint(path)
    on_end(result)                                  also after an error, with None
    """

    def on_step_end(self, row: dict[str, Any]) -> None: ...

    def on_eval(self, row: dict[str, Any]) -> None: ...

    def on_checkpoint(self, path: Path) -> None: ...

    def on_end(self, result: TrainResult | None) -> None: ...


class MetricsFile(Hooks):
    """Every row into the run's metrics.jsonl."""

    def __init__(self, run: Run):
        self.run = run

    def on_step_end(self, row: dict[str, Any]) -> None:
        self.run.log_metrics(row)

    def on_eval(self, row: dict[str, Any]) -> None:
        self.run.log_metrics(row)


class JsonLines(Hooks):
    """One JSON object per row on stderr, for logs."""

    def on_step_end(self, row: dict[str, Any]) -> None:
        print(json.dumps(row), file=sys.stderr, flush=True)

    def on_eval(self, row: dict[str, Any]) -> None:
        print(json.dumps(row), file=sys.stderr, flush=True)


class Bar(Hooks):
    """A progress bar with loss, tokens/s, MFU and time to go, on a terminal."""

    def __init__(self, label: str, num_steps: int):
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(label, total=num_steps, numbers="")
        self.bar.start()

    def on_step_end(self, row: dict[str, Any]) -> None:
        numbers = f"loss {row['loss']:.4f}  {row['tokens_per_s']:,.0f} tokens/s"
        if row["mfu"] is not None:
            numbers += f"  MFU {row['mfu']:.1%}"
        self.bar.update(self.task, completed=row["step"], numbers=numbers)

    def on_eval(self, row: dict[str, Any]) -> None:
        self.bar.console.print(f"step {row['step']}: eval loss {row['eval_loss']:.4f}")

    def on_end(self, result: TrainResult | None) -> None:
        self.bar.stop()


def progress(label: str, num_steps: int) -> Hooks:
    """The bar on a terminal, JSON lines elsewhere."""
    if sys.stderr.isatty():
        return Bar(label, num_steps)
    return JsonLines()


def announce(label: str, facts: dict[str, Any]) -> None:
    """What is about to run, once, on stderr: words on a terminal, one JSON line elsewhere."""
    line = json.dumps({"label": label, **facts})
    if sys.stderr.isatty():
        shown = {name: value for name, value in facts.items() if value not in (None, {}, 0)}
        words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())
        line = f"{label}: {words}"
    print(line, file=sys.stderr, flush=True)
