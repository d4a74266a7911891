"""Count what was done to a study's data: what went, what is judged on, how tests differ from training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from adaptkit.data.cutting import Removal
from adaptkit.data.drawing import sources_of
from adaptkit.data.readers import Dataset, Row
from adaptkit.study.data_record import (
    CutRecord,
    PartCutRecord,
    SharesRecord,
    ShiftRecord,
    TestSetRecord,
    TimesRecord,
)
from adaptkit.study.task import CorpusRows

MAX_PARTS = 20
"""Sources or labels that a record names, those that lost most; the others are one."""
OTHERS = "all others"


def cut_record(name: str, train: Dataset, test: str, rows: CorpusRows, removal: Removal) -> CutRecord:
    """What a test set took out of `train`, as it was before anything went."""
    source = sources_of(train.rows)
    by_source, by_label = Counter[str](), Counter[str]()
    for row in train.rows:
        size = len(row.text.encode())
        by_source[source(row)] += size
        by_label.update(dict.fromkeys(row.labels or ("",), size))
    return CutRecord(
        train=name,
        test=test,
        num_items=len(rows.test.rows),
        num_items_contaminated=sum(_contaminated(rows, removal)),
        num_documents_touched=removal.num_rows,
        whole_rows=removal.whole_rows,
        bytes_cut=removal.num_bytes,
        share_cut=removal.num_bytes / train.num_bytes,
        by_source=_parts(removal.by_source, by_source),
        by_label=_parts(removal.by_label, by_label),
        examples=tuple(removal.report.examples),
    )


def _contaminated(rows: CorpusRows, removal: Removal) -> list[bool]:
    """Whether each item is contaminated, or the document that it is a passage of."""
    ids = set(removal.report.contaminated)
    places = {row.where for row in rows.documents if row.id in ids}
    return [row.id in ids or row.where in places for row in rows.test.rows]


def _parts(lost: Mapping[str, int], whole: Mapping[str, int]) -> dict[str, PartCutRecord]:
    names = sorted((name for name in lost if lost[name]), key=lambda name: (-lost[name], name))
    parts = {name: PartCutRecord(num_bytes=lost[name], share=lost[name] / whole[name]) for name in names}
    if len(names) <= MAX_PARTS:
        return parts
    rest = names[MAX_PARTS:]
    num_bytes = sum(lost[name] for name in rest)
    share = num_bytes / sum(whole[name] for name in rest)
    return {
        **{name: parts[name] for name in names[:MAX_PARTS]},
        OTHERS: PartCutRecord(num_bytes=num_bytes, share=share),
    }


def test_set_record(rows: CorpusRows, clusters: Mapping[str, str]) -> TestSetRecord:
    """The items of a test, given what each belongs to."""
    sizes = Counter(clusters.values())
    return TestSetRecord(
        num_rows=rows.num_test_rows,
        num_duplicates=rows.num_test_duplicates,
        num_items=len(clusters),
        num_clusters=len(sizes),
        drawn=rows.drawn,
        clusters={item: _opaque(name) for item, name in clusters.items() if sizes[name] > 1},
    )


def _opaque(name: str) -> str:
    """A cluster's id, which does not tell the group's name: that may be a customer's."""
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def shift_record(rows: CorpusRows, *, same_files: bool) -> ShiftRecord | None:
    """How the test items differ from the training rows; None where nothing can be compared.

    Args:
        same_files: both come from the same files, which then stand for sources that are not named.
    """
    train, test = rows.train.rows, rows.test.rows
    named = all(any("source" in row.values for row in part) for part in (train, test))
    sources = _source_shares(train, test) if named or same_files else {}
    times = _times(train, test)
    if len(sources) < 2 and times is None:
        return None
    distance = sum(abs(shares.train - shares.test) for shares in sources.values()) / 2
    return ShiftRecord(sources=sources, source_shift=distance, times=times)


def _source_shares(train: Sequence[Row], test: Sequence[Row]) -> dict[str, SharesRecord]:
    source = sources_of([*train, *test])
    learnt, tested = Counter(map(source, train)), Counter(map(source, test))
    names = sorted(learnt.keys() | tested.keys(), key=lambda name: (-learnt[name] - tested[name], name))
    shares = {
        name: SharesRecord(train=learnt[name] / len(train), test=tested[name] / len(test)) for name in names
    }
    rest = [shares.pop(name) for name in names[MAX_PARTS:]]
    if rest:
        shares[OTHERS] = SharesRecord(train=sum(of.train for of in rest), test=sum(of.test for of in rest))
    return shares


def _times(train: Sequence[Row], test: Sequence[Row]) -> TimesRecord | None:
    learnt = [row.values["time"] for row in train if "time" in row.values]
    tested = [row.values["time"] for row in test if "time" in row.values]
    if not learnt or not tested or type(learnt[0]) is not type(tested[0]):
        return None
    newest = max(learnt)
    return TimesRecord(
        train_from=min(learnt),
        train_to=newest,
        test_from=min(tested),
        test_to=max(tested),
        test_share_newer=sum(time > newest for time in tested) / len(tested),
    )
