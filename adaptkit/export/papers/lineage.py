"""Trace where a model comes from: its trainings, the foreign models they began with, and the licence.

Nothing that is written out holds an absolute path, a host or user name or a line of anybody's text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.export.source import Source, find_base, is_hub_id, run_of
from adaptkit.model_origin import UNKNOWN_LICENCE, hub_id, licence_files, stated_licence
from adaptkit.run import Run, file_digest
from adaptkit.run_record import SplitRecord, read_record

SERVED_TEACHER = "a model behind HTTP"
MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class Training:
    """One run on the way to the model.

    Attributes:
        run: its name.
        teacher: what it learnt from besides text, by name; None without a teacher.
        splits: the data it read.
        identity, config_sha256, code, versions: what would have to be equal to make it again.
    """

    run: str
    teacher: str | None
    identity: str | None
    config_sha256: str | None
    splits: dict[str, SplitRecord]
    code: dict[str, Any] | None
    versions: dict[str, str] | None

    def as_json(self) -> dict[str, Any]:
        data = {name: _without_folders(split) for name, split in self.splits.items()}
        return {
            "run": self.run,
            "teacher": self.teacher,
            "identity": self.identity,
            "config_sha256": self.config_sha256,
            "data": data,
            "code": self.code,
            "versions": self.versions,
        }


@dataclass(frozen=True)
class Foreign:
    """A model that was not trained here.

    Attributes:
        role: whether weights began as it, or were taught by it.
        name: a hub id, or its folder's name.
        weights: file name -> sha256; None where its folder is not here.
        licence: what its folder says.
        folder: where it lies here; never written out.
        hub_id: its name on the hub; empty where it has none.
    """

    role: Literal["base", "teacher"]
    name: str
    weights: dict[str, str] | None
    licence: str
    folder: Path | None
    hub_id: str = ""

    def as_json(self) -> dict[str, Any]:
        return {self.role: self.name, "weights": self.weights}


@dataclass(frozen=True)
class Lineage:
    """Trainings, the last one first; then foreign models, the base before teachers that are not it."""

    trainings: tuple[Training, ...]
    foreign: tuple[Foreign, ...]

    @property
    def base(self) -> Foreign | None:
        """The foreign model that all training began with; None for random weights."""
        return next((model for model in self.foreign if model.role == "base"), None)

    def as_json(self) -> list[dict[str, Any]]:
        trainings = [training.as_json() for training in self.trainings]
        return [*trainings, *(model.as_json() for model in self.foreign)]

    def licence(self) -> tuple[str, str]:
        """Derive (tag for the card's header, the same in words): the base's licence, else a teacher's."""
        if not self.foreign:
            return "other", "no base model: whoever owns the training text decides"
        first = self.foreign[0]
        others = {
            f"; {model.licence} for what its {model.role} {model.name} gave"
            for model in self.foreign[1:]
            if model.licence != first.licence
        }
        more = "".join(sorted(others))
        if first.licence == UNKNOWN_LICENCE:
            whose = f"that of its {first.role} {first.name}, which is {UNKNOWN_LICENCE}"
            return "other", f"{whose}: look it up before you pass this on{more}"
        return first.licence, f"{first.licence}, carried over from its {first.role} {first.name}{more}"

    def licence_files(self) -> list[Path]:
        """Find licence texts in the folders of foreign models."""
        folders = [model.folder for model in self.foreign if model.folder is not None]
        return [path for folder in folders for path in licence_files(folder)]


def trace(source: Source) -> Lineage:
    """Trace all that a source was made from."""
    if source.run is None:
        return Lineage((), (_foreign("base", str(source.folder), source.folder),))
    return _trace_run(Run(source.run))


def _trace_run(last: Run) -> Lineage:
    trainings: list[Training] = []
    bases: list[Foreign] = []
    teachers: list[Foreign] = []
    run: Run | None = last
    while run is not None:
        record = read_record(run)
        trainings.append(_training(run))
        if record.teacher not in ("", record.base):
            teachers += _foreign_teachers(run, record.teacher)
        folder = find_base(run.path, record.base)
        run = run_of(folder)
        if run is None and record.base:
            bases.append(_foreign("base", record.base, folder))
    return Lineage(tuple(trainings), (*bases, *teachers))


def _foreign_teachers(run: Run, teacher: str) -> list[Foreign]:
    """Find the teacher, or, of one that was trained here, the foreign models that it goes back to."""
    folder = find_base(run.path, teacher)
    trained_here = run_of(folder)
    if trained_here is None:
        return [_foreign("teacher", teacher, folder)]
    return [replace(model, role="teacher") for model in _trace_run(trained_here).foreign]


def _training(run: Run) -> Training:
    manifest, record = run.manifest(), read_record(run)
    config_sha256: str | None = None
    if run.config_path.is_file():
        config_sha256 = file_digest(run.config_path)
    return Training(
        run=run.path.resolve().name,
        teacher=_teacher_name(run, record.teacher),
        identity=manifest.get("identity"),
        config_sha256=config_sha256,
        splits=record.splits,
        code=manifest.get("code") or None,
        versions=manifest.get("versions"),
    )


def _teacher_name(run: Run, teacher: str) -> str | None:
    """Name the teacher's run, or the teacher itself; None without a teacher."""
    if not teacher:
        return None
    trained_here = run_of(find_base(run.path, teacher))
    if trained_here is None:
        return _short(teacher)
    return trained_here.path.resolve().name


def _without_folders(split: SplitRecord) -> dict[str, Any]:
    """Write what a manifest says of a split: files by name only."""
    facts = split.model_dump(include={"kind", "documents", "num_bytes", "digest", "licences"})
    return {**facts, "files": [{**file, "name": Path(str(file["name"])).name} for file in split.files]}


def _foreign(role: Literal["base", "teacher"], model: str, folder: Path | None) -> Foreign:
    if folder is None:
        return Foreign(role, _short(model), None, UNKNOWN_LICENCE, None, hub_id(model))
    on_hub = hub_id(model) or hub_id(str(folder))
    return Foreign(role, _short(model), weights_digests(folder), stated_licence(folder), folder, on_hub)


def weights_digests(folder: Path) -> dict[str, str]:
    """Digest the weights, config and tokenizer in a model folder: file name -> sha256."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix in MODEL_FILES]
    return {path.name: file_digest(path) for path in files}


def _short(model: str) -> str:
    """Shorten a model's name: a hub id as it is, of a path only its last part, of an address nothing."""
    if model.startswith(("http://", "https://")):
        return SERVED_TEACHER
    path = Path(model).expanduser()
    if is_hub_id(model) and not path.is_dir():
        return model
    return path.resolve().name
