"""What can be deleted from a root without losing anything that somebody needs.

    for found in removable(Path("runs")):
        found.kind, found.place, found.num_bytes, found.why
    delete(Path("runs"), removable(Path("runs")))

Never a run that a process is at, and never what a study's records need, or a run that is kept stands on.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from adaptkit.compare.kept_runs import KeptRun, RunState, kept_runs
from adaptkit.disk import leftovers, remove, size_of
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run
from adaptkit.run_lock import hold


class RemovableKind(StrEnum):
    """Why something can go."""

    LEFTOVER = "leftovers of kills"
    CHECKPOINTS = "checkpoints of finished runs"
    UNNEEDED = "runs that a study made and none needs"
    ALONE = "runs of no study"


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go; `place` is its name below the root, `run` the run that it is part of."""

    kind: RemovableKind
    place: str
    num_bytes: int
    run: str = ""

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def removable(root: Path, *, alone: bool = False) -> list[Removable]:
    """What can go, the largest kind of loss first.

    Args:
        alone: runs of no study too, that is of commands of their own: nothing else has what is in them.
    Raises: AdaptkitError where a study's records are damaged, for then nobody knows what it needs.
    """
    runs = kept_runs(root)
    for run in runs:
        if run.is_study and run.state is RunState.DAMAGED:
            fix = "run the same `adaptkit compare` again, which makes the damaged record anew, then prune"
            raise AdaptkitError(
                f"nothing is pruned beside a damaged study: {run.problem}", where=run.name, fix=fix
            )
    whole = _whole_runs(runs, alone)
    found = [Removable(kind, name, _bytes(runs, name), name) for name, kind in whole.items()]
    for run in runs:
        if run.state is not RunState.RUNNING and run.name not in whole:
            found += _parts(root, run)
    shared = [path for path in leftovers(root) if path.parent == root or _is_shared(root, path)]
    found += [_leftover(root, path) for path in shared]
    return sorted(found, key=lambda item: (list(RemovableKind).index(item.kind), -item.num_bytes, item.place))


def _whole_runs(runs: list[KeptRun], alone: bool) -> dict[str, RemovableKind]:
    """Runs that can go as a whole: not needed by a study, nor by what stays."""
    open_studies = {run.name for run in runs if run.is_study and run.state is not RunState.FINISHED}
    candidates: dict[str, RemovableKind] = {}
    for run in runs:
        if run.is_study or run.studies or run.state in (RunState.RUNNING, RunState.DAMAGED):
            continue
        if run.made_by and run.made_by not in open_studies:
            candidates[run.name] = RemovableKind.UNNEEDED
        elif alone and not run.made_by and run.state is RunState.FINISHED:
            candidates[run.name] = RemovableKind.ALONE
    kept = [run for run in runs if run.name not in candidates]
    while kept:
        needed = {name for run in kept for name in run.stands_on if name in candidates}
        kept = [run for run in runs if run.name in needed]
        for name in needed:
            del candidates[name]
    return candidates


def _parts(root: Path, run: KeptRun) -> list[Removable]:
    folder = Run(root / run.name)
    found = [_leftover(root, path, run.name) for path in leftovers(folder.path)]
    if run.state is RunState.FINISHED and folder.checkpoints.is_dir():
        place = folder.checkpoints.relative_to(root).as_posix()
        size = size_of(folder.checkpoints)
        found.append(Removable(RemovableKind.CHECKPOINTS, place, size, run.name))
    return found


def _is_shared(root: Path, path: Path) -> bool:
    """Whether it lies in what runs share: shards and locks, not in a run."""
    return not Run(root / path.relative_to(root).parts[0]).manifest_path.is_file()


def _leftover(root: Path, path: Path, run: str = "") -> Removable:
    return Removable(RemovableKind.LEFTOVER, path.relative_to(root).as_posix(), size_of(path), run)


def _bytes(runs: list[KeptRun], name: str) -> int:
    return next(run.num_bytes for run in runs if run.name == name)


def delete(root: Path, found: list[Removable]) -> list[Removable]:
    """Delete what was found; each run under its lock, and left out where a process has begun it since.

    Returns: what is gone.
    """
    gone = []
    for item in found:
        if item.run:
            try:
                hold(Run(root / item.run))
            except AdaptkitError:
                continue
            if item.kind is RemovableKind.CHECKPOINTS and not Run(root / item.run).finished:
                continue
        remove(root / item.place)
        gone.append(item)
    return gone
