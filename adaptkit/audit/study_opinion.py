"""What an arm of a study says of texts that it did not learn from: its development and test rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from adaptkit.audit.confidence import dev_rows
from adaptkit.audit.label_review import StudyOpinion
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.score_table import with_probabilities
from adaptkit.errors import DataError, nearest
from adaptkit.run import Run
from adaptkit.seal import check
from adaptkit.study.results import BASELINE, Results
from adaptkit.study.verdict import judge


def study_opinion(results: Results, task: str | None = None, arm: str | None = None) -> StudyOpinion:
    """Mean probabilities over the seeds of an arm, by text.

    Args:
        task: None takes the task that decides.
        arm: None takes the recommended one, or, where that is a baseline, the best model.
    Raises: DataError for a task or arm without probabilities, or where the prepared rows are gone.
    """
    task = _task(results, task)
    arm = arm or _best_model(results, task)
    cells = results.of(task, arm)
    if not cells:
        names = [one.name for one in results.scored_arms(task)]
        what = f"the study has no arm '{arm}' on {task}{nearest(arm, names)}"
        raise DataError(what, where=str(results.path), fix=f"choose from {', '.join(names)}")
    texts = _texts(results, task)
    by_text: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for cell in cells:
        rows = [*with_probabilities(cell.rows), *dev_rows(Run(cell.run), cell.suite)]
        for row in rows:
            if (text := texts.get(str(row["id"]))) is not None:
                by_text[text].append(row["probabilities"])
    if not by_text:
        what = f"{arm} gave no probabilities for the rows of {task}"
        raise DataError(what, where=str(results.path), fix="choose a task of kind classify or label_words")
    return StudyOpinion(arm, {text: _mean(chances) for text, chances in by_text.items()})


def _task(results: Results, task: str | None) -> str:
    names = [one.name for one in results.tasks]
    if task is not None and task not in names:
        what = f"the study has no task '{task}'{nearest(task, names)}"
        raise DataError(what, where=str(results.path), fix=f"choose from {', '.join(names)}")
    return task or results.record.primary


def _best_model(results: Results, task: str) -> str:
    of_task = next(one for one in judge(results).tasks if one.task == task)
    if results.arm(of_task.recommended).origin != BASELINE:
        return of_task.recommended
    models = [arm.name for arm in results.scored_arms(task) if arm.origin != BASELINE]
    sign = 1 if results.task(task).higher_is_better else -1
    return max(models, key=lambda name: sign * results.replicates(task).mean(name))


def _texts(results: Results, task: str) -> dict[str, str]:
    """Id of a prepared row -> its text, of the parts that no arm learns from."""
    prepared = results.record.prepared_run
    texts: dict[str, str] = {}
    for part in ("dev", "test"):
        path = Path(results.path).parent / (prepared or "") / f"{task}.{part}.jsonl"
        if prepared is not None and path.is_file():
            check(path)
            texts |= {row.id: row.text for row in read(DataConfig(files=[str(path)]), "labelled").rows}
    if not texts:
        fix = "run the same `adaptkit compare` again: finished stages are skipped"
        raise DataError("the prepared rows of the task are not there", where=str(results.path), fix=fix)
    return texts


def _mean(chances: list[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in chances for name in each)
    return {name: float(np.mean([each.get(name, 0.0) for each in chances])) for name in names}
