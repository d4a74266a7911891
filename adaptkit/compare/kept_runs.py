"""What lies in a root: every run with its kind, state, size and score, and the studies that need it.

for kept in kept_runs(Path("runs")):
    kept.name, kept.state, kept.num_bytes, kept.studies
"""

from __future__ import annotations

import dataclasses
import time
from calendar import timegm
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from adaptkit.compare.workspace import is_workspace, runs_needed
from adaptkit.disk import size_of
from adaptkit.errors import DataError
from adaptkit.run import IDENTITY, Run
from adaptkit.run_lock import holder
from adaptkit.run_record import RunRecord, read_record
from adaptkit.study.verdict_record import read_verdict


class RunState(StrEnum):
    """How far a run is."""

    FINISHED = "finished"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    """Begun, and no process is at it: the same command goes on."""
    FAILED = "failed"
    DAMAGED = "damaged"
    """Its manifest, or a record of a study, cannot be read."""


@dataclass(frozen=True)
class KeptRun:
    """One run of a root.

    Attributes:
        kind: the recipe, or `study`; empty for a run that has not ended.
        studies: names of the studies whose records need it.
        made_by: the study whose stage made it; empty for a run of a command of its own.
        stands_on: names of the runs whose models it was made from.
        pid, host: of the process that is at it.
        ended: when it ended, or was last begun, in seconds since 1970.
        score: of its own suite, in words; of a study the arm that it recommends.
        older: made by an earlier release: it is read, but the same command starts a new run.
        problem: what is wrong with it.
    """

    name: str
    kind: str
    state: RunState
    num_bytes: int
    ended: float
    studies: tuple[str, ...] = ()
    made_by: str = ""
    stands_on: tuple[str, ...] = ()
    pid: int | None = None
    host: str = ""
    score: str = ""
    older: bool = False
    problem: str = ""

    @property
    def is_study(self) -> bool:
        return self.kind == "study"

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def run_folders(root: Path) -> list[Path]:
    """The folders of a root that are runs; links are left alone."""
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), fix="name the folder of all runs with --root")
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.is_symlink()]
    return [folder for folder in folders if Run(folder).manifest_path.is_file()]


def kept_runs(root: Path) -> list[KeptRun]:
    """Every run of a root, studies first, the latest first.

    Raises: DataError where there is no such folder.
    """
    folders = run_folders(root)
    needed_by: dict[str, list[str]] = {}
    broken: dict[str, str] = {}
    for folder in folders:
        if is_workspace(folder):
            try:
                for name in runs_needed(folder):
                    needed_by.setdefault(name, []).append(folder.name)
            except DataError as error:
                broken[folder.name] = error.what
    runs = [kept_run(folder, tuple(needed_by.get(folder.name, ()))) for folder in folders]
    for i, run in enumerate(runs):
        if run.name in broken:
            runs[i] = dataclasses.replace(run, state=RunState.DAMAGED, problem=broken[run.name])
    return sorted(runs, key=lambda run: (not run.is_study, -run.ended))


def kept_run(folder: Path, studies: tuple[str, ...] = ()) -> KeptRun:
    """One run, with the studies that need it."""
    run, num_bytes = Run(folder), size_of(folder)
    try:
        manifest = run.manifest()
    except DataError as error:
        touched = run.manifest_path.stat().st_mtime
        kind, damaged = ("study" if is_workspace(folder) else ""), RunState.DAMAGED
        return KeptRun(folder.name, kind, damaged, num_bytes, touched, studies, problem=error.what)
    process = holder(run)
    record, problem = _record(run, manifest)
    kind = "" if record is None else record.recipe.value
    return KeptRun(
        name=folder.name,
        kind="study" if is_workspace(folder) else kind,
        state=_state(manifest, bool(process)),
        num_bytes=num_bytes,
        ended=_seconds(manifest),
        studies=studies,
        made_by=str(manifest.get("study", "")),
        stands_on=() if record is None else _stands_on(folder.parent, record),
        pid=_pid(process),
        host=str(process.get("host", "")),
        score=_recommended(folder) if is_workspace(folder) else _score(record),
        older=manifest.get("identity_format") != IDENTITY,
        problem=problem or str(manifest.get("error", "")),
    )


def _state(manifest: dict[str, Any], held: bool) -> RunState:
    if held:
        return RunState.RUNNING
    if manifest.get("status") in (RunState.FINISHED, RunState.FAILED):
        return RunState(manifest["status"])
    return RunState.INTERRUPTED


def _pid(process: dict[str, object]) -> int | None:
    pid = process.get("pid")
    return pid if isinstance(pid, int) else None


def _record(run: Run, manifest: dict[str, Any]) -> tuple[RunRecord | None, str]:
    """The record of a run that has ended, and why it cannot be read."""
    if "record" not in manifest:
        return None, ""
    try:
        return read_record(run), ""
    except DataError as error:
        return None, error.what


def _stands_on(root: Path, record: RunRecord) -> tuple[str, ...]:
    """The runs of the root that hold what a run's weights came from."""
    names = []
    for place in (record.base, record.teacher, record.adapter_base):
        parents = Path(place).parts
        names += [
            part for part in parents if part not in ("/", "..") and Run(root / part).manifest_path.is_file()
        ]
    return tuple(dict.fromkeys(names))


def _score(record: RunRecord | None) -> str:
    if record is None or record.suite not in record.suites:
        return ""
    metrics = record.suites[record.suite].metrics
    return "".join(f"{value:.3f} {name.replace('_', ' ')}" for name, value in list(metrics.items())[:1])


def _recommended(study: Path) -> str:
    try:
        verdict = read_verdict(study)
    except DataError:  # it has not ended, or its report is another release's
        return ""
    return verdict.recommended


def _seconds(manifest: dict[str, Any]) -> float:
    """When it ended, or was begun; 0 where the manifest does not say."""
    written = next((manifest[key] for key in ("finished", "started", "created") if key in manifest), "")
    try:
        return float(timegm(time.strptime(str(written), "%Y-%m-%dT%H:%M:%SZ")))
    except ValueError:
        return 0.0
