"""What a study shows while it runs: a rich bar on a terminal, one JSON line per event otherwise."""

from __future__ import annotations

import json
import sys
from typing import Any

from adaptkit.compare.stage import Stage
from adaptkit.study.stage_record import StageKey


class Progress:
    """Shows how far a study is; used as a context."""

    def __init__(self, stages: list[Stage], done: set[StageKey]):
        self.weights = {stage.key: max(stage.flops, 1e-9) for stage in stages}
        self.total, self.done = sum(self.weights.values()), sum(self.weights[key] for key in done)
        self.counts = [len(done), len(stages)]
        self.running: list[str] = []
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.fields[count]}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.add_task("", total=self.total, completed=self.done, count=self._count())
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def started(self, stage: Stage) -> None:
        self.running.append(stage.name)
        self._show({"event": "started", "stage": stage.name, "describe": stage.describe})

    def finished(self, stage: Stage, seconds: float) -> None:
        self.running.remove(stage.name)
        self.done += self.weights[stage.key]
        self.counts[0] += 1
        self._show(
            {"event": "finished", "stage": stage.name, "seconds": round(seconds, 1), "done": self._count()}
        )

    def _count(self) -> str:
        return f"{self.counts[0]}/{self.counts[1]} stages"

    def _show(self, event: dict[str, Any]) -> None:
        if self.bar:
            self.bar.update(
                self.bar.task_ids[0],
                completed=self.done,
                count=self._count(),
                description=", ".join(self.running[:3]),
            )
        else:
            print(json.dumps(event), file=sys.stderr, flush=True)
