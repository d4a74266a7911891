"""Choose which model of a finished study to serve: the one that its verdict recommends.

Not every arm of a study is a model: a probe is a regression on another model's features, and a prompted arm
is its origin's language model with a prompt around it. What cannot be served gives way to the next contender,
and that is said.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptkit.errors import ModelError, nearest
from adaptkit.export.record import ServedKind
from adaptkit.export.source import Source, kind_of, of_model, of_run, served_name
from adaptkit.run import Run
from adaptkit.run_record import local_base, read_record
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.record import ArmRecord, ScoreRecord, StudyRecord, TaskRecord, read_study
from adaptkit.study.verdict_record import VerdictRecord, read_verdict

BASELINE = "baseline"
"""Origin of an arm that answers without a language model."""
LANGUAGE = "language"
"""Kind of the task that language models are scored on."""
SHOWN: tuple[ServedKind, ...] = ("generate", "classify", "embed")
"""What a study's models are shown at: to write, to classify, to search."""


@dataclass(frozen=True)
class _Study:
    path: Path
    record: StudyRecord
    verdict: VerdictRecord

    def run(self, name: str) -> Run:
        return Run(self.path.parent / name)

    def task(self, name: str) -> TaskRecord:
        return next(task for task in self.record.tasks if task.name == name)

    def arm(self, name: str) -> ArmRecord:
        return next(arm for arm in self.record.arms if arm.name == name)

    def arms_on(self, task: str) -> list[str]:
        """Name the arms that were scored on a task."""
        return list(dict.fromkeys(score.arm for score in self.record.scores if score.task == task))

    def scores(self, task: str, arm: str) -> list[ScoreRecord]:
        """List the scores of an arm on a task, of each seed, with all of the text and compute."""
        scores = [score for score in self.record.scores if (score.task, score.arm) == (task, arm)]
        return [score for score in scores if score.portion == WHOLE]

    def dev(self, score: ScoreRecord) -> float:
        """Read the score on development data, larger is better; minus infinity where none was recorded."""
        task = self.task(score.task)
        suite = read_record(self.run(score.run)).suites.get(score.suite)
        if suite is None or suite.dev.get(task.metric) is None:
            return -math.inf
        value = suite.dev[task.metric]
        return value if task.higher_is_better else -value

    def is_model(self, score: ScoreRecord) -> bool:
        """Say whether a model answered, and not a regression on its features."""
        return self.arm(score.arm).origin != BASELINE and self.arm(score.arm).adaptation not in (
            "probe",
            "hybrid",
        )

    def model(self, score: ScoreRecord) -> Source:
        """Find the model behind a score: that of a run of the study, or the generic model."""
        base = self.record.base
        made_by = score.model_run or base.run
        if made_by is not None:
            return of_run(self.run(made_by).path)
        folder = local_base(self.path, base.model)
        if folder is None:
            from adaptkit.models import find  # loads torch, which a server's own process does without

            folder = find(base.model)
        return dataclasses.replace(of_model(folder), base=base.model)

    def answers_with(self, score: ScoreRecord) -> ServedKind:
        """Tell what the model behind a score answers with, from its config alone."""
        made_by = score.model_run or self.record.base.run
        if made_by is not None and (self.run(made_by).model / "config.json").is_file():
            return kind_of(self.run(made_by).model)
        return self.model(score).kind


def choose(path: Path, *, arm: str | None, task: str | None, seed: int | None) -> Source:
    """Choose the model of a study to serve.

    Raises: DataError for an unfinished study, ModelError where the arm, task or seed is unknown or has no
        model.
    """
    study = _Study(path, read_study(path), read_verdict(path))
    task = _task_of(study, task)
    if arm is None:
        arm, reason = _recommended(study, task)
    else:
        arm, reason = _check_arm(study, task, arm), "asked for by name"
    scores = study.scores(task, arm)
    score = _best_seed(study, scores, seed)
    if not study.is_model(score):
        servable = ", ".join(_servable(study, task)) or "none on this task"
        what = f"{arm} is {_no_model(study.arm(arm))}: its scores were kept, no model was made"
        raise ModelError(what, where=str(path), fix=f"choose an arm that is a model: {servable}")
    why = f"{arm}, {reason}; seed {score.seed}"
    if seed is None and len(scores) > 1:
        why += " has the best dev score"
    return _source(study, score, why)


def choose_beside(path: Path, chosen: Source) -> Iterator[Source]:
    """Choose models of a study for what `chosen` does not do: to write, to classify, to search.

    What one writes says little alone, so a second one that writes comes last: the best on held-out text, or
    the base as it is. Nothing comes for what no task of the study asks.
    """
    study = _Study(path, read_study(path), read_verdict(path))
    served = [chosen]
    for kind in SHOWN:
        source = _best_of_kind(study, kind)
        if source is not None and kind != chosen.kind:
            served.append(source)
            yield source
    writers = {source.folder for source in served if source.kind == "generate"}
    others = (_best_of_kind(study, "generate"), _base_that_writes(study))
    fresh = [source for source in others if source is not None and source.folder not in writers]
    if len(writers) == 1 and fresh:
        yield fresh[0]


def _best_of_kind(study: _Study, kind: ServedKind) -> Source | None:
    """Find the recommended model of this kind, or the next contender's, on the first task that has one.

    To write, the first task is held-out text; a language model's vectors are no search that was measured.
    """
    for task in sorted(study.record.tasks, key=lambda task: task.kind != LANGUAGE):
        if kind == "embed" and task.kind == LANGUAGE:
            continue
        arms = [arm for arm in _servable(study, task.name) if _kind_of_arm(study, task.name, arm) == kind]
        if arms:
            arm, reason = _preferred(study, task.name, arms)
            score = _best_seed(study, study.scores(task.name, arm), None)
            return _source(study, score, f"{arm}, {reason}; seed {score.seed}")
    return None


def _base_that_writes(study: _Study) -> Source | None:
    """Find the base as it is, where it writes."""
    for task in study.record.tasks:
        if task.kind == LANGUAGE and "generic" in study.arms_on(task.name):
            score = _best_seed(study, study.scores(task.name, "generic"), None)
            base = _source(study, score, "generic, the base as it is, to compare with")
            return base if base.kind == "generate" else None
    return None


def _kind_of_arm(study: _Study, task: str, arm: str) -> ServedKind:
    return study.answers_with(_best_seed(study, study.scores(task, arm), None))


def _source(study: _Study, score: ScoreRecord, why: str) -> Source:
    """Describe the model behind a score by its place in the study."""
    arm, name = study.arm(score.arm), f"{study.record.name}-{score.arm}"
    if study.task(score.task).kind != LANGUAGE:
        name += f"-{score.task}"
    return dataclasses.replace(
        study.model(score),
        name=served_name(name),
        why=why,
        study=study.path,
        study_name=study.record.name,
        arm=score.arm,
        origin=arm.origin,
        adaptation=arm.adaptation,
        task=score.task,
        seed=score.seed,
        scored_run=study.run(score.run).path,
        suite=score.suite,
    )


def _best_seed(study: _Study, scores: list[ScoreRecord], seed: int | None) -> ScoreRecord:
    """Find the score of this seed, or of the seed with the best development score."""
    if seed is None:
        return max(scores, key=lambda score: (study.dev(score), -score.seed))
    chosen = [score for score in scores if score.seed == seed]
    if not chosen:
        seeds = ", ".join(str(number) for number in sorted(score.seed for score in scores))
        what = f"{scores[0].arm} has no seed {seed}"
        raise ModelError(what, where=str(study.path), fix=f"choose from {seeds}")
    return chosen[0]


def _task_of(study: _Study, task: str | None) -> str:
    """Find the task of this name, or the primary one."""
    names = [entry.name for entry in study.record.tasks]
    if task is not None and task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise ModelError(what, where=str(study.path), fix=f"choose from {', '.join(names)}")
    return task or study.record.primary


def _check_arm(study: _Study, task: str, arm: str) -> str:
    """Check that the arm was scored on the task."""
    names = study.arms_on(task)
    if arm not in names:
        what = f"the study has no arm '{arm}' on {task}{nearest(arm, names)}"
        raise ModelError(what, where=str(study.path), fix=f"choose from {', '.join(names)}")
    return arm


def _servable(study: _Study, task: str) -> list[str]:
    """List the arms that are models, the best dev score (mean over seeds) first."""
    means = {}
    for arm in study.arms_on(task):
        scores = study.scores(task, arm)
        if study.is_model(scores[0]):
            means[arm] = sum(study.dev(score) for score in scores) / len(scores)
    return sorted(means, key=lambda arm: -means[arm])


def _no_model(arm: ArmRecord) -> str:
    if arm.origin == BASELINE:
        return "no language model"
    if arm.adaptation == "hybrid":
        return "a fusion of two searches"
    if arm.adaptation == "probe":
        return "a regression on frozen features"
    return "a model that answers in words"


def _recommended(study: _Study, task: str) -> tuple[str, str]:
    """Choose the arm to serve, and say the reason in a clause."""
    servable = _servable(study, task)
    if not servable:
        what = f"no arm of this study is a model that can be served on {task}"
        raise ModelError(what, where=str(study.path), fix="name another task with --task")
    return _preferred(study, task, servable)


def _preferred(study: _Study, task: str, fitting: Sequence[str]) -> tuple[str, str]:
    """Choose the recommended arm if it is among these, else the next contender, and say the reason.

    Args:
        fitting: arms, the best development score first; at least one.
    """
    verdict = study.verdict.of(task)
    what = f"recommended on {verdict.title}"
    if verdict.outcome == "undecided":
        what = f"the preferred contender on {verdict.title}, which is not decided yet"
    if verdict.recommended in fitting:
        return verdict.recommended, what
    beside = f"{verdict.recommended}, {what}, is {_no_model(study.arm(verdict.recommended))}"
    if contender := next((name for name in verdict.contenders if name in fitting), None):
        return contender, f"the next contender on {verdict.title} ({beside})"
    return fitting[0], f"the best model on {verdict.title} ({beside})"
