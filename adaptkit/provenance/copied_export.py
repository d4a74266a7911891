"""Read what an export says of its own making, for where the runs behind it are not here.

An export's manifest holds names of files without their folders, digests, counts and costs, and no text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from adaptkit.provenance.record import (
    DataSetRecord,
    ForeignRecord,
    RemovedRecord,
    SourceRecord,
    TrainingRecord,
)
from adaptkit.run_record import LEARNT

Entry = Mapping[str, Any]
"""One entry of `lineage` in an export's manifest (export/papers/lineage.py)."""


def trainings_of_export(lineage: Sequence[Entry]) -> list[TrainingRecord]:
    """The trainings, the last one first."""
    entries = [entry for entry in lineage if "run" in entry]
    if not entries:
        return []
    behind = [*(entry["run"] for entry in entries[1:]), _base_name(lineage)]
    return [
        TrainingRecord(
            run=entry["run"],
            recipe=entry.get("recipe") or "not recorded",
            base=base,
            teacher=entry.get("teacher") or "",
            reads=_reads(entry),
            tokens=entry.get("tokens"),
            flops=entry.get("flops"),
            state="not here",
        )
        for entry, base in zip(entries, behind, strict=True)
    ]


def _reads(entry: Entry) -> tuple[str, ...]:
    """The data sets that a training learnt from: of a study by their names, else by its own."""
    parts = (part for part in LEARNT if part in entry.get("data", {}))
    return tuple(entry.get("learnt") or (f"{entry['run']} {part}" for part in parts))


def _base_name(lineage: Sequence[Entry]) -> str:
    return next((str(entry["base"]) for entry in lineage if "base" in entry), "random weights")


def data_of_export(lineage: Sequence[Entry], missing: Collection[str]) -> Iterator[DataSetRecord]:
    """The data sets of trainings that are not here: of a study's the user's own files, each set once."""
    seen: set[tuple[str, str]] = set()
    for entry in lineage:
        if entry.get("run") not in missing:
            continue
        prepared = entry.get("prepared")
        if not prepared:
            for part, split in entry.get("data", {}).items():
                yield _data_set(entry["run"], part, entry["run"], split)
        else:
            known = set(entry["learnt"]) & prepared["corpora"].keys()
            for name, corpus in prepared["corpora"].items():
                if (name not in known and known) or (prepared["run"], name) in seen:
                    continue
                seen.add((prepared["run"], name))
                removed = tuple(_removed(name, prepared))
                train = _data_set(name, "train", prepared["run"], corpus["train"])
                yield train.model_copy(update={"removed": removed})
                yield _data_set(name, "test", prepared["run"], corpus["test"])


def _data_set(name: str, part: str, held_by: str, split: Entry) -> DataSetRecord:
    sources = [
        SourceRecord(name=file["name"], num_bytes=file["num_bytes"], sha256=file["sha256"], state="not here")
        for file in split["files"]
    ]
    return DataSetRecord(
        name=name,
        part=part,
        held_by=held_by,
        kind=split["kind"],
        rows=split["documents"],
        num_bytes=split["num_bytes"],
        digest=split["digest"],
        licences=split["licences"],
        sources=tuple(sources),
    )


def _removed(name: str, prepared: Entry) -> Iterator[RemovedRecord]:
    duplicates = prepared["duplicates"].get(name, {})
    if repeats := duplicates.get("num_exact", 0) + duplicates.get("num_near", 0):
        yield RemovedRecord(why="repeats another row", rows=repeats, num_bytes=duplicates["removed_bytes"])
    for cut in prepared["cuts"]:
        if cut["train"] == name and cut["bytes_cut"]:
            why = f"stands in the test of {cut['test']}"
            yield RemovedRecord(why=why, rows=cut["num_documents_touched"], num_bytes=cut["bytes_cut"])


def foreign_of_export(lineage: Sequence[Entry]) -> Iterator[ForeignRecord]:
    """The models from elsewhere."""
    for entry in lineage:
        if "base" in entry:
            yield ForeignRecord(role="base", name=entry["base"], licence="", weights=entry["weights"])
        elif "run" not in entry:
            yield ForeignRecord(role="teacher", name=entry["teacher"], licence="", weights=entry["weights"])
