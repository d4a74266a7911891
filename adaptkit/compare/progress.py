"""What a study shows while it runs: a rich bar on a terminal, one JSON line per event otherwise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from adaptkit.compare.plan import Plan
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import result_path
from adaptkit.study.record import StudyRecord
from adaptkit.study.stage_record import (
    RESULTS,
    BaselineResult,
    LanguageResult,
    StageKind,
    TaskResult,
    read_result,
)


class Progress:
    """Shows how far a study is; used as a context."""

    def __init__(self, plan: Plan, study: Path):
        done = plan.finished(study)
        self.study = study
        self.weights = {stage.key: max(plan.seconds(stage), 1e-9) for stage in plan.stages}
        self.total, self.done = sum(self.weights.values()), sum(self.weights[key] for key in done)
        self.counts = [len(done), len(plan.stages)]
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
        if stage.key.kind is StageKind.BASELINE:
            self._show_baseline(stage)
        if stage.key.trial is not None:
            self._show_divergence(stage)

    def compare(self, record: StudyRecord) -> None:
        """Say what was predicted and what it took."""
        if record.plan is None:
            return
        predicted, taken = record.plan.predicted_seconds, record.plan.taken_seconds
        text = f"predicted {predicted:.0f} s, took {taken:.0f} s"
        self._say({"event": "time", "predicted_seconds": predicted, "taken_seconds": taken}, text)

    def _show_baseline(self, stage: Stage) -> None:
        """What an answer without a language model reaches, before any model trains."""
        result = read_result(result_path(self.study, stage.key), BaselineResult)
        if result.score is None:
            return
        event = {
            "baseline": result.name,
            "task": stage.key.task,
            "metric": result.metric,
            "score": result.score,
        }
        metric = result.metric.replace("_", " ")
        text = f"{result.name}, no language model: {metric} {result.score:.3f} on {stage.key.task}"
        self._say({"event": "baseline", **event}, text)

    def _show_divergence(self, stage: Stage) -> None:
        """A trial whose loss was no number: the study goes on without it."""
        path = result_path(self.study, stage.key)
        result = read_result(path, RESULTS[stage.key.kind]) if path.exists() else None
        if isinstance(result, LanguageResult | TaskResult) and result.diverged:
            event = {"stage": stage.name, "learning_rate": result.learning_rate}
            text = f"{stage.describe}: diverged at {result.learning_rate:g}, which counts as the worst trial"
            self._say({"event": "diverged", **event}, text)

    def _say(self, event: dict[str, Any], text: str) -> None:
        """An event as a line of its own."""
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(json.dumps(event), file=sys.stderr, flush=True)

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
