"""Trace where a model comes from: its trainings, the foreign models they began with, and the licence.

Nothing that is written out holds an absolute path, a host or user name or a line of anybody's text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.export.source import Source, find_base, is_hub_id, run_of
from adaptkit.model_origin import UNKNOWN_LICENCE, hub_id, licence_files, stated_licence
from adaptkit.run import Run, file_digest, read_sealed
from adaptkit.run_record import LEARNT, RecipeKind, RunRecord, SplitRecord, read_record, validated
from adaptkit.study.data_record import CutRecord, DataRecord
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.record import is_study, read_study

SERVED_TEACHER = "a model behind HTTP"
MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")


@dataclass(frozen=True)
class Prepared:
    """The prepared data of a study: which files its rows came from, and what was taken out of them.

    Attributes:
        run: the name of the run that holds it.
        data: what its record says.
    """

    run: str
    data: DataRecord

    def as_json(self) -> dict[str, Any]:
        corpora = {
            name: {"train": _without_folders(corpus.train), "test": _without_folders(corpus.test)}
            for name, corpus in self.data.corpora.items()
        }
        cuts = [_without_places(cut) for cut in self.data.cuts]
        return {"run": self.run, "corpora": corpora, "duplicates": self.data.duplicates, "cuts": cuts}


@dataclass(frozen=True)
class Training:
    """One run on the way to the model.

    Attributes:
        run: its name.
        teacher: what it learnt from besides text, by name; None without a teacher.
        splits: the data it read.
        identity, config_sha256, code, versions: what would have to be equal to make it again.
        recipe: what made it.
        flops, tokens: what its training took and read; None where it kept no cost.
        prepared: where the rows came from, of a study's run; None of any other.
        learnt: the data sets of it that the training learnt from.
    """

    run: str
    teacher: str | None
    identity: str | None
    config_sha256: str | None
    splits: dict[str, SplitRecord]
    code: dict[str, Any] | None
    versions: dict[str, str] | None
    recipe: str = ""
    flops: float | None = None
    tokens: int | None = None
    prepared: Prepared | None = None
    learnt: tuple[str, ...] = ()

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
            "recipe": self.recipe,
            "flops": self.flops,
            "tokens": self.tokens,
            "prepared": self.prepared.as_json() if self.prepared else None,
            "learnt": list(self.learnt),
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
        return Lineage((), (foreign_model("base", str(source.folder), source.folder),))
    return trace_run(Run(source.run))


def trace_run(last: Run) -> Lineage:
    """Trace all that the model of a run was made from."""
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
            bases.append(foreign_model("base", record.base, folder))
    return Lineage(tuple(trainings), (*bases, *teachers))


def _foreign_teachers(run: Run, teacher: str) -> list[Foreign]:
    """Find the teacher, or, of one that was trained here, the foreign models that it goes back to."""
    folder = find_base(run.path, teacher)
    trained_here = run_of(folder)
    if trained_here is None:
        return [foreign_model("teacher", teacher, folder)]
    return [replace(model, role="teacher") for model in trace_run(trained_here).foreign]


def _training(run: Run) -> Training:
    manifest, record = run.manifest(), read_record(run)
    config_sha256: str | None = None
    if run.config_path.is_file():
        config_sha256 = file_digest(run.config_path)
    cost: dict[str, Any] = {}
    if run.cost_path.is_file():
        cost = read_sealed(run.cost_path)
    found = prepared_run(run, record)
    return Training(
        run=run.path.resolve().name,
        teacher=_teacher_name(run, record.teacher),
        identity=manifest.get("identity"),
        config_sha256=config_sha256,
        splits=record.splits,
        code=manifest.get("code") or None,
        versions=manifest.get("versions"),
        recipe=record.recipe.value,
        flops=cost.get("flops"),
        tokens=cost.get("tokens"),
        prepared=None if found is None else prepared_of(found),
        learnt=() if found is None else learnt_corpora(found, record),
    )


def prepared_run(run: Run, record: RunRecord) -> Run | None:
    """Find the run that holds the prepared data which a run of a study read; None where there is none.

    It is where the files lie that the run read, or else what the study names whose stage made the run.
    """
    root = run.path.absolute().parent
    files = [Path(str(file["name"])) for split in record.splits.values() for file in split.files]
    for folder in dict.fromkeys(parent for file in files for parent in list(file.parents)[:2]):
        for place in (root / folder.name, folder):
            if _holds_data(Run(place)):
                return Run(place)
    study = root / str(run.manifest().get("study") or run.path.name)
    if not is_study(study):
        return None
    named = Run(root / (read_study(study).prepared_run or study.name))
    return named if _holds_data(named) else None


def _holds_data(run: Run) -> bool:
    if not run.finished:
        return False
    record = read_record(run) if "record" in run.manifest() else None
    return record is not None and record.recipe is RecipeKind.PREPARE and "data" in record.facts


def prepared_of(run: Run) -> Prepared:
    """What a run of prepared data says of itself."""
    data = validated(DataRecord, read_record(run).facts["data"], str(run.manifest_path))
    return Prepared(run.path.resolve().name, data)


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


def learnt_corpora(prepared: Run, record: RunRecord) -> tuple[str, ...]:
    """Name the data sets of prepared data that a run learnt from, by the files that it read.

    Rows that were drawn from those of a task count as the task.
    """
    files, learnt = PreparedFiles(prepared.path), dict[str, None]()
    by_file = {files.train(name).name: name for name in prepared_of(prepared).data.corpora}
    for split in (record.splits[part] for part in LEARNT if part in record.splits):
        names = [by_file.get(Path(str(file["name"])).name, "") for file in split.files]
        learnt[next(filter(None, names), record.task or "text of a task's rows")] = None
    return tuple(learnt)


def _without_places(cut: CutRecord) -> dict[str, Any]:
    """Write what a test took out of training data, without the places of its items."""
    return cut.model_dump(mode="json", exclude={"examples", "by_source", "by_label"})


def foreign_model(role: Literal["base", "teacher"], model: str, folder: Path | None) -> Foreign:
    """Describe a model from elsewhere; its folder, where it is here, tells licence and digests."""
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
