"""Parts to learn from and parts held out: by hash or time, whole groups, all labels in training."""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_rows import dataset, labelled, shuffled, texts

from adaptkit.data.dedup import deduplicate
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.splitting import FEW_ROWS, hold_out, newest, split
from adaptkit.errors import DataError


def test_rows_to_tune_on_are_whole_groups_and_at_most_so_many() -> None:
    values = [{"text": f"{i}", "label": "xy"[i % 2], "group": f"g{i % 50}"} for i in range(400)]
    rest, held = hold_out(dataset(values), 40, most=0.2)
    assert len(held.rows) == 40 and len(rest.rows) >= 340
    assert not {row.cluster for row in rest.rows} & {row.cluster for row in held.rows}
    again = hold_out(shuffled(dataset(values)), 40, most=0.2)[1]
    assert sorted(texts(again.rows)) == sorted(texts(held.rows))


@pytest.mark.parametrize(("size", "expected"), [(30, 30), (300, 20), (0, 20)])
def test_rows_to_tune_on_are_at_most_a_share(size: int, expected: int) -> None:
    data = labelled(a=150, b=50) if expected == 30 else labelled(a=75, b=25)
    rest, held = hold_out(data, size, most=0.2)
    assert len(held.rows) == expected and len(rest.rows) + len(held.rows) == len(data.rows)
    assert abs(Counter(row.values["label"] for row in held.rows)["b"] - expected / 4) <= 1


def test_one_group_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="8 rows in 1 groups leave none to tune on"):
        hold_out(dataset([{"text": f"{i}", "group": "g"} for i in range(8)]), 3, most=0.2)


def test_the_newest_tenth_is_newer_than_all_others() -> None:
    values = [{"text": f"{i}", "time": float(2000 + i * 37 % 100)} for i in range(100)]
    older, held = newest(dataset(values), 0.1)
    assert sorted(row.values["time"] for row in held.rows) == [float(year) for year in range(2090, 2100)]
    assert max(row.values["time"] for row in older.rows) == 2089


def test_a_group_is_as_new_as_its_newest_row() -> None:
    values = [
        {"text": f"{i}", "time": f"20{i:02}-01-01T00:00:00", "group": f"g{min(i, 79 - i)}"} for i in range(80)
    ]
    older, held = newest(dataset(values), 0.1)
    assert {row.cluster for row in held.rows} == {"g0", "g1", "g2", "g3"} and len(held.rows) == 8
    assert not {row.cluster for row in older.rows} & {row.cluster for row in held.rows}


def test_rows_of_one_moment_are_divided_by_hash() -> None:
    values = [{"text": f"{i}", "time": 2024.0} for i in range(50)]
    older, held = newest(dataset(values), 0.1)
    assert len(held.rows) == 5 and len(older.rows) == 45
    assert sorted(texts(newest(shuffled(dataset(values)), 0.1)[1].rows)) == sorted(texts(held.rows))


def test_a_row_without_a_time_is_named() -> None:
    rows = dataset([{"text": "a", "time": 1.0}, {"text": "b"}])
    with pytest.raises(DataError, match="needs a time in every row") as caught:
        newest(rows, 0.1)
    assert caught.value.where == "x.jsonl:2"
    with pytest.raises(DataError, match="nothing older"):
        newest(dataset([{"text": "a", "time": 1.0}]), 0.1)


def test_split_holds_out_the_share_that_was_asked_for() -> None:
    data = dataset([{"text": f"text {i}"} for i in range(2000)])
    rest, held = split(data, 0.3)
    assert 560 <= len(held.rows) <= 640 and len(rest.rows) + len(held.rows) == 2000
    assert not {row.id for row in rest.rows} & {row.id for row in held.rows}
    twice = dataset([{"text": f"text {i % 50}", "label": "ab"[i // 50]} for i in range(100)])
    rest, held = split(twice, 0.3)
    assert not {row.text for row in rest.rows} & {row.text for row in held.rows}
    for fraction in (0.0, 1.0):
        with pytest.raises(DataError, match="2000 rows cannot be split"):
            split(data, fraction)


label_counts = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 60), min_size=1, max_size=8)


@settings(deadline=None)
@given(label_counts, st.integers(0, 5), st.sampled_from([0.05, 0.1, 0.3]), st.booleans())
def test_no_label_is_missing_in_training(
    counts: dict[str, int], seed: int, fraction: float, grouped: bool
) -> None:
    rng = random.Random(seed)
    values = [{"text": f"{label} {i}", "label": label} for label, n in counts.items() for i in range(n)]
    if grouped:
        values = [{**value, "group": f"g{rng.randrange(12)}"} for value in values]
    data = dataset(values)
    for divide in (lambda: split(data, fraction, seed), lambda: hold_out(data, 0, fraction)):
        try:
            rest, held = divide()
        except DataError:
            continue
        assert set(rest.labels) == set(data.labels) and set(held.labels) <= set(rest.labels)
        assert held.rows and rest.rows
        assert not {row.cluster for row in rest.rows} & {row.cluster for row in held.rows}


def test_labels_keep_their_shares_and_few_rows_stay() -> None:
    data = labelled(a=1000, b=300, c=50, d=FEW_ROWS - 1, e=1)
    rest, held = split(data, 0.1)
    counts = Counter(row.values["label"] for row in held.rows)
    assert counts["a"] == 100 and counts["b"] == 30 and counts["c"] == 5 and counts["d"] == counts["e"] == 0
    again = split(shuffled(data), 0.1)[1]
    assert {row.id for row in again.rows} == {row.id for row in held.rows}
    assert {row.id for row in split(data, 0.1, seed=1)[1].rows} != {row.id for row in held.rows}
    _, tuned = hold_out(data, 100, most=0.2)
    assert set(tuned.labels) == {"a", "b", "c"}


def test_many_small_labels_still_give_a_part_to_hold_out() -> None:
    data = labelled(**{f"label{i}": 4 for i in range(50)})
    rest, held = split(data, 0.1)
    assert 15 <= len(held.rows) <= 25 and set(rest.labels) == set(data.labels)


def test_labels_of_one_row_each_cannot_be_split() -> None:
    with pytest.raises(DataError, match="cannot be split"):
        split(labelled(a=1, b=1, c=1), 0.3)


def test_a_group_far_larger_than_the_share_stays_in_training() -> None:
    values = [{"text": f"{i}", "group": "large" if i < 500 else f"g{i}"} for i in range(1000)]
    for seed in range(8):
        rest, held = split(dataset(values, "text"), 0.1, seed)
        assert "large" in {row.values["group"] for row in rest.rows} and len(held.rows) < 150


def test_a_few_groups_are_split_where_one_fits() -> None:
    values = [{"text": f"{i}", "label": "ab"[i % 3 == 0], "group": f"g{i % 6}"} for i in range(120)]
    rest, held = split(dataset(values), 0.1)
    assert len(held.rows) == 20 and len({row.values["group"] for row in held.rows}) == 1


@pytest.mark.parametrize("seed", range(12))
def test_a_group_that_would_be_most_of_the_held_out_part_is_learnt_from(seed: int) -> None:
    small = [{"text": f"{i}", "group": f"g{i}"} for i in range(40)]
    large = [{"text": f"long {i}", "group": "large"} for i in range(60)]
    rest, held = split(dataset(small + large, "text"), 0.1, seed=seed)
    assert held.rows and not any(row.cluster == "large" for row in held.rows)
    assert sum(row.cluster == "large" for row in rest.rows) == 60


@pytest.mark.parametrize("between", ["\n\n", "\n", "\n   \n\n"])
def test_one_long_text_is_divided_into_its_passages(between: str) -> None:
    """A book in one file, hard-wrapped or in paragraphs, can be held out from as any corpus can."""
    lines = [f"line {number} of a book that one file holds" for number in range(500)]
    book = dataclasses.replace(dataset([{"text": between.join(lines)}]), kind="text")
    train, held = split(book, 0.1, seed=1)
    assert 3 < len(held.rows) < 25 and len(train.rows) + len(held.rows) > 80
    parts = [row.text.split("\n") for row in [*train.rows, *held.rows]]
    assert sorted(line for part in parts for line in part if line.strip()) == sorted(lines), "nothing is lost"
    assert len({row.id for row in [*train.rows, *held.rows]}) == len(parts)
    rest, tuning = hold_out(book, 10, 0.2)
    assert 0 < len(tuning.rows) <= 10 < len(rest.rows)


def test_one_short_text_or_one_row_of_another_kind_stays_whole() -> None:
    with pytest.raises(DataError, match="1 rows cannot be split"):
        split(dataclasses.replace(dataset([{"text": "a single line"}]), kind="text"), 0.1)
    with pytest.raises(DataError, match="1 rows cannot be split"):
        split(dataset([{"text": "a\n\nb\n\nc\n\nd\n\ne", "label": "x"}]), 0.1)


WAYS = {
    "hash": lambda data: split(data, 0.1, seed=1),
    "to tune on": lambda data: hold_out(data, 20, most=0.2),
    "time": lambda data: newest(data, 0.1),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_generator_wrote_is_never_held_out_and_changes_nothing(way: str) -> None:
    real = [{"text": f"{i}", "label": "xy"[i % 2], "group": f"g{i % 50}", "time": i} for i in range(200)]
    rest, held = WAYS[way](dataset(real))
    written = [
        {"text": f"w{i}", "label": "xy"[i % 2], "group": f"g{i}", "source": "synthetic"} for i in range(60)
    ]
    with_rest, with_held = WAYS[way](dataset([*written, *real]))
    assert sorted(texts(with_held.rows)) == sorted(texts(held.rows))
    assert {row.id for row in with_rest.rows} >= {row.id for row in rest.rows}
    groups = {row.cluster for row in held.rows}
    beside = {text for text in texts(with_rest.rows) if text.startswith("w")}
    assert beside == {row["text"] for row in written if row["group"] not in groups} and len(beside) < 60
    with pytest.raises(DataError, match="all 60 rows are synthetic"):
        WAYS[way](dataset(written))


def test_that_a_row_is_synthetic_is_seen_where_the_first_rows_name_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"row {i},{'xy'[i % 2]}\n" for i in range(150)))
    written = {"text": "more", "label": "x", "group": "d1", "source": "synthetic"}
    (tmp_path / "b.jsonl").write_text(json.dumps(written))
    rows = read(DataConfig(files=[str(tmp_path / name) for name in ("a.csv", "b.jsonl")]), "labelled").rows
    facts = [(row.values.get("source"), row.values.get("group")) for row in rows]
    assert facts == [(None, None)] * 150 + [("synthetic", "d1")]


def test_a_real_row_stays_before_a_synthetic_copy() -> None:
    values = [{"text": f"the same text of {i} words and more", "label": "x"} for i in range(20)]
    copies = [{**row, "text": row["text"] + " ", "source": "synthetic"} for row in values]
    kept, _ = deduplicate(dataset([*copies, *values]))
    assert all("source" not in row.values for row in kept.rows) and kept.rows
