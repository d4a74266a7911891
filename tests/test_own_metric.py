"""A metric of the user's: numbers by item from a file, in a process of its own, errors with its line.
Home of study.own_metric, study.user_file and study.user_file_child."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from tiny_rows import dataset
from tiny_study import study_config, write_texts

from adaptkit.errors import ConfigError
from adaptkit.study.inputs import input_digests
from adaptkit.study.own_metric import OwnMetric
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import resample

ROWS = dataset(
    [{"prompt": f"say {word}", "completion": word} for word in ("one", "two", "three")], "sft"
).rows
ITEMS = [{"id": row.id, "reference": row.values["completion"], "prediction": "two"} for row in ROWS]
GOOD = "def score(items):\n    return [item['prediction'] == item['reference'] for item in items]\n"


def metric(folder: Path, text: str, name: str = "own_score", seconds: float = 60.0) -> OwnMetric:
    file = folder / "metric.py"
    file.write_text(text)
    return OwnMetric(name, file, seconds)


def test_each_item_gets_its_number_and_sees_its_text(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("LENGTH = len\n")
    text = "from helper import LENGTH\nprint('a word')\n\ndef score(items):\n"
    own = metric(tmp_path, text + "    return [LENGTH(item['text']) / 10 for item in items]\n")
    own.check()
    rows = own.complete(ROWS, ITEMS)
    assert [row["own_score"] for row in rows] == [len(row.text) / 10 for row in ROWS]
    assert all("text" not in row for row in rows) and rows[0].keys() - ITEMS[0].keys() == {"own_score"}
    assert score_table("own_score", rows).value == pytest.approx(sum(r["own_score"] for r in rows) / 3)
    assert METRICS["own_score"].higher_is_better and not METRICS["own_error"].higher_is_better
    interval = resample({"a": [score_table("own_score", rows)]}, num_resamples=40).interval("a", 0.9)
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        (
            "x = 1\n\ndef score(items):\n    return 1 / 0 and items\n",
            ":4",
            "your metric fails: ZeroDivisionError",
        ),
        ("import nothing_of_that_name\n", ":1", "ModuleNotFoundError"),
        ("def score(items)\n", ":1", "SyntaxError"),
        ("def score(items):\n    import sys\n    sys.exit(3)\n", ":3", "SystemExit"),
        ("def score(items):\n    import os\n    os._exit(3)\n", "", "ended its process with code 3"),
        ("def score(items):\n    return [1.0]\n", "", "gives 1 numbers for 3 items"),
        ("def score(items):\n    return ['a'] * len(items)\n", "", "gives 'a' for the item"),
        ("def score(items):\n    return [float('nan')] * len(items)\n", "", "gives nan for the item"),
        ("value = 1\n", "", "neither a function"),
    ],
)
def test_what_is_wrong_with_a_file_is_shown_as_its_own(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    own = metric(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        own.complete(ROWS, ITEMS)
    assert what in refused.value.what and refused.value.where == f"{own.file}{where}"
    if "Zero" in what:
        assert "return 1 / 0 and items" in refused.value.what, "the user's own line is shown"


def test_a_file_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    own = metric(tmp_path, "def score(items):\n    while True:\n        pass\n", seconds=2)
    with pytest.raises(ConfigError, match="did not come to an end within 2 s for 3 items"):
        own.complete(ROWS, ITEMS)


def test_a_local_module_of_evaluate_is_asked_item_by_item(tmp_path: Path) -> None:
    if importlib.util.find_spec("evaluate") is None:
        pytest.skip("the extra `metrics` is not installed")
    text = """
import datasets
import evaluate


class Same(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"same": sum(p == r for p, r in zip(predictions, references)) / len(predictions)}
"""
    rows = metric(tmp_path, text, seconds=600).complete(ROWS, ITEMS)
    assert [row["own_score"] for row in rows] == [0.0, 1.0, 0.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    (tmp_path / "metric.py").write_text(GOOD.replace("reference", "label"))
    return tmp_path


def task_of(folder: Path, more: str) -> str:
    return f"tasks=[{{name: mood, train: {{files: [{folder}/mood.jsonl]}}, max_epochs: 2, {more}}}]"


def test_a_config_names_the_file_and_the_study_is_another_with_another_file(folder: Path) -> None:
    named = task_of(folder, f"metric: own_error, metric_file: {folder}/metric.py")
    config = study_config(folder, named)
    own = config.tasks[0].own_metric
    assert own is not None and own.name == config.tasks[0].score == "own_error" and own.seconds == 120
    first = input_digests(config)
    (folder / "metric.py").write_text(GOOD)
    second = input_digests(config)
    changed = {key for key in first if first[key] != second[key]}
    assert changed == {"tasks.0.metric_file"}
    with pytest.raises(ConfigError, match="own_score.*needs `metric_file`"):
        study_config(folder, task_of(folder, "metric: own_score"))
    with pytest.raises(ConfigError, match="`metric_file` is read for metric: own_score or own_error"):
        study_config(folder, task_of(folder, f"metric_file: {folder}/metric.py"))
    with pytest.raises(ConfigError, match="metric must be one of accuracy"):
        study_config(folder, task_of(folder, "metric: own_scor"))


def test_a_dry_run_finds_what_is_wrong_with_the_file(folder: Path) -> None:
    from adaptkit.compare.plan import measure_study

    for text in ("def score(items)\n", None):
        (folder / "metric.py").unlink(missing_ok=True)
        if text is not None:
            (folder / "metric.py").write_text(text)
        config = study_config(folder, task_of(folder, f"metric: own_score, metric_file: {folder}/metric.py"))
        with pytest.raises(ConfigError, match="SyntaxError" if text else "there is no such file"):
            measure_study(config)


def test_every_arm_and_the_baseline_are_judged_by_it(folder: Path) -> None:
    from adaptkit.compare.driver import open_study
    from adaptkit.compare.plan import keep_plan, make_plan
    from adaptkit.compare.stages.run import run_stage
    from adaptkit.compare.workspace import Workspace, result_path
    from adaptkit.run import Run, read_jsonl
    from adaptkit.run_record import read_record
    from adaptkit.study.arms import ARMS
    from adaptkit.study.stage_record import BaselineResult, StageKey, read_result

    few = ("domain.test_items=4", "domain.dev_items=4", "general.test_items=4", "general.dev_items=4")
    small = ("seeds=1", "jobs=1", "budget.trials=1", "base_flops=4e9", "arms=[generic+prompt, generic+lora]")
    more = f"metric: own_score, metric_file: {folder}/metric.py, test_items: 8, dev_items: 8"
    config = study_config(folder, *few, *small, task_of(folder, more))
    run = open_study(config, folder / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    workspace = Workspace(run.path)
    baseline = read_result(result_path(run.path, StageKey.for_baseline("mood")), BaselineResult)
    runs = [Run(workspace.root / str(baseline.run))]
    runs += [Run(workspace.root / workspace.task("mood", ARMS[arm], 0).run) for arm in config.arms]
    for of in runs:
        rows = list(read_jsonl(of.items("mood")))
        assert all(row["own_score"] == float(row["prediction"] == row["label"]) for row in rows)
        metrics = read_record(of).suites["mood"].metrics
        assert metrics["own_score"] == pytest.approx(metrics["accuracy"])
    assert baseline.score == read_record(runs[0]).suites["mood"].metrics["own_score"]
