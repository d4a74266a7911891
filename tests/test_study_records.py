"""Records of a study: keys name stages one to one, results are validated, older formats are refused. Home of
study.record and study.stage_record."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from adaptkit.errors import DataError
from adaptkit.run import write_json
from adaptkit.study.arms import ARMS, Origin
from adaptkit.study.forecast_record import Portion
from adaptkit.study.record import is_study, read_study
from adaptkit.study.stage_record import (
    BASE,
    FORECAST,
    PREPARE,
    TOKENIZER,
    LanguageResult,
    StageKey,
    TaskResult,
    read_result,
    write_result,
)


def test_every_stage_has_a_name_of_its_own() -> None:
    keys = [PREPARE, TOKENIZER, BASE, *(StageKey.for_baseline(task) for task in ("a", "b"))]
    for origin, seed, text, compute in itertools.product(Origin, (0, 1), (0.25, 1.0), (0.5, 1.0)):
        portion = Portion(text=text, compute=compute)
        keys.append(StageKey.for_language(origin, seed=seed, portion=portion))
    for origin, trial in itertools.product(Origin, (0, 1)):
        keys.append(StageKey.for_language(origin, trial=trial))
    for arm, task, seed in itertools.product(ARMS.values(), ("a", "b"), (0, 1)):
        keys += [StageKey.for_task(task, arm, seed=seed), StageKey.for_task(task, arm, trial=seed)]
        keys.append(StageKey.for_task(task, arm, seed=seed, portion=Portion(labels=0.25)))
    keys += [FORECAST, *(StageKey.for_label_forecast(task) for task in ("a", "b"))]
    assert len({key.name for key in keys}) == len(set(keys)) == len(keys)


def test_keys_survive_json() -> None:
    key = StageKey.for_task("mood", ARMS["continued+lora"], seed=2)
    assert StageKey.model_validate_json(key.model_dump_json()) == key


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    result = TaskResult(run="mood-1a2b3c4d", suite="mood", learning_rate=1e-3, tuning=0.25, seconds=1.5)
    write_result(tmp_path / "stage.json", result)
    assert read_result(tmp_path / "stage.json", TaskResult) == result


def test_a_result_that_lacks_something_is_named_with_its_key(tmp_path: Path) -> None:
    write_json(tmp_path / "stage.json", {"format": 2, "run": "x", "learning_rate": 0.1})
    with pytest.raises(DataError, match=r"stage\.json: the record does not fit at 'dev'"):
        read_result(tmp_path / "stage.json", LanguageResult)


@pytest.mark.parametrize("value", [{"name": "s", "arms": []}, {"format": 1}, {"format": 2}])
def test_a_study_of_another_release_is_refused_with_what_to_do(tmp_path: Path, value: dict) -> None:
    write_json(tmp_path / "study.json", value)
    with pytest.raises(DataError, match="an older release of adaptkit") as refusal:
        read_study(tmp_path)
    assert "run the same command again" in refusal.value.fix


def test_a_folder_without_a_study_says_so(tmp_path: Path) -> None:
    assert not is_study(tmp_path)
    with pytest.raises(DataError, match="holds no study.json"):
        read_study(tmp_path)
