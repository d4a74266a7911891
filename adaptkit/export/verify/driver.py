"""Repeat an export's stored answers, or hold one folder's answers against another's, and say what changed.

verify_folder(Path("runs/x/export/int8"))                  # against its own record, by transformers
verify_folder(folder, engine=lambda record: ask_server(...))
verify_upgrade(Path("old"), Path("new"))                   # whether users get something else
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.export.papers import provenance
from adaptkit.export.record import MANIFEST_FILE
from adaptkit.export.verify.answer_changes import (
    Given,
    KindResult,
    Tolerances,
    Verdict,
    compare_answers,
    overall,
    shown,
    tolerances,
)
from adaptkit.export.verify.record import AnswerKind, AnswerRecord, read_answers

Engine = Callable[[AnswerRecord], Given]
"""Asks an engine the questions of a record."""


@dataclass(frozen=True)
class Verification:
    """Whether a model answers as its record says.

    Attributes:
        files: what is to be said of the files beside the answers; empty where all are as exported.
    """

    verdict: Verdict
    folder: Path
    engine: str
    why_tolerance: str
    results: tuple[KindResult, ...]
    files: str = ""

    def lines(self) -> list[str]:
        """Say the verdict, each kind of answer, and the smallest example of each that changed."""
        lines = [f"{self.verdict}: {self.folder}, asked by {self.engine}", ""]
        width = max(len(result.kind) for result in self.results)
        for result in self.results:
            lines.append(f"  {result.kind:<{width}}  {result.verdict:<11}  {_details(result)}".rstrip())
        for result in self.results:
            if result.example is not None:
                example = result.example
                lines += ["", f"{result.kind}, the smallest example:", f"  text      {example.text}"]
                lines += [f"  expected  {example.expected}", f"  got       {example.got}"]
        lines += ["", f"tolerance: {self.why_tolerance}"]
        if self.files:
            lines.append(f"files: {self.files}")
        return lines

    def as_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "folder": str(self.folder),
            "engine": self.engine,
            "tolerance": self.why_tolerance,
            "kinds": [dataclasses.asdict(result) for result in self.results],
            "files": self.files,
        }


def _details(result: KindResult) -> str:
    parts = []
    if result.compared:
        parts.append(f"{result.compared} compared")
    if result.changed:
        parts.append(f"{result.changed} changed")
    if result.largest is not None and result.tolerance is not None:
        parts.append(f"largest change {result.largest:.2g}, tolerance {result.tolerance:.2g}")
    if result.note:
        parts.append(result.note)
    return "; ".join(parts)


def verify_folder(folder: Path, engine: Engine) -> Verification:
    """Repeat the answers that a folder stores.

    Raises: DataError for a folder that stores none; what the engine raises where it cannot be asked at all.
    """
    record = read_answers(folder)
    if record is None:
        fix = "export the model again, or compare two folders: adaptkit verify OLD NEW"
        raise DataError("stores no answers to repeat", where=str(folder), fix=fix)
    try:
        given = engine(record)
    except ModelError as error:
        return _does_not_load(folder, error)
    return _judged(folder, record, given, tolerances(record, given), _changed_files(folder))


def verify_upgrade(old: Path, new: Path) -> Verification:
    """Hold what a new folder answers against what the old one does, both computed in float32.

    A folder that stores its weights more coarsely may differ by what that rounding does to the other's.
    Raises: ModelError or DataError where the old folder cannot be asked.
    """
    from adaptkit.export.verify.upgrade import coarser_rounding, record_of  # loads torch

    record = record_of(old)
    try:
        given, rounding, stored = coarser_rounding(old, new, record)
    except ModelError as error:
        return _does_not_load(new, error)
    return _judged(new, record, given, tolerances(record, given, rounding, stored), "")


def _judged(
    folder: Path, record: AnswerRecord, given: Given, allowed: Tolerances, files: str
) -> Verification:
    results = compare_answers(record, given, allowed)
    return Verification(overall(results), folder, given.engine, allowed.why, tuple(results), files)


def _does_not_load(folder: Path, error: AdaptkitError) -> Verification:
    """Say that a folder which once answered cannot even be loaded."""
    result = KindResult(AnswerKind.LOADING, Verdict.CHANGED, 1, 1, note=shown(error.what))
    return Verification(Verdict.CHANGED, folder, "transformers", "none: it does not load", (result,))


def _changed_files(folder: Path) -> str:
    """Name the first file that is not the exported one, in words; empty where all are."""
    if not (folder / MANIFEST_FILE).is_file():
        return ""
    try:
        provenance.verify(folder)
    except ModelError as error:
        return error.what
    return ""
