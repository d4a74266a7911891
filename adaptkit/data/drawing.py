"""Draw what is judged on: by content hash over a whole split, each part of it with its proportional share.

    rows = draw(test.rows, 2000)              # labels, sources and groups keep their shares
    passages = draw_passages(documents, 400)  # one of every document before any gives a second
    train, dev = hold_out(train, 300, most=0.2)

Nothing depends on the order of files or rows: the same content gives the same items.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from adaptkit.data.readers import Dataset, Row, content_id, distinct_ids
from adaptkit.errors import DataError

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
        return sorted(rows, key=_order)
    source = sources_of(rows)
    levels: list[Callable[[Row], str]] = [
        lambda row: str(row.values.get("label", "")),
        source,
        lambda row: str(row.values.get("group", "")),
    ]
    return sorted(_drawn(rows, size, levels), key=_order)


def _drawn(rows: Sequence[Row], size: int, levels: Sequence[Callable[[Row], str]]) -> list[Row]:
    if size >= len(rows):
        return list(rows)
    if not levels:
        return sorted(rows, key=_order)[:size]
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
    for name in sorted(counts, key=_hash):
        end = position + quota[name]
        taken[name] = math.floor(end + 1e-9) - math.floor(position + 1e-9)
        position = end
    if len(counts) <= size:
        for name in sorted((name for name in counts if not taken[name]), key=_hash):
            giver = max((n for n in counts if taken[n] > 1), key=lambda n: (taken[n] - quota[n], _hash(n)))
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
    return sorted(parts, key=_hash)


def _next_start(raw: bytes, end: int) -> int:
    """Where the next line begins, if that is near; else the next word; else the very next byte."""
    near = raw[end : end + PASSAGE_BYTES // 2]
    if (line := near.find(b"\n")) >= 0:
        return end + line + 1
    blank = _LINE_OR_WORD.search(near)
    return end + blank.end() if blank else max(end, 1)


def hold_out(dataset: Dataset, size: int, most: float) -> tuple[Dataset, Dataset]:
    """(the rest, about `size` rows to tune on, at most the share `most`): whole groups, drawn by hash.

    Labels and sources keep their shares. Rows of a drawn group beyond `size` are in neither part; size 0
    takes the whole share.
    Raises: DataError where a side would be empty.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in dataset.rows:
        groups[row.cluster].append(row)
    if len(groups) < 2:
        what = f"{len(dataset.rows)} rows in {len(groups)} groups leave none to tune on"
        where = dataset.rows[0].where if dataset.rows else None
        raise DataError(what, where=where, fix="give more rows, or more than one group")
    limit = max(1, math.floor(most * len(dataset.rows)))
    wanted = min(size, limit) if size else limit
    num_groups = min(len(groups) - 1, math.ceil(wanted * len(groups) / len(dataset.rows)))
    # one row stands for its group
    firsts = [min(rows, key=_order) for rows in groups.values()]
    chosen = {row.cluster for row in draw(firsts, num_groups)}
    rest = [row for row in dataset.rows if row.cluster not in chosen]
    held = [row for row in dataset.rows if row.cluster in chosen]
    return dataset.with_rows(rest), dataset.with_rows(draw(held, wanted))


def newest(dataset: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """(older rows, the newest share of them): whole groups, each as new as its newest row.

    Raises: DataError for a row without a time, and where a side would be empty.
    """
    for row in dataset.rows:
        if "time" not in row.values:
            fix = "set columns: {time: <column>} to a column of ISO dates or numbers, or split: hash"
            raise DataError("split: time needs a time in every row", where=row.where, fix=fix)
    age: dict[str, tuple[str | float, str]] = {}
    for row in dataset.rows:
        moment = (row.values["time"], _hash(row.cluster))
        age[row.cluster] = max(age.get(row.cluster, moment), moment)
    sizes = Counter(row.cluster for row in dataset.rows)
    chosen: set[str] = set()
    num_rows = 0
    for name in sorted(age, key=age.__getitem__, reverse=True):
        if num_rows >= round(share * len(dataset.rows)) and chosen:
            break
        chosen.add(name)
        num_rows += sizes[name]
    if len(chosen) == len(age):
        fix = "give more rows, or rows of more groups"
        raise DataError("nothing older than the test is left", where=dataset.rows[0].where, fix=fix)
    older = dataset.with_rows(row for row in dataset.rows if row.cluster not in chosen)
    return older, dataset.with_rows(row for row in dataset.rows if row.cluster in chosen)


def sources_of(rows: Iterable[Row]) -> Callable[[Row], str]:
    """What names the source of a row: its `source` where that has few values, else its file."""
    named = {str(row.values["source"]) for row in rows if "source" in row.values}
    if 0 < len(named) <= MAX_SOURCES:
        return lambda row: str(row.values.get("source", "not stated"))
    return lambda row: row.file


def _hash(text: str) -> str:
    return hashlib.sha256(f"draw {text}".encode()).hexdigest()


def _order(row: Row) -> str:
    return _hash(row.id)


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
