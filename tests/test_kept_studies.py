"""Kept studies are judged again, whole and with each arm left out. Home of benchmarks/keep_study.py."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import pytest
from fake_study import edit_study, write_study

from adaptkit.run import read_json
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import Results, collect
from adaptkit.study.task_verdict import TaskVerdict
from adaptkit.study.verdict import judge

ROOT = Path(__file__).parents[1]
KEPT = sorted(path.parent for path in (ROOT / "benchmarks/results").glob("*/scores.tar.xz"))


def load_keep_study():
    spec = importlib.util.spec_from_file_location("keep_study", ROOT / "benchmarks/keep_study.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


keep_study = load_keep_study()


def verdicts(results: Results) -> dict[str, TaskVerdict]:
    return {task.task: task for task in judge(results).tasks}


def leave_out(results: Results, arm: ArmRecord, *, by_name: bool) -> Results:
    """The same study without one arm; arms are drawn apart, so the bootstrap of the others stays."""
    record = results.record.model_copy(
        update={
            "arms": tuple(other for other in results.arms if other != arm),
            "scores": tuple(score for score in results.record.scores if score.arm != arm.name),
            "without": (arm.name,) if by_name else (),
        }
    )
    cells = [cell for cell in results.cells if cell.arm != arm.name]
    return dataclasses.replace(results, record=record, cells=cells)


def test_three_studies_are_kept():
    assert len(KEPT) >= 3


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_study_is_judged_as_its_report_says(folder, tmp_path):
    study = keep_study.unpack(folder, tmp_path)
    assert judge(collect(study)).line == read_json(folder / "verdict.json")["line"]


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_no_claim_appears_because_an_arm_is_missing(folder, tmp_path):
    """Whether the arm was taken out by name or never asked for."""
    results = collect(keep_study.unpack(folder, tmp_path))
    whole = verdicts(results)
    for arm, by_name in itertools.product(results.arms, (True, False)):
        for task, verdict in verdicts(leave_out(results, arm, by_name=by_name)).items():
            if verdict.decided and not whole[task].decided:
                name = "word counts" if arm.origin == "baseline" else arm.name
                not_tried = verdict.line.rpartition("; not tried: ")[2].split(", ")
                assert name in not_tried, (arm.name, whole[task].line, verdict.line)


def test_leaving_an_arm_out_is_what_a_study_without_it_gives(tmp_path):
    study = write_study(tmp_path / "runs", num_documents=20, num_rows=60)
    results = collect(study)
    judge(results)  # all arms are drawn once, as above
    for arm in results.arms[:2]:
        without = leave_out(results, arm, by_name=True)
        edit_study(
            study, arms=without.record.arms, scores=without.record.scores, without=without.record.without
        )
        assert judge(without) == judge(collect(study))


def test_what_is_kept_holds_no_text_and_the_same_verdict(tmp_path):
    study = write_study(tmp_path / "runs", num_documents=40, num_rows=200)
    (study / "report").mkdir(exist_ok=True)
    for name in keep_study.REPORT:
        (study / "report" / name).write_text("{}")
    for _ in range(2):
        keep_study.keep(study, tmp_path / "kept")
    again = keep_study.unpack(tmp_path / "kept", tmp_path / "again")
    assert judge(collect(again)) == judge(collect(study))
    for path in again.parent.rglob("*.jsonl"):
        assert not any(f'"{name}"' in path.read_text() for name in keep_study.UNREAD)
