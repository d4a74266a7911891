"""Draw what is judged on: by content hash over a whole split, each part of it with its proportional share.

    rows = draw(test.rows, 2000)              # labels, sources and groups keep their shares
    passages = draw_passages(documents, 400)  # one of every document before any gives a second

Nothing depends on the order of files or rows: the same content gives the same items.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from adaptkit.data.readers import Dataset, Row, content_id, distinct_ids

PASSAGE_BYTES = 1024
MIN_LAST_BYTES = 256
"""What is left of a document behind its last whole passage is a passage from this size on."""
MAX_SOURCES = 50
"""A `source` column with more values names documents, not sources; the files stand for it then."""
_WORD_END = re.compile(rb"\s\S{0,63}\Z")
_LINE_OR_WORD = re.compile(rb"\n+|\s+")


def draw(rows: Sequence[Row], size: int) -> list[Row]:
    """At most `size` rows, in the order of their hash; 0 takes all.

    Labels, then sources, then groups keep their share of the rows, rounded up or down; where there is room
    each has at least one.
    """
    if not size or size >= len(rows):
        return sorted(rows, key=draw_order)
    source = sources_of(rows)
    levels: list[Callable[[Row], str]] = [
        lambda row: " + ".join(row.labels),
        source,
        lambda row: str(row.values.get("group", "")),
    ]
    return sorted(_drawn(rows, size, levels), key=draw_order)


def draw_from(dataset: Dataset, size: int) -> Dataset:
    """At most `size` rows of a data set, as `draw` takes them; the data set as it is where it has no more."""
    if len(dataset.rows) <= size:
        return dataset
    return dataset.with_rows(draw(dataset.rows, size))


def draw_labels(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """A share of the labelled rows, in their order: whole groups as they come by hash, the last one cut.

    The rows of a smaller share are among those of every larger one of the same seed. One row of each label
    comes before all others, as a model cannot answer with a label that it has never seen.
    """
    order = {name: draw_hash(f"{seed} {name}") for name in {row.cluster for row in rows}}
    drawn = sorted(rows, key=lambda row: (order[row.cluster], row.id))
    seen: set[str] = set()
    first: list[Row] = []
    for row in drawn:
        if not seen.issuperset(row.labels):
            first.append(row)
            seen.update(row.labels)
    early = {id(row) for row in first}
    drawn = [*first, *(row for row in drawn if id(row) not in early)]
    chosen = {id(row) for row in drawn[: max(len(first), round(share * len(rows)))]}
    return [row for row in rows if id(row) in chosen]


def _drawn(rows: Sequence[Row], size: int, levels: Sequence[Callable[[Row], str]]) -> list[Row]:
    if size >= len(rows):
        return list(rows)
    if not levels:
        return sorted(rows, key=draw_order)[:size]
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        strata[levels[0](row)].append(row)
    sizes = shares_of({name: len(part) for name, part in strata.items()}, size)
    return [row for name, part in strata.items() for row in _drawn(part, sizes[name], levels[1:])]


def shares_of(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """Divide `size` draws over strata of these sizes in proportion, rounded up or down by systematic sampling
    in the order of the names' hash.

    Strata that would get none get one where there is room, taken from those that got most beyond their share.
    """
    total = sum(counts.values())
    quota = {name: size * count / total for name, count in counts.items()}
    taken: dict[str, int] = {}
    position = 0.5
    for name in sorted(counts, key=draw_hash):
        end = position + quota[name]
        taken[name] = math.floor(end + 1e-9) - math.floor(position + 1e-9)
        position = end
    if len(counts) <= size:
        for name in sorted((name for name in counts if not taken[name]), key=draw_hash):
            giver = max(
                (n for n in counts if taken[n] > 1), key=lambda n: (taken[n] - quota[n], draw_hash(n))
            )
            taken[giver] -= 1
            taken[name] = 1
    return taken


def draw_passages(documents: Dataset, size: int) -> Dataset:
    """At most `size` passages of the documents, which do not overlap; 0 takes all there are.

    Every document gives one before any gives a second; in a round that not all can take part in, sources and
    groups keep their shares. The passages of a document form a group, unless it has a group of its own.
    """
    waiting = {row.id: passages(row.text) for row in documents.rows}
    seen: set[str] = set()
    taken: list[Row] = []
    eligible = list(documents.rows)
    while eligible and (not size or len(taken) < size):
        for row in draw(eligible, size - len(taken) if size else 0):
            text = next((text for text in _emptied(waiting[row.id]) if text not in seen), None)
            if text is not None:
                seen.add(text)
                taken.append(_passage(row, text))
        eligible = [row for row in eligible if waiting[row.id]]
    return documents.with_rows(taken)


def _emptied(texts: list[str]) -> Iterable[str]:
    while texts:
        yield texts.pop()


def _passage(row: Row, text: str) -> Row:
    values = {**row.values, "text": text, "group": row.cluster}
    return Row(values, row.where, content_id(values))


def passages(text: str) -> list[str]:
    """A document in passages of at most PASSAGE_BYTES bytes, in the order of their hash.

    They begin where a line begins, or a word where a line is too long, and end where a word ends.
    """
    raw = text.encode()
    parts: list[str] = []
    start = 0
    while start < len(raw):
        piece = raw[start : start + PASSAGE_BYTES]
        if start + PASSAGE_BYTES < len(raw):
            cut = _WORD_END.search(piece)
            piece = piece[: cut.start()] if cut and cut.start() else piece
        words = piece.decode(errors="ignore")
        if words.strip() and (not parts or len(words.encode()) >= MIN_LAST_BYTES):
            parts.append(words)
        start = _next_start(raw, start + len(words.encode()))
    return sorted(parts, key=draw_hash)


def _next_start(raw: bytes, end: int) -> int:
    """Where the next line begins, if that is near; else the next word; else the very next byte."""
    near = raw[end : end + PASSAGE_BYTES // 2]
    if (line := near.find(b"\n")) >= 0:
        return end + line + 1
    blank = _LINE_OR_WORD.search(near)
    return end + blank.end() if blank else max(end, 1)


def sources_of(rows: Iterable[Row]) -> Callable[[Row], str]:
    """What names the source of a row: its `source` where that has few values, else its file."""
    named = {str(row.values["source"]) for row in rows if "source" in row.values}
    if 0 < len(named) <= MAX_SOURCES:
        return lambda row: str(row.values.get("source", "not stated"))
    return lambda row: row.file


def draw_hash(text: str) -> str:
    """What anything is sorted by to be drawn: it depends on the text alone."""
    return hashlib.sha256(f"draw {text}".encode()).hexdigest()


def draw_order(row: Row) -> str:
    """What rows are sorted by to be drawn."""
    return draw_hash(row.id)


def with_document_groups(dataset: Dataset, pieces: Mapping[str, Sequence[str]]) -> Dataset:
    """The documents, those named in `pieces` (by id) replaced by these texts; pieces of one stay together."""
    rows: list[Row] = []
    for row in dataset.rows:
        if row.id not in pieces:
            rows.append(row)
            continue
        for text in pieces[row.id]:
            values = {**row.values, "text": text, "group": row.cluster}
            rows.append(dataclasses.replace(row, values=values, id=content_id(values)))
    return dataset.with_rows(distinct_ids(rows))
