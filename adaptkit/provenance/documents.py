"""Say which runs were trained on a document, and what it costs to make them again without it.

Texts are compared as preparing data compares them: equal but for blanks at their ends, or nearly equal by the
runs of five words that they share (data/dedup.py). A document of which a test or a splitting left pieces is
found by its pieces.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from adaptkit.data.dedup import THRESHOLD, minhash
from adaptkit.data.files import format_of
from adaptkit.data.readers import DataConfig, content_id, read
from adaptkit.errors import DataError
from adaptkit.provenance.ancestry import Ancestry, parents_of
from adaptkit.provenance.record import DocumentRecord, PlaceRecord, ReaderRecord, RetrainingRecord
from adaptkit.provenance.split_rows import SplitRows, prepared_rows, rows_of_split, token_counts
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import LEARNT, RunRecord, read_record
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.rag import COLLECTION

MIN_PIECE = 40
"""Characters from which on a row that stands in the document, or in which it stands, counts."""
How = Literal["whole", "part", "within", "near"]


def document_of(word: str) -> str:
    """The text that a word of the command line means: what a file holds, or the word itself.

    Raises: DataError for a file that is not there or has several rows, and for a text too short to tell from
        others.
    """
    text = word
    if os.path.isfile(os.path.expanduser(word)):
        rows = read(DataConfig(files=[word])).rows
        if len(rows) != 1:
            what = f"holds {len(rows)} rows, and one document is looked for"
            raise DataError(what, where=word, fix="write the one document into a .txt file")
        text = rows[0].text
    elif not any(map(str.isspace, word.strip())) and format_of(Path(word)):
        raise DataError("no such file", where=word, fix="check the path, or give the document's text")
    if len(text.strip()) < MIN_PIECE:
        what = f"'{text.strip()}' is shorter than {MIN_PIECE} characters: it stands in many texts"
        raise DataError(what, where="--document", fix="give a file, or more of the document's text")
    return text.strip()


@dataclass(frozen=True)
class Wanted:
    """The document that is looked for; `text` has no blanks at its ends."""

    text: str

    @cached_property
    def signature(self) -> np.ndarray:
        return minhash([self.text])[0]

    def among(self, rows: SplitRows) -> list[tuple[How, int, float | None]]:
        """(how it stands there, number of the row, similarity) of each row that has to do with it."""
        found: list[tuple[How, int, float | None]] = []
        others: list[int] = []
        for number, row in enumerate(rows.rows):
            text = row.text.strip()
            if text == self.text:
                found.append(("whole", number, None))
            elif len(text) >= MIN_PIECE and text in self.text:
                found.append(("part", number, None))
            elif self.text in text:
                found.append(("within", number, None))
            else:
                others.append(number)
        if others:
            signatures = minhash([rows.rows[number].text for number in others])
            alike = (signatures == self.signature).mean(axis=1)
            for place in np.flatnonzero(alike >= THRESHOLD):
                found.append(("near", others[int(place)], float(alike[place])))
        return found


def places_in(document: Wanted, rows: SplitRows, data: str, part: str) -> list[PlaceRecord]:
    """One record for each way in which a document stands among rows."""
    by_how: dict[str, list[tuple[int, float | None]]] = {}
    for how, number, similarity in document.among(rows):
        by_how.setdefault(how, []).append((number, similarity))
    return [
        PlaceRecord.model_validate(
            {
                "data": data,
                "part": part,
                "how": how,
                "rows": len(found),
                "where": rows.origins[found[0][0]],
                "similarity": max((each for _, each in found if each is not None), default=None),
            }
        )
        for how, found in by_how.items()
    ]


class Finder:
    """Looks for one document in the data of runs; rows that several runs read are looked through once."""

    def __init__(self, document: str):
        self.wanted = Wanted(document)
        self._seen: dict[tuple[str, bool], list[PlaceRecord]] = {}

    def reader(self, run: Run) -> ReaderRecord:
        """What a run's own data has to do with the document."""
        record, places, unknown = read_record(run), list[PlaceRecord](), list[str]()
        for part in record.splits:
            rows = rows_of_split(run, record, part)
            if rows is None:
                found = self._by_id(run, record, part)
                places += found
                if not found:
                    unknown.append(part)
                continue
            key = (rows.digest, part in LEARNT)
            if key not in self._seen:
                self._seen[key] = places_in(self.wanted, rows, run.path.resolve().name, part)
            here = {"data": run.path.resolve().name, "part": part}
            places += [place.model_copy(update=here) for place in self._seen[key]]
            if not rows.exact and self._seen[key]:
                unknown.append(part)
        return _reader(run, places, unknown)

    def _by_id(self, run: Run, record: RunRecord, part: str) -> list[PlaceRecord]:
        """Where the whole document stands by the digests in a pretraining's shards.

        Nowhere means little: they know no pieces and no near copies.
        """
        counts = token_counts(run, record, record.splits[part]) or {}
        if content_id({"text": self.wanted.text}) not in counts:
            return []
        where = "its token shards"
        return [PlaceRecord(data=run.path.resolve().name, part=part, how="id", rows=1, where=where)]


def _reader(run: Run, places: list[PlaceRecord], unknown: list[str]) -> ReaderRecord:
    """Args: unknown: parts of which it is not known whether they held what their files hold."""
    learnt = {place.how for place in places if place.part in LEARNT and place.part not in unknown}
    how: Literal["trained", "near copy", "judged", "cannot say"] = "judged"
    why = ""
    if learnt:
        how = "near copy" if learnt == {"near"} else "trained"
    elif open_parts := [part for part in unknown if part in LEARNT]:
        how, parts = "cannot say", " and ".join(open_parts)
        why = f"the rows of its {parts} data are not here as it read them"
        if any(place.part in open_parts for place in places):
            why = f"its files hold it, and which of their rows its {parts} data had is not known any more"
    return ReaderRecord(run=run.path.resolve().name, how=how, places=tuple(places), why=why)


def find_document(ancestry: Ancestry, document: str) -> DocumentRecord:
    """Find who among the runs was trained on a document, who stands on one that was, and what they cost.

    Args:
        document: as `document_of` gives it.
    """
    finder, readers = Finder(document), dict[str, ReaderRecord]()
    tainted, doubtful = set[str](), set[str]()
    for run in reversed(ancestry.runs):  # what others stand on comes first
        name, reader = run.path.resolve().name, finder.reader(run)
        parents = [parent.path.resolve().name for parent in parents_of(run, read_record(run))]
        if reader.how not in ("trained", "near copy"):
            reader = _standing(reader, parents, tainted, doubtful)
        if reader.how == "cannot say":
            doubtful.add(name)
        elif reader.how != "judged":
            tainted.add(name)
        if reader.how != "judged" or reader.places:
            readers[name] = _with_cost(run, reader)
    absent = [
        ReaderRecord(run=name, how="cannot say", why="the run is not here") for name in ancestry.missing
    ]
    again = [run for run in ancestry.runs if run.path.resolve().name in tainted]
    raw = document.encode()
    return DocumentRecord(
        num_bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        readers=(*reversed(readers.values()), *absent),
        retraining=retraining(again),
        everything=retraining(ancestry.runs),
        library=tuple(_libraries(ancestry.runs, finder.wanted)),
    )


def _standing(
    reader: ReaderRecord, parents: Sequence[str], tainted: set[str], doubtful: set[str]
) -> ReaderRecord:
    """What a run has to do with the document by the models that it stands on."""
    for how, names in (("stands on", tainted), ("cannot say", doubtful)):
        if first := next((parent for parent in parents if parent in names), ""):
            why = f"it stands on {first}" if not reader.why else f"{reader.why}; it stands on {first}"
            return reader.model_copy(update={"how": how, "why": why})
    return reader


def _with_cost(run: Run, reader: ReaderRecord) -> ReaderRecord:
    cost = read_sealed(run.cost_path) if run.cost_path.is_file() else {}
    exports = tuple(str(folder) for folder in sorted(run.exports.glob("*")) if folder.is_dir())
    facts = {"flops": cost.get("flops"), "seconds": cost.get("seconds")}
    return reader.model_copy(update={**facts, "exports": exports if reader.how != "judged" else ()})


def retraining(runs: Sequence[Run]) -> RetrainingRecord:
    """What runs took, added up: what it takes to make them again at the speed that they had."""
    costs = [read_sealed(run.cost_path) if run.cost_path.is_file() else {} for run in runs]
    return RetrainingRecord(
        runs=len(runs),
        flops=sum(cost.get("flops") or 0.0 for cost in costs),
        seconds=sum(cost.get("seconds") or 0.0 for cost in costs),
        complete=all(cost.get("flops") is not None and cost.get("seconds") is not None for cost in costs),
    )


def _libraries(runs: Iterable[Run], document: Wanted) -> Iterable[str]:
    """Prepared collections that passages are looked up in and that hold the document."""
    folders = {
        Path(str(file["name"])).parent.name: run.path.absolute().parent
        for run in runs
        for split in read_record(run).splits.values()
        for file in split.files
    }
    for name, root in folders.items():
        path = PreparedFiles(root / name).train(COLLECTION)
        rows = prepared_rows(path, "text")
        if rows is not None and document.among(rows):
            yield str(path)
