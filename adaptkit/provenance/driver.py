"""Trace weights back to the rows that made them, and hold every digest on the way against what was recorded.

record = trace_provenance(Path("runs/finetune-1a2b3c4d/export/int8"), Path("runs"))
record.problems        # empty where all that is here matches
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from adaptkit.errors import AdaptkitError
from adaptkit.export.papers.compute_thresholds import TrainingCompute, check_thresholds, training_compute
from adaptkit.export.papers.lineage import (
    Foreign,
    Lineage,
    foreign_model,
    learnt_corpora,
    prepared_of,
    prepared_run,
    trace_run,
)
from adaptkit.export.papers.provenance import verify
from adaptkit.export.record import MANIFEST_FILE
from adaptkit.export.source import find_base, kind_of, run_of
from adaptkit.provenance.ancestry import Ancestry, find_ancestry
from adaptkit.provenance.copied_export import data_of_export, foreign_of_export, trainings_of_export
from adaptkit.provenance.record import (
    DataSetRecord,
    ForeignRecord,
    ProvenanceRecord,
    ThresholdRecord,
    TrainingRecord,
)
from adaptkit.provenance.sources import Tokens, added_sentences, data_of_run, data_of_study
from adaptkit.provenance.split_rows import rows_of_split, token_counts
from adaptkit.run import Run, model_digest, read_json, read_sealed
from adaptkit.run_record import LEARNT, ModelKind, RunRecord, SplitRecord, read_record
from adaptkit.seal import check, file_digest
from adaptkit.study.prepared_files import PREPARED, PreparedFiles
from adaptkit.study.record import is_study

WEIGHTS = ".safetensors"


@dataclass
class Findings:
    """What is said beside the tables: digests that do not match, and what could not be held against one."""

    problems: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def holds(self, check: Callable[[Path], None], folder: Path) -> bool:
        """Check a folder; what that raises is a problem. Returns whether it held."""
        try:
            check(folder)
        except AdaptkitError as error:
            self.problems.append(str(error).splitlines()[0])
            return False
        return True


def trace_provenance(place: Path, root: Path, base_flops: float | None = None) -> ProvenanceRecord:
    """Trace a study, run, export or weights file; nothing is sent anywhere.

    Args:
        root: where runs are looked for that an export elsewhere names.
        base_flops: what the foreign base took to train, for who knows it.
    Raises: DataError for what is none of these, or has not ended.
    """
    return trace_ancestry(find_ancestry(place, root), base_flops)


def trace_ancestry(ancestry: Ancestry, base_flops: float | None = None) -> ProvenanceRecord:
    """The same of runs that were found already."""
    findings = Findings()
    if ancestry.kind == "export":
        findings.holds(verify, ancestry.folder)
    runs = [_held(run, findings) for run in ancestry.runs]
    data = [*_study_data(runs, findings), *_own_data(runs)]
    for each in runs:
        _check_inputs(each, findings)
    missing, lineage = set(ancestry.missing), _lineage(ancestry)
    trainings = [each.training() for each in runs]
    trainings += [each for each in trainings_of_export(ancestry.exported) if each.run in missing]
    data += data_of_export(ancestry.exported, missing)
    _report_sources(data, findings)
    if missing:
        names = ", ".join(ancestry.missing)
        findings.unverified.append(f"not here, and taken from what the folder itself says: run {names}")
    return ProvenanceRecord(
        folder=str(ancestry.folder),
        kind=ancestry.kind,
        weights=_weights(ancestry, findings),
        trainings=tuple(trainings),
        data=tuple(data),
        foreign=tuple(_foreign(ancestry, lineage)),
        thresholds=_thresholds(ancestry, lineage, trainings, base_flops),
        problems=tuple(dict.fromkeys(findings.problems)),
        unverified=tuple(findings.unverified),
        notes=tuple(findings.notes),
    )


@dataclass(frozen=True)
class _Held:
    """A training that is here.

    Attributes:
        intact: whether its files have the digests that it recorded.
        prepared: the run with the prepared data that it read; None of a run of no study.
    """

    run: Run
    record: RunRecord
    intact: bool
    prepared: Run | None

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    def reads(self) -> tuple[str, ...]:
        """The data sets that it learnt from: of a study by their names, else by its own."""
        if self.prepared is not None:
            return learnt_corpora(self.prepared, self.record)
        return tuple(f"{self.name} {part}" for part in LEARNT if part in self.record.splits)

    def training(self) -> TrainingRecord:
        cost = read_sealed(self.run.cost_path) if self.run.cost_path.is_file() else {}
        return TrainingRecord(
            run=self.name,
            recipe=self.record.recipe.value,
            task=self.record.task,
            base=self.record.base or "random weights",
            teacher=self.record.teacher,
            reads=self.reads(),
            num_steps=self.record.num_steps,
            params=self.record.params,
            tokens=round(cost["tokens"]) if cost.get("tokens") is not None else None,
            flops=cost.get("flops"),
            seconds=cost.get("seconds"),
            device=cost.get("device") or "",
            state="verified" if self.intact else "changed",
        )


def _held(run: Run, findings: Findings) -> _Held:
    record = read_record(run)
    return _Held(run, record, findings.holds(check, run.path), prepared_run(run, record))


def _study_data(runs: Sequence[_Held], findings: Findings) -> Iterator[DataSetRecord]:
    """The data sets of each prepared data that a run read, once."""
    for folder in {each.prepared.path.resolve(): each.prepared for each in runs if each.prepared}.values():
        findings.holds(check, folder.path)
        readers = [each for each in runs if each.prepared and each.prepared.path == folder.path]
        tokens: dict[str, tuple[str, Tokens]] = {}
        for each in readers:
            for split in (each.record.splits[part] for part in LEARNT if part in each.record.splits):
                if split.digest not in tokens and (counts := _tokens(each, split)):
                    tokens[split.digest] = counts
        prepared = prepared_of(folder)
        findings.notes += added_sentences(prepared.data)
        learnt = {name for each in readers for name in each.reads()}
        for of in data_of_study(folder, prepared, tokens):
            if of.name in learnt or not learnt <= prepared.data.corpora.keys():
                yield of


def _tokens(held: _Held, split: SplitRecord) -> tuple[str, Tokens] | None:
    counts = token_counts(held.run, held.record, split)
    return None if counts is None else (held.name, counts)


def _own_data(runs: Sequence[_Held]) -> Iterator[DataSetRecord]:
    """The data sets of runs of no study."""
    for each in runs:
        for part, split in each.record.splits.items():
            if each.prepared is None:
                rows = rows_of_split(each.run, each.record, part)
                yield data_of_run(each.run, part, split, rows, _tokens(each, split))


def _check_inputs(held: _Held, findings: Findings) -> None:
    """Hold prepared data, and models that a run was given, against the digests that it recorded of them."""
    inputs = held.run.manifest().get("inputs", {})
    if held.prepared is not None and PREPARED in inputs:
        files = PreparedFiles(held.prepared.path)
        if files.digest() != inputs[PREPARED]:
            findings.problems.append(
                f"{held.prepared.path}: its rows are not those that {held.name} was trained on"
            )
    for key, named in (("base", held.record.base), ("teacher", held.record.teacher)):
        folder = find_base(held.run.path, named) if named and key in inputs else None
        if key in inputs and folder is None:
            findings.unverified.append(f"{key} {named} of {held.name} is not here")
        elif folder is not None and model_digest(folder) != inputs[key]:
            findings.problems.append(f"{folder}: is not the {key} that {held.name} began with")


def _report_sources(data: Sequence[DataSetRecord], findings: Findings) -> None:
    """Say which source files have changed, and which are not where they were read."""
    for each in {(source.name, source.sha256): source for of in data for source in of.sources}.values():
        if each.state == "changed":
            what = f"its sha256 is not {each.sha256[:12]}..., which was recorded when it was read"
            findings.problems.append(f"{each.name}: {what}")
        elif each.state == "not here":
            what = "is not where it was read; run this from the folder that it was trained from"
            findings.unverified.append(f"{each.name} {what}")


def _weights(ancestry: Ancestry, findings: Findings) -> dict[str, str]:
    """Digests of the weights; those of an export must have been made from the model of its run."""
    if ancestry.kind == "study":
        return {}
    folder = ancestry.folder if ancestry.kind == "export" else Run(ancestry.folder).model
    if ancestry.kind == "export" and ancestry.runs:
        made_from = read_json(folder / MANIFEST_FILE).get("source") or {}
        model = ancestry.runs[0].model
        for name, sha256 in made_from.items():
            if name.endswith(WEIGHTS) and (model / name).is_file() and file_digest(model / name) != sha256:
                findings.problems.append(f"{model / name}: is not what {folder} was exported from")
    weights = {path.name: file_digest(path) for path in sorted(folder.glob(f"*{WEIGHTS}"))}
    if not weights:
        findings.notes.append(f"{ancestry.folder} kept no weights, as trials and scorings of a study do not")
    return weights


def _foreign(ancestry: Ancestry, lineage: Lineage | None) -> Iterator[ForeignRecord]:
    """The models from elsewhere, each once."""
    if lineage is None:
        yield from foreign_of_export(ancestry.exported)
    models = lineage.foreign if lineage is not None else ()
    if ancestry.kind == "study":
        models = tuple(_foreign_bases(ancestry.runs))
    for each in models:
        facts = {"role": each.role, "name": each.name, "licence": each.licence, "weights": each.weights}
        yield ForeignRecord.model_validate(facts)


def _foreign_bases(runs: Sequence[Run]) -> Iterator[Foreign]:
    """The models that runs of a study began with, or were taught by, and that were not trained here."""
    seen = {""}
    for run in runs:
        record = read_record(run)
        named: list[tuple[Literal["base", "teacher"], str]] = [
            ("base", record.base),
            ("teacher", record.teacher),
        ]
        for role, name in named:
            if name not in seen:
                seen.add(name)
                folder = find_base(run.path, name)
                if run_of(folder) is None:
                    yield foreign_model(role, name, folder)


def _lineage(ancestry: Ancestry) -> Lineage | None:
    """The line of trainings from the weights back; None of a study, and where a training is not here."""
    if ancestry.kind == "study" or not ancestry.runs or ancestry.missing:
        return None
    return trace_run(ancestry.runs[0])


def _thresholds(
    ancestry: Ancestry, lineage: Lineage | None, trainings: Sequence[TrainingRecord], base_flops: float | None
) -> tuple[ThresholdRecord, ...]:
    """Regulators' thresholds for one model; none for a study, which has many."""
    if ancestry.kind == "study":
        return ()
    if ancestry.kind == "export":
        generates = kind_of(ancestry.folder) == "generate"
    else:
        generates = read_record(Run(ancestry.folder)).model_kind is ModelKind.CAUSAL
    if lineage is not None:
        root = ancestry.runs[0].path.absolute().parent
        made_by = root / str(ancestry.runs[0].manifest().get("study") or ".")
        study = made_by if is_study(made_by) else None
        compute = training_compute(lineage, generates=generates, study=study, base_flops=base_flops)
    else:
        flops = [each.flops for each in trainings]
        foreign = any("base" in entry for entry in ancestry.exported)
        known = bool(flops) and None not in flops
        base = base_flops if foreign else 0.0
        compute = TrainingCompute(sum(each or 0.0 for each in flops), base, generates, known)
    return tuple(ThresholdRecord.model_validate(check.as_json()) for check in check_thresholds(compute))
