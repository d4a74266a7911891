"""Runs a study to its verdict.

outcome = compare(load(StudyConfig, "study.yaml").config, Path("runs"))
print(outcome.verdict_line, outcome.report_path)
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.compare.assemble import study_record
from adaptkit.compare.executor import execute
from adaptkit.compare.fitting_budget import out_of_proportion
from adaptkit.compare.lost_text import cut_sentences, lossy_tokenizers
from adaptkit.compare.plan import Measured, keep_plan, make_plan, plan_json
from adaptkit.compare.progress import Progress
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import forget_stages, result_path
from adaptkit.config import load
from adaptkit.notices import tell
from adaptkit.report.write import write_report
from adaptkit.run import Run
from adaptkit.run_lock import hold
from adaptkit.study.config import DECIDED_BY_PLAN, StudyConfig
from adaptkit.study.inputs import input_digests
from adaptkit.study.record import write_study
from adaptkit.study.stage_record import BaselineResult, StageKind, read_result


@dataclass(frozen=True)
class StudyOutcome:
    """What `compare` ends with."""

    study_path: Path
    verdict_line: str
    report_path: Path
    recommended: str
    exit_code: int
    verdict: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        paths = {"study_path": str(self.study_path), "report_path": str(self.report_path)}
        return {**fields, **paths}


def open_study(config: StudyConfig, root: Path) -> Run:
    """The study's run directory, found again as long as config, data and base are the same."""
    by_plan = [f"trainer.{key}" for key in DECIDED_BY_PLAN]
    return Run.open(root, config.name, config, input_digests(config), without=by_plan)


def compare(
    config: StudyConfig, root: Path, *, dry_run: bool = False, executor: str = "local", resume: bool = True
) -> StudyOutcome | dict[str, Any]:
    """Run a study to its verdict; with `dry_run`, only say what it would do and cost.

    Args:
        root: the folder of all run directories.
        executor: `local` or `ray`.
        resume: False starts the study's stages afresh; finished trainings of the same config are still found.
    Returns: the outcome, or the plan as JSON for a dry run.
    Raises: AdaptkitError for anything a user can mend.
    """
    run = open_study(config, root)
    if not resume and not dry_run:
        hold(run)
        forget_stages(run.path)
    plan = make_plan(config, run)
    if dry_run:
        return {**plan_json(plan, run.path), "advice": out_of_proportion(plan)}
    for name, sentence in (*cut_sentences(plan.config).items(), *lossy_tokenizers(plan.config).items()):
        tell(f"{name}: {sentence}")
    hold(run)
    run.start()
    plan = keep_plan(plan, run.path)
    with Progress(plan, run.path) as watcher:
        jobs = plan.machine.jobs
        execute(run.path, plan.stages, worker=run_stage, executor=executor, jobs=jobs, watcher=watcher)
    record = study_record(plan, run)
    write_study(run.path, record)
    watcher.compare(record)
    return conclude(run)


def answer_without_models(
    path: Path, measured: Measured, root: Path
) -> tuple[tuple[BaselineResult, ...], tuple[str, ...]]:
    """Prepare the data of the study whose config is `path` and run its baselines; `compare` goes on there.

    Args:
        measured: what a plan of this study is made from.
    Returns: what the baselines reach, and the arms that are left out.
    """
    config = load(StudyConfig, path).config
    run = open_study(config, root)
    hold(run)
    run.start()
    plan = keep_plan(measured.plan(measured.decide()), run.path)
    first = [stage for stage in plan.stages if stage.key.kind in (StageKind.PREPARE, StageKind.BASELINE)]
    with Progress(plan, run.path) as watcher:
        execute(run.path, first, worker=run_stage, executor="local", jobs=plan.machine.jobs, watcher=watcher)
    results = [result_path(run.path, stage.key) for stage in first if stage.key.kind is StageKind.BASELINE]
    left_out = tuple(dict.fromkeys(row.arm for row in plan.fixed.left_out))
    return tuple(read_result(path, BaselineResult) for path in results), left_out


def conclude(run: Run) -> StudyOutcome:
    """Write the report of a study whose stages are done and say how it ended."""
    written = write_report(run.path)
    run.finish()
    answer = written.verdict
    line, recommended, exit_code = (answer[key] for key in ("line", "recommended", "exit_code"))
    return StudyOutcome(run.path, line, written.html, recommended, exit_code, answer)
