"""Runs one stage of a study, in a process of its own, and leaves its result or its error."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path

from adaptkit.compare.ranks import is_first, leave_to_first
from adaptkit.compare.stage import Stage
from adaptkit.compare.stages.data import prepare
from adaptkit.compare.stages.forecast import forecast
from adaptkit.compare.stages.language import base, language, tokenizer
from adaptkit.compare.stages.task import baseline, task
from adaptkit.compare.workspace import Workspace, error_path, result_path
from adaptkit.disk import disk_full
from adaptkit.errors import AdaptkitError
from adaptkit.run import write_json
from adaptkit.run_lock import release
from adaptkit.study.stage_record import StageKind, StageResult, write_result

STAGES: dict[StageKind, Callable[[Workspace, Stage, int], StageResult]] = {
    StageKind.PREPARE: prepare,
    StageKind.TOKENIZER: tokenizer,
    StageKind.BASE: base,
    StageKind.LANGUAGE: language,
    StageKind.FORECAST: forecast,
    StageKind.TASK: task,
    StageKind.BASELINE: baseline,
}


def run_stage(study: Path, stage: Stage, threads: int) -> None:
    """Run one stage here.

    Raises: SystemExit where it fails; what and why then lie in the study's folder.
    """
    begun = time.monotonic()
    try:
        result = STAGES[stage.key.kind](Workspace(study), stage, threads)
        leave_to_first()
        times = {"seconds": round(time.monotonic() - begun, 2), "ended": round(time.time(), 2)}
        write_result(result_path(study, stage.key), result.model_copy(update=times))
    except BaseException as error:
        if isinstance(error, SystemExit) and not error.code:
            raise  # one of several processes, whose work is done
        left = error_path(study, stage.key)
        if is_first() or not left.exists():
            write_json(left, _described(error))
        traceback.print_exc()
        raise SystemExit(1) from None
    finally:
        release()


def _described(error: BaseException) -> dict[str, str | None]:
    error = disk_full(error) or error
    if isinstance(error, AdaptkitError):
        return {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
    return {"kind": "StageFailed", "what": f"{type(error).__name__}: {error}", "where": None, "fix": None}
