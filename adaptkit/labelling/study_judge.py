"""What the trained classifiers of a study say of texts that no arm has seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit import models
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError, nearest
from adaptkit.finetune.tasks import task_of
from adaptkit.run import Run
from adaptkit.run_record import ModelKind, RecipeKind, read_record
from adaptkit.study.results import BASELINE, Cell, Results
from adaptkit.trainer.device import default_device


@dataclass(frozen=True)
class StudyJudge:
    """One arm of a study: mean probabilities over its seeds."""

    task: str
    arm: str
    cells: tuple[Cell, ...]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Probabilities of the labels [N, C], in the labels' order."""
        return np.mean([_probabilities(Run(cell.run), texts) for cell in self.cells], axis=0)


def study_judge(results: Results, task: str | None = None, arm: str | None = None) -> StudyJudge:
    """The best arm of a task that is a trained classifier, or the one that is named.

    Args:
        task: None takes the task that decides.
    Raises: DataError for a task or arm without one.
    """
    names = [one.name for one in results.tasks]
    task = task or results.record.primary
    if task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise DataError(what, where=str(results.path), fix=f"choose from {', '.join(names)}")
    models_of = [one.name for one in results.scored_arms(task) if one.origin != BASELINE]
    trained = {name: results.of(task, name) for name in models_of}
    trained = {name: cells for name, cells in trained.items() if all(map(_is_classifier, cells))}
    if not trained:
        fix = "choose a task of kind classify that an arm was trained for; or leave out --study"
        raise DataError(f"no arm on {task} is a trained classifier", where=str(results.path), fix=fix)
    if arm is not None and arm not in trained:
        what = f"'{arm}' is no trained classifier on {task}{nearest(arm, trained)}"
        raise DataError(what, where=str(results.path), fix=f"choose from {', '.join(trained)}")
    sign = 1 if results.task(task).higher_is_better else -1
    best = arm or max(trained, key=lambda name: sign * results.replicates(task).mean(name))
    return StudyJudge(task, best, tuple(trained[best]))


def _is_classifier(cell: Cell) -> bool:
    record = read_record(Run(cell.run))
    one_label = record.facts.get("kind") == "classify"
    return record.recipe is RecipeKind.FINETUNE and record.model_kind is ModelKind.CLASSIFIER and one_label


def _probabilities(run: Run, texts: Sequence[str]) -> np.ndarray:
    """Of one seed's model, its texts cut as in training."""
    tokenizer = models.load_tokenizer(run.model)
    task = task_of(read_record(run), tokenizer)
    model = models.load(run.model, task.model_kind)
    model.to(default_device())  # type: ignore[arg-type]  # transformers' wrapper hides torch's signature
    label = task.label_names[0]  # in place of the true one, which does not count
    rows = [Row({"text": text, "label": label}, "", str(number)) for number, text in enumerate(texts)]
    items = task.rows(model, Dataset(rows, str(task.want), {}))
    return np.array([[item["probabilities"][name] for name in task.label_names] for item in items])
