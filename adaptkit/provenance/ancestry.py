"""Find the runs behind a folder or a weights file: an export's, a run's, a study's, and all they stand on.

found = find_ancestry(Path("runs/finetune-1a2b3c4d/export/int8"), Path("runs"))
found.kind, [run.path.name for run in found.runs], found.missing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adaptkit.errors import DataError
from adaptkit.export.record import MANIFEST_FILE, read_export
from adaptkit.run import Run, read_json
from adaptkit.run_record import RecipeKind, RunRecord, local_base, read_record
from adaptkit.study.record import is_study, read_study, runs_of

TRAININGS = frozenset(
    {RecipeKind.PRETRAIN, RecipeKind.FINETUNE, RecipeKind.EMBED, RecipeKind.RERANK, RecipeKind.DISTILL}
)
"""What leaves weights behind."""
NO_FOLDER = "give a study, a run, an export, or a weights file in one of them"


@dataclass(frozen=True)
class Ancestry:
    """The runs behind something.

    Attributes:
        folder: the export, run or study.
        exported: what a copied export itself says of its trainings (`lineage` in its manifest); none else.
        runs: the trainings that are here, each before those that it stands on.
        missing: names of runs that are not here.
    """

    folder: Path
    kind: Literal["export", "run", "study"]
    runs: tuple[Run, ...]
    missing: tuple[str, ...] = ()
    exported: tuple[dict[str, object], ...] = ()


def find_ancestry(place: Path, root: Path) -> Ancestry:
    """Find all trainings behind a place.

    Args:
        root: where runs are looked for that an export elsewhere names.
    Raises: DataError for what is neither a run, a study nor an export, and for a run that has not ended.
    """
    if not place.exists():
        raise DataError("no such file or folder", where=str(place), fix=NO_FOLDER)
    for folder in [place, *place.absolute().parents[:4]]:
        if not folder.is_dir():
            continue
        if is_study(folder):
            return _of_study(folder)
        if read_export(folder) is not None:
            return _of_export(folder, root)
        if "record" in Run(folder).manifest():
            return _of_run(folder)
    if (place / MANIFEST_FILE).is_file():
        read_record(Run(place))  # says that it has not ended
    what = "nothing here says what this was made from: it is no run, study or export, and in none"
    raise DataError(what, where=str(place), fix=NO_FOLDER)


def _of_run(folder: Path) -> Ancestry:
    runs = tuple(_closure([Run(folder)]))
    if not runs:
        recipe = read_record(Run(folder)).recipe
        what = f"this run ({recipe}) trained nothing, and stands on nothing that was trained here"
        raise DataError(what, where=str(folder), fix=NO_FOLDER)
    return Ancestry(folder, "run", runs)


def _of_study(folder: Path) -> Ancestry:
    root = folder.absolute().parent
    names = sorted(runs_of(read_study(folder)))
    here = [Run(root / name) for name in names if Run(root / name).manifest_path.is_file()]
    missing = tuple(name for name in names if not Run(root / name).manifest_path.is_file())
    return Ancestry(folder, "study", tuple(_closure(here)), missing)


def _of_export(folder: Path, root: Path) -> Ancestry:
    lineage = read_json(folder / MANIFEST_FILE).get("lineage") or []
    named = [str(entry["run"]) for entry in lineage if "run" in entry]
    roots = [folder.absolute().parents[2], root] if len(folder.absolute().parents) > 2 else [root]
    runs = [found for name in named for found in [_in_roots(name, roots)] if found is not None]
    here = {run.path.name for run in runs}
    missing = tuple(name for name in named if name not in here)
    return Ancestry(folder, "export", tuple(_closure(runs)), missing, tuple(lineage))


def _in_roots(name: str, roots: list[Path]) -> Run | None:
    """The finished run of a name, in the first root that has one."""
    runs = (Run(root / name) for root in roots)
    return next((run for run in runs if "record" in run.manifest()), None)


def _closure(first: list[Run]) -> Iterator[Run]:
    """The trainings among runs and all that they stand on, each before what it stands on."""
    seen: dict[Path, tuple[Run, RunRecord]] = {}
    waiting = list(first)
    while waiting:
        run = waiting.pop(0)
        key = run.path.resolve()
        if "record" not in run.manifest():
            continue
        record = read_record(run)
        seen.pop(key, None)  # what stands under several comes behind all of them
        seen[key] = run, record
        waiting += parents_of(run, record)
    for run, record in seen.values():
        if record.recipe in TRAININGS:
            yield run


def parents_of(run: Run, record: RunRecord) -> list[Run]:
    """The runs whose models a run began with or was taught by."""
    found: dict[Path, Run] = {}
    for place in (record.base, record.teacher, record.adapter_base):
        folder = local_base(run.path, place)
        if folder is None:
            continue
        parent = Run(folder.parent)
        if "record" in parent.manifest() and parent.path.resolve() != run.path.resolve():
            found[parent.path.resolve()] = parent
    return list(found.values())
