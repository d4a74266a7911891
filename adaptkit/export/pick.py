"""Which model of a finished study to export or serve: the verdict's winner, and in a tie the best generic
arm.

A study's arms are not all models: a probe is a regression on another model's features, and a prompted arm is
its origin's language model with a prompt around it. What cannot be served gives way to the next best, and
that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, ModelError, nearest
from adaptkit.export.source import Source, of_model, of_run, served_name
from adaptkit.run import Run, read_json

LANGUAGE = "language"
Result = dict[str, Any]


@dataclass(frozen=True)
class _Study:
    path: Path
    study: dict[str, Any]
    verdict: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> _Study:
        """Raises: DataError for a study that has not ended."""
        if not (path / "study.json").is_file():
            what = "this study has not ended: it has no verdict yet"
            raise DataError(
                what,
                where=str(path),
                fix="run the same `adaptkit compare` again: finished stages are skipped",
            )
        answer = Run(path).report / "verdict.json"
        if not answer.is_file():
            raise DataError("this study has no report yet", where=str(path), fix=f"adaptkit report {path}")
        return cls(path, read_json(path / "study.json"), read_json(answer))

    def results(self, task: str, arm: str | None = None) -> list[Result]:
        """Rows of an arm on a task at its largest share of the text."""
        rows = [row for row in self.study["results"] if row["task"] == task and arm in (None, row["arm"])]
        return [
            row
            for row in rows
            if row["fraction"] == max(r["fraction"] for r in rows if r["arm"] == row["arm"])
        ]

    def dev(self, row: Result) -> float:
        """The development score of a row's run, larger is better; minus infinity where none was recorded."""
        task = next(task for task in self.study["tasks"] if task["name"] == row["task"])
        path = Run(self.path.parent / row["run"]).scores(row["suite"])
        value = read_json(path).get("dev", {}).get(task["metric"]) if path.is_file() else None
        return float("-inf") if value is None else (value if task["higher_is_better"] else -value)

    def origin(self, arm: str) -> str:
        return next(a["origin"] for a in self.study["arms"] if a["name"] == arm)

    def model(self, row: Result) -> Path | None:
        """The folder of the model behind a result; None for a probe."""
        root = self.path.parent
        trained = [root / name / "model" for name in row["paid_by"]]
        adaptation = row["arm"].partition("+")[2]
        if row["task"] != LANGUAGE and adaptation == "probe":
            return None
        if trained and (trained[-1] / "config.json").is_file():
            return trained[-1]
        if row["task"] != LANGUAGE and len(trained) > 1:  # prompted: its origin's language model
            return trained[0]
        return self.base

    @property
    def base(self) -> Path:
        """The generic model: made by a run of the study, or named by its config."""
        base = self.study["base"]
        if base.get("run"):
            return self.path.parent / base["run"] / "model"
        from adaptkit import models

        return models.find(base["model"])


def choose(path: Path, *, arm: str | None, task: str | None, seed: int | None) -> Source:
    """The model of a study to serve.

    Raises: DataError for an unfinished study, ModelError where the arm, task or seed is unknown or has no
        model.
    """
    study = _Study.read(path)
    task = _known_task(study, task)
    if arm is None:
        arm, reason = _winner(study, task)
    else:
        arm, reason = _known_arm(study, task, arm), "asked for by name"
    rows = study.results(task, arm)
    seeds = sorted(row["seed"] for row in rows)
    if seed is not None and seed not in seeds:
        raise ModelError(
            f"{arm} has no seed {seed}", where=str(path), fix=f"choose from {', '.join(map(str, seeds))}"
        )
    row = max(
        (row for row in rows if seed in (None, row["seed"])), key=lambda row: (study.dev(row), -row["seed"])
    )
    folder = study.model(row)
    if folder is None:
        servable = ", ".join(_servable(study, task)) or "none on this task"
        what = f"{arm} is a regression on frozen features: its scores were kept, no model was made"
        raise ModelError(what, where=str(path), fix=f"choose an arm that is a model: {servable}")
    why = f"{arm}, {reason}; seed {row['seed']}" + (
        " has the best dev score" if seed is None and len(seeds) > 1 else ""
    )
    known = {
        "name": served_name(f"{study.study['name']}-{arm}" + ("" if task == LANGUAGE else f"-{task}")),
        "why": why,
        "study": path,
        "arm": arm,
        "task": task,
        "seed": row["seed"],
        "scores": path.parent / row["run"],
        "suite": row["suite"],
    }
    in_run = folder.name == "model" and (folder.parent / "config.yaml").is_file()
    return (
        of_run(folder.parent, **known)
        if in_run
        else of_model(folder, **known, base=study.study["base"]["model"])
    )


def _known_task(study: _Study, task: str | None) -> str:
    names = [entry["name"] for entry in study.study["tasks"]]
    if task is not None and task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise ModelError(what, where=str(study.path), fix=f"choose from {', '.join(names)}")
    return task or study.study["primary"]


def _known_arm(study: _Study, task: str, arm: str) -> str:
    names = list(dict.fromkeys(row["arm"] for row in study.results(task)))
    if arm not in names:
        what = f"the study has no arm '{arm}' on {task}{nearest(arm, names)}"
        raise ModelError(what, where=str(study.path), fix=f"choose from {', '.join(names)}")
    return arm


def _servable(study: _Study, task: str) -> list[str]:
    """Arms that are models, the best dev score (mean over seeds) first."""
    scores: dict[str, list[float]] = {}
    for row in study.results(task):
        if study.model(row) is not None:
            scores.setdefault(row["arm"], []).append(study.dev(row))
    return sorted(scores, key=lambda arm: -sum(scores[arm]) / len(scores[arm]))


def _winner(study: _Study, task: str) -> tuple[str, str]:
    """The arm to serve and the reason, a clause."""
    verdict = next(entry for entry in study.verdict["tasks"] if entry["task"] == task)
    won = {"pretrained": verdict["candidate"], "generic": verdict["generic"], "tie": None}[verdict["outcome"]]
    servable = _servable(study, task)
    if won in servable:
        return won, f"the winner on {verdict['title']}"
    origin = study.origin(won) if won else "generic"
    best = next((arm for arm in servable if study.origin(arm) == origin), None)
    if best is None:
        what = f"no {origin} arm of this study is a model that can be served on {task}"
        raise ModelError(
            what, where=str(study.path), fix=f"name one with --arm: {', '.join(servable) or 'there is none'}"
        )
    if won:
        return (
            best,
            f"the best {origin} model on {verdict['title']} (the winner {won} is a regression on features, not a model)",
        )
    best = verdict["generic"] if verdict["generic"] in servable else best
    return best, f"the best generic model on {verdict['title']}: the verdict is a tie, so do not pretrain"
