"""Kept studies are judged again, whole and with each arm left out. Home of benchmarks/keep_study.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from fake_study import edit_study, write_study

from adaptkit.run import read_json
from adaptkit.study.record import ArmRecord, StudyRecord, read_study
from adaptkit.study.results import collect
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


def verdicts(study: Path) -> dict[str, TaskVerdict]:
    return {task.task: task for task in judge(collect(study)).tasks}


def leave_out(study: Path, record: StudyRecord, arm: ArmRecord, *, by_name: bool) -> None:
    edit_study(
        study,
        arms=tuple(other for other in record.arms if other != arm),
        scores=tuple(score for score in record.scores if score.arm != arm.name),
        without=(arm.name,) if by_name else (),
    )


def test_three_studies_are_kept():
    assert len(KEPT) >= 3


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_study_is_judged_as_its_report_says(folder, tmp_path):
    study = keep_study.unpack(folder, tmp_path)
    assert judge(collect(study)).line == read_json(folder / "verdict.json")["line"]


@pytest.mark.parametrize("by_name", [True, False], ids=["taken out by name", "never asked for"])
@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_no_claim_appears_because_an_arm_is_missing(folder, by_name, tmp_path):
    study = keep_study.unpack(folder, tmp_path)
    whole, record = verdicts(study), read_study(study)
    for arm in record.arms:
        leave_out(study, record, arm, by_name=by_name)
        for task, verdict in verdicts(study).items():
            if verdict.decided and not whole[task].decided:
                name = "word counts" if arm.origin == "baseline" else arm.name
                not_tried = verdict.line.rpartition("; not tried: ")[2].split(", ")
                assert name in not_tried, (arm.name, whole[task].line, verdict.line)


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
