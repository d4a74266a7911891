"""What is judged on: drawn by hash over a whole split, in proportion, whatever the order of rows."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_rows import dataset, labelled, shuffled, texts

from adaptkit.data.drawing import (
    MAX_SOURCES,
    MIN_LAST_BYTES,
    PASSAGE_BYTES,
    draw,
    draw_passages,
    passages,
    shares_of,
    sources_of,
)
from adaptkit.data.readers import Row

TEXT = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=300), min_size=1, max_size=40)


def test_the_same_rows_are_drawn_whatever_their_order() -> None:
    data = labelled(a=300, b=100)
    drawn = texts(draw(data.rows, 40))
    assert drawn == texts(draw(shuffled(data).rows, 40)) and len(set(drawn)) == 40
    assert drawn != sorted(drawn), "in the order of their hash, so that a first part of them is a sample too"
    assert {int(text.split()[1]) for text in drawn} - set(range(40)), "not the first rows"


@pytest.mark.parametrize("column", ["label", "source", "group"])
def test_each_stratum_has_its_share_and_at_least_one(column: str) -> None:
    counts = {"a": 600, "b": 300, "c": 97, "d": 3}
    rows = [{"text": f"{n} {i}", column: n} for n, count in counts.items() for i in range(count)]
    drawn = Counter(row.values[column] for row in draw(dataset(rows).rows, 100))
    assert sum(drawn.values()) == 100 and drawn["d"] == 1
    for name, count in counts.items():
        assert abs(drawn[name] - count / 10) <= 1


def test_files_are_sources_where_no_source_is_named() -> None:
    rows = [
        Row({"text": f"{i}"}, f"{'large' if i < 900 else 'small'}.jsonl:{i}", f"{i:016x}")
        for i in range(1000)
    ]
    drawn = Counter(row.file for row in draw(rows, 20))
    assert drawn == {"large.jsonl": 18, "small.jsonl": 2}


def test_a_source_column_with_many_values_names_documents_and_not_sources() -> None:
    few = [Row({"text": "t", "source": f"s{i % MAX_SOURCES}"}, f"x.jsonl:{i}", "") for i in range(200)]
    many = [Row({"text": "t", "source": f"s{i}"}, f"x.jsonl:{i}", "") for i in range(MAX_SOURCES + 1)]
    assert len({sources_of(few)(row) for row in few}) == MAX_SOURCES
    assert {sources_of(many)(row) for row in many} == {"x.jsonl"}


def test_all_rows_are_taken_where_there_are_no_more() -> None:
    data = labelled(a=5, b=5)
    for size in (0, 10, 11):
        assert sorted(texts(draw(data.rows, size))) == sorted(texts(data.rows))


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 500), min_size=1, max_size=60), st.data())
def test_shares_are_proportional(counts: dict[str, int], data: st.DataObject) -> None:
    total = sum(counts.values())
    size = data.draw(st.integers(1, total))
    taken = shares_of(counts, size)
    assert sum(taken.values()) == size and all(0 <= taken[name] <= counts[name] for name in counts)
    if size >= len(counts):
        assert min(taken.values()) >= 1
    else:
        assert all(abs(taken[name] - size * count / total) < 1 for name, count in counts.items())


def test_small_groups_are_not_passed_over_for_large_ones() -> None:
    """Where there is no room for all: every group has a chance in proportion to its size."""
    counts = {f"group {i}": 1 + 4 * (i % 2) for i in range(400)}
    taken = shares_of(counts, 100)
    small = sum(count for name, count in taken.items() if counts[name] == 1)
    assert sum(taken.values()) == 100 and 8 <= small <= 26  # expected: 100 / 6


@given(TEXT)
def test_passages_are_whole_pieces_of_their_document_and_do_not_overlap(paragraphs: list[str]) -> None:
    text = "\n".join(paragraphs)
    parts = passages(text)
    assert parts or not text.strip()
    assert all(0 < len(part.encode()) <= PASSAGE_BYTES and part.strip() for part in parts)
    at = 0
    for part in sorted(parts, key=text.find) if len(set(parts)) == len(parts) else []:
        assert part in text[at:] or text.count(part) > 1
        at = max(at, text.find(part))
    assert sum(map(len, parts)) <= len(text)


def document(number: int, lines: int) -> str:
    return "\n".join(f"document {number}, line {line} of a report" for line in range(lines))


def test_passages_begin_with_a_line_and_end_with_a_word() -> None:
    text = document(1, 300)
    parts = passages(text)
    assert len(parts) >= 7 and len(set(parts)) == len(parts)
    for part in parts:
        assert text.startswith(part) or f"\n{part}" in text
        assert text.endswith(part) or text[text.index(part) + len(part)].isspace()
    spans = sorted((text.index(part), text.index(part) + len(part)) for part in parts)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    assert sum(map(len, parts)) > 0.9 * len(text)


def test_a_short_rest_is_no_passage_but_a_short_document_is() -> None:
    line = "a" * 99 + "\n"
    assert passages("short") == ["short"]
    whole = passages(line * 10 + "b" * (MIN_LAST_BYTES - 30))
    assert [len(part) > 900 for part in whole] == [True]
    assert len(passages(line * 10 + " " + "b" * 1200)) >= 2


def test_a_long_document_is_not_always_read_from_its_beginning() -> None:
    documents = dataset([{"text": document(i, 300)} for i in range(20)], "text")
    drawn = draw_passages(documents, 20)
    places = {row.where: row.text for row in documents.rows}
    starts = [places[row.where].index(row.text) / len(places[row.where]) for row in drawn.rows]
    assert max(starts) > 0.5 and len(set(starts)) > 5


def test_every_document_gives_one_passage_before_any_gives_a_second() -> None:
    documents = dataset([{"text": document(i, 300)} for i in range(10)] + [{"text": "short"}], "text")
    once = Counter(row.where for row in draw_passages(documents, 11).rows)
    assert set(once.values()) == {1} and len(once) == 11
    more = Counter(row.where for row in draw_passages(documents, 36).rows)
    assert sum(more.values()) == 36 and sorted(more.values()) == [1] + [3] * 5 + [4] * 5
    everything = draw_passages(documents, 0)
    assert len(everything.rows) == sum(len(passages(row.text)) for row in documents.rows)
    assert len({row.id for row in everything.rows}) == len(everything.rows)


def test_passages_of_a_document_belong_together() -> None:
    values = [{"text": document(i, 100)} for i in range(4)] + [{"text": document(9, 100), "group": "g"}]
    documents = dataset(values, "text")
    drawn = draw_passages(documents, 10).rows
    clusters = {row.where: row.cluster for row in drawn}
    assert len(clusters) == len(set(clusters.values())) == 5 and clusters["x.jsonl:5"] == "g"
    assert all(row.cluster == clusters[row.where] for row in drawn)


def test_passages_do_not_depend_on_the_order_of_documents_and_none_comes_twice() -> None:
    values = [{"text": document(i % 30, 60), "source": "ab"[i % 30 < 3]} for i in range(40)]
    documents = dataset(values, "text")
    drawn = texts(draw_passages(documents, 25).rows)
    assert sorted(drawn) == sorted(texts(draw_passages(shuffled(documents), 25).rows))
    assert len(set(drawn)) == len(drawn)
    sources = Counter(row.values["source"] for row in draw_passages(documents, 10).rows)
    assert sources["b"] in (1, 2)
