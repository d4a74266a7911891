"""The shipped config of all kinds of task, run small: every kind ends in scores, baselines and a report."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tiny_kinds import ROWS, SMALL, write_data

from adaptkit.study.results import Results, collect


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("kinds")
    command = [sys.executable, "-m", "adaptkit", "compare", str(write_data(folder)), *SMALL, "--root", "runs"]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode in (0, 3), done.stderr[-3000:]
    (record,) = (folder / "runs").glob("*/study.json")
    return collect(record.parent)


def test_every_kind_is_scored_by_every_arm_and_its_baseline(study: Results) -> None:
    tasks = {task.name: task for task in study.tasks}
    assert {name: (task.kind, task.metric) for name, task in tasks.items() if name != "language"} == {
        "topics": ("multi_label", "micro_f1"),
        "entities": ("spans", "entity_f1"),
        "bill": ("extract", "field_f1"),
        "rating": ("regression", "spearman"),
        "duplicate": ("classify", "accuracy"),
        "preferred": ("classify", "accuracy"),
    }
    baselines = dict.fromkeys(ROWS, "tfidf") | {"entities": "word-features", "bill": "copied"}
    for name, baseline in baselines.items():
        assert {arm.name for arm in study.scored_arms(name)} == {baseline, "generic+full"}
        replicates = study.replicates(name)
        for arm in study.scored_arms(name):
            interval = replicates.interval(arm.name, 0.95)
            assert interval.low <= interval.mean <= interval.high
            assert study.dev(name, arm.name) is not None or arm.origin == "baseline"
    assert tasks["topics"].labels == ("care", "cost", "speed") and tasks["rating"].labels == ()


def test_the_report_says_of_each_kind_what_fits_it(study: Results) -> None:
    page = (study.path / "report" / "report.html").read_text()
    for words in (
        "micro-F1 of labels on topics",
        "F1 of spans on entities",
        "F1 of fields on bill",
        "rank correlation on rating",
    ):
        assert words in page
    assert "mean absolute error" in page
