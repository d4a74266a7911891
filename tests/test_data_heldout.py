"""Rows that a run keeps: which ones, and that they come back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.data import DataConfig, read, train_tokenizer
from adaptkit.data.drawing import draw
from adaptkit.data.heldout import (
    CALIBRATION_ROWS,
    CALIBRATION_TOKENS,
    MAX_ANSWERS,
    MAX_ITEMS,
    MAX_PASSAGE_CHARS,
    MAX_PASSAGES,
    Calibration,
    HeldOut,
    calibration_rows,
    held_out,
    held_out_texts,
    read_calibration,
    read_held_out,
    split_record,
    write_calibration,
    write_held_out,
)
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError
from adaptkit.run import Run, digest


def _labelled(name: str, count: int, kind: str = "labelled") -> Dataset:
    rows = [
        Row(
            {"text": f"{name} {i} " + "x" * 3000, "label": "ab"[i % 2]}, f"{name}.jsonl:{i + 1}", f"{name}{i}"
        )
        for i in range(count)
    ]
    return Dataset(rows, kind, {"text": "body", "label": "mood"})


def test_passages_are_of_dev_and_items_of_test_as_an_export_takes_them() -> None:
    dev, test = _labelled("dev", 70), _labelled("test", 250)
    held = held_out({"train": _labelled("train", 3), "dev": dev, "test": test}, with_items=True)
    assert held.passages == [(row.id, row.text[:1024]) for row in draw(dev.rows, 60)]
    assert (MAX_PASSAGES, MAX_PASSAGE_CHARS) == (60, 1024) and held.digest == dev.digest
    assert held.items is not None and held.items_split == "test" and held.items.rows == draw(test.rows, 200)
    without_test = held_out({"dev": dev}, with_items=True)
    assert without_test.items is not None
    assert without_test.items_split == "dev" and without_test.items.rows == dev.rows
    assert held_out({"dev": dev}, with_items=False).items is None


@pytest.mark.parametrize(
    ("kind", "most"), [("sft", 32), ("messages", 32), ("prompts", 32), ("labelled", 200), ("text", 200)]
)
def test_fewer_items_where_answers_must_be_written(kind: str, most: int) -> None:
    held = held_out({"dev": _labelled("dev", 300, kind)}, with_items=True)
    assert held.items is not None and len(held.items.rows) == most
    assert most in (MAX_ITEMS, MAX_ANSWERS)


def test_texts_without_rows_count_once_and_are_numbered() -> None:
    held = held_out_texts(["a" * 2000, "b", "a" * 1500, *map(str, range(100))])
    texts = {text for _, text in held.passages}
    assert len(texts) == len(held.passages) == 60 and texts <= {"a" * 1024, "b", *map(str, range(100))}
    assert len(texts & set(map(str, range(55, 100)))) > 10 and held.passages[0][0] == "held-out-0"
    assert held_out_texts(["b", "a"]).passages == [("held-out-0", "b"), ("held-out-1", "a")]
    assert held.digest == digest([text for _, text in held.passages])


values = st.dictionaries(
    st.sampled_from(["text", "label", "prompt", "completion", "group"]),
    st.text(st.characters(exclude_characters="\0")),
    min_size=1,
)


@given(st.lists(values, max_size=5))
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, found: list[dict]) -> None:
    run = Run(tmp_path_factory.mktemp("run"))
    rows = [Row(value, f"x.jsonl:{i}", f"id-{i}") for i, value in enumerate(found)]
    rows.append(Row({"messages": [{"role": "user", "content": "\u2028\x85\n"}], "score": 0.1}, "y:1", "z"))
    items = Dataset(rows, "labelled", {"text": "body"})
    held = HeldOut([("1", "one\ntwo\u2028three")], "d" * 64, items, "test")
    write_held_out(run, held)
    assert read_held_out(run) == held
    calibration = Calibration(items, "e" * 64)
    write_calibration(run, calibration)
    assert read_calibration(run) == calibration


def test_a_run_that_kept_nothing_says_none_and_an_older_file_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert read_held_out(run) is None and read_calibration(run) is None
    run.heldout_path.write_text('{"passage": {"id": "1", "text": "one"}}\n')
    run.calibration_path.write_text('{"format": 1}\n')
    for reader in (read_held_out, read_calibration):
        with pytest.raises(DataError, match="older release"):
            reader(run)


def test_calibration_rows_are_drawn_by_hash_and_as_many_as_are_read(tiny_text: list[str]) -> None:
    tokenizer = train_tokenizer(tiny_text, "bpe", 300)
    rows = [Row({"text": text}, f"x:{i}", f"{i:04d}") for i, text in enumerate(tiny_text * 20)]
    train = Dataset(rows, "text", {"text": "text"})
    kept = calibration_rows(train, tokenizer)
    sizes = [len(tokenizer(row.text, add_special_tokens=False)["input_ids"]) for row in kept.rows.rows]
    wanted = CALIBRATION_ROWS * CALIBRATION_TOKENS
    assert kept.digest == train.digest and kept.rows.rows == draw(rows, 0)[: len(sizes)]
    assert sum(sizes) >= wanted > sum(sizes[:-1])
    few = train.with_rows(rows[:3])
    assert calibration_rows(few, tokenizer) == Calibration(few.with_rows(draw(rows[:3], 0)), few.digest)


def test_a_split_record_says_what_was_read(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    lines = [{"text": f"text {i}", "licence": "CC0"} for i in range(20)] + [{"text": ""}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    dataset = read(DataConfig(files=[str(file)], on_bad_row="skip"))
    record = split_record(dataset)
    assert (record.kind, record.documents, record.digest) == ("text", 20, dataset.digest)
    assert record.num_bytes == dataset.num_bytes and record.licences == {"CC0": 20}
    assert record.num_skipped == 1 and "x.jsonl:21" in record.skipped[0] and record.num_sampled_from is None
    sampled = read(DataConfig(files=[str(file)], on_bad_row="skip", max_bytes=50))
    assert split_record(sampled).num_sampled_from == 20
