"""Overlap takes the shared sentences out of a document, or a whole labelled row, and is counted."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.data.cutting import cut_overlap, drop_overlap
from adaptkit.data.ngrams import hashed_words
from adaptkit.data.overlap import overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, content_id, read
from adaptkit.data.splitting import split
from adaptkit.data.words import word_starts

WORDS = [f"word{i}" for i in range(3000)]


def sentence(seed: int, size: int = 20) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=size)).capitalize() + "."


def sentences(first: int, count: int) -> list[str]:
    return [sentence(first + i) for i in range(count)]


def dataset(values: list[dict], kind: str = "text", file: str = "train.jsonl") -> Dataset:
    rows = [Row(value, f"{file}:{i + 1}", content_id(value)) for i, value in enumerate(values)]
    return Dataset(rows, kind, {})


def text_set(*texts: str, file: str = "train.jsonl") -> Dataset:
    return dataset([{"text": text} for text in texts], file=file)


def test_only_the_shared_sentences_go_and_no_strangers_meet() -> None:
    own, shared = sentences(0, 10), sentences(100, 2)
    train = text_set(" ".join([*own[:6], *shared, *own[6:]]), " ".join(sentences(50, 5)))
    test = text_set(" ".join(shared), file="test.jsonl")
    cut, removals = cut_overlap(train, {"ticket": test.rows})
    assert [row.text for row in cut.rows] == [" ".join(own[:6]), " ".join(own[6:]), train.rows[1].text]
    assert {row.where for row in cut.rows[:2]} == {"train.jsonl:1"}
    assert cut.rows[0].cluster == cut.rows[1].cluster == train.rows[0].id, (
        "its parts stay on one side of a split"
    )
    removal = removals["ticket"]
    assert removal.num_rows == 1 and removal.report.contaminated == [test.rows[0].id]
    assert removal.num_bytes == train.num_bytes - cut.num_bytes == removal.by_source["train.jsonl"]
    assert abs(removal.num_bytes - len(" ".join(shared))) <= 2


def test_a_run_inside_a_sentence_takes_the_whole_sentence() -> None:
    words = sentence(1, 40).split()
    before, after = sentence(2), sentence(3)
    train = text_set(f"{before} {' '.join(words)} {after}")
    test = text_set(" ".join(words[10:25]))
    cut, _ = cut_overlap(train, {"t": test.rows})
    assert [row.text for row in cut.rows] == [before, after]


def test_a_run_across_two_sentences_takes_both() -> None:
    first, second, after = sentence(1, 30), sentence(2, 30), sentence(3)
    run = [*first[:-1].split()[-3:], *second.split()[:12]]
    cut, _ = cut_overlap(text_set(f"{first} {second} {after}"), {"t": text_set(" ".join(run)).rows})
    assert [row.text for row in cut.rows] == [after]


def test_a_stock_phrase_takes_nothing() -> None:
    phrase = sentence(1, 14)
    train = text_set(" ".join([*sentences(10, 5), phrase]))
    test = text_set(" ".join([*sentences(30, 20), phrase]))
    cut, removals = cut_overlap(train, {"t": test.rows})
    assert cut.rows == train.rows and removals["t"].num_bytes == 0 and removals["t"].report.num_touched == 1


def test_what_is_too_short_to_stay_goes_too() -> None:
    shared = sentences(100, 2)
    train = text_set(
        " ".join([sentence(1), shared[0], "Only five words stand here.", shared[1], sentence(2)])
    )
    cut, removals = cut_overlap(train, {"t": text_set(*shared).rows})
    assert [row.text for row in cut.rows] == [sentence(1), sentence(2)]
    assert removals["t"].num_bytes == train.num_bytes - cut.num_bytes


def test_a_document_that_is_all_test_text_goes() -> None:
    train = text_set(" ".join(sentences(1, 3)), sentence(9), "Yes of course")
    cut, removals = cut_overlap(train, {"t": text_set(" ".join(sentences(1, 3)), "yes, of COURSE!").rows})
    assert [row.text for row in cut.rows] == [sentence(9)] and removals["t"].num_rows == 2


def test_bytes_are_counted_once_over_several_tests_and_by_source() -> None:
    shared = sentences(100, 3)
    values = [
        {"text": " ".join([sentence(1), *shared[:2]]), "source": "statutes"},
        {"text": " ".join([sentence(2), shared[2]]), "source": "rulings"},
        {"text": sentence(3), "source": "rulings"},
    ]
    train = dataset(values)
    tests = {"first": text_set(shared[0]).rows, "second": text_set(*shared).rows}
    cut, removals = cut_overlap(train, tests)
    assert [row.text for row in cut.rows] == [sentence(1), sentence(2), sentence(3)]
    assert removals["first"].num_rows == 1 and removals["second"].num_rows == 2
    assert set(removals["first"].by_source) == {"statutes"}
    assert set(removals["second"].by_source) == {"statutes", "rulings"}
    assert sum(removal.num_bytes for removal in removals.values()) == train.num_bytes - cut.num_bytes
    assert [row.values["source"] for row in cut.rows] == ["statutes", "rulings", "rulings"]


def test_labelled_rows_go_whole_and_are_counted_by_label() -> None:
    shared = sentence(100)
    values = [
        {"text": f"{sentence(1)} {shared}", "label": "a"},
        {"text": sentence(2), "label": "b"},
        {"text": f"{shared} {sentence(3)}", "label": "b"},
    ]
    train = dataset(values, "labelled")
    kept, removals = drop_overlap(train, {"t": text_set(shared).rows})
    assert [row.text for row in kept.rows] == [sentence(2)]
    sizes = {"a": len(train.rows[0].text), "b": len(train.rows[2].text)}
    assert removals["t"].by_label == sizes and removals["t"].num_bytes == sum(sizes.values())
    assert removals["t"].whole_rows and removals["t"].num_rows == 2


PARTS = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(st.lists(PARTS, min_size=1, max_size=8), st.lists(PARTS, min_size=1, max_size=4))
def test_what_is_left_shares_no_tenth_with_any_item(
    documents: list[list[int]], items: list[list[int]]
) -> None:
    """Whatever is copied from where: nothing of a contaminated item is left, and nothing new appears."""
    train = text_set(*(" ".join(sentence(part, 5 + part) for part in parts) for parts in documents))
    test = text_set(*("\n".join(sentence(part, 5 + part) for part in parts) for parts in items))
    cut, removals = cut_overlap(train, {"t": test.rows})
    assert overlap(cut, test).contaminated == []
    assert removals["t"].num_bytes == train.num_bytes - cut.num_bytes
    places = {row.where: row.text for row in train.rows}
    assert all(row.text in places[row.where] for row in cut.rows)


@pytest.mark.parametrize("letter", ["\u0130", "\u00df", "\u03a3", "\u1e9e", "\u0149"])
def test_words_are_found_at_their_place_whatever_lower_case_does(letter: str) -> None:
    text = f"{letter}stanbul {letter} lies {letter}{letter}there, where? Twoseas meet"
    starts = word_starts(text)
    assert len(starts) == len(hashed_words(text)) == 7
    assert all(start == 0 or not text[start - 1].isalnum() for start in starts)
    assert [text[start] for start in starts[-3:]] == ["w", "T", "m"]
    assert np.array_equal(hashed_words("TWOSEAS").hashes, hashed_words(text).hashes[5:6])


@pytest.mark.data
def test_abstracts_in_a_task_cost_a_corpus_of_articles_little(data_root: Path) -> None:
    """The sentences of a labelled task come from abstracts of the very articles that the corpus holds."""
    folder = data_root / "dev_mini" / "biomed"
    train = read(DataConfig(files=[str(folder / "corpus" / "train.jsonl.gz")]), "text")
    config = DataConfig(
        files=[str(folder / "tasks" / "rct_role" / "train.jsonl.gz")], columns={"group": "article"}
    )
    _, test = split(read(config, "labelled"), 0.1, seed=1)
    report = overlap(train, test)
    whole = sum(len(row.text.encode()) for row in train.rows if row.id in set(report.train_ids))
    cut, removals = cut_overlap(train, {"rct_role": test.rows})
    assert report.contaminated and overlap(cut, test).contaminated == []
    assert 0 < removals["rct_role"].num_bytes < 0.2 * whole
