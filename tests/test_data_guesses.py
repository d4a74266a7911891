"""Conversations of other layouts become messages; adopted columns are said, and can be given up. Home of
data.conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adaptkit.data.guesses import doubt_about_groups
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.splitting import split
from adaptkit.errors import DataError


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": speaker, "value": text} for speaker, text in pairs]


@pytest.mark.parametrize("column", ["conversations", "conversation", "messages"])
def test_sharegpt_rows_are_read_as_messages(tmp_path: Path, column: str) -> None:
    talk = turns(("system", "s"), ("human", "q"), ("gpt", "a"), ("tool", "t"), ("GPT", "b"))
    file = write(tmp_path / "x.jsonl", [{column: talk}, {column: turns(("user", "q"), ("assistant", "a"))}])
    data = read(DataConfig(files=[file]), "sft")
    roles = [[message["role"] for message in row.values["messages"]] for row in data.rows]
    assert data.kind == "messages"
    assert roles == [["system", "user", "assistant", "tool", "assistant"], ["user", "assistant"]]
    assert [message["content"] for message in data.rows[0].values["messages"]] == ["s", "q", "a", "t", "b"]
    (note,) = data.notes
    assert f"turns in '{column}' (from, value) are read as messages" in note


def test_a_system_column_comes_first(tmp_path: Path) -> None:
    talk = turns(("human", "q"), ("gpt", "a"))
    file = write(
        tmp_path / "x.jsonl", [{"system": "s", "conversations": talk}, {"system": "", "conversations": talk}]
    )
    first, second = read(DataConfig(files=[file]), "sft").rows
    assert first.values["messages"][0] == {"role": "system", "content": "s"}
    assert [message["role"] for message in second.values["messages"]] == ["user", "assistant"]


def test_an_unknown_speaker_is_a_fault_at_its_row(tmp_path: Path) -> None:
    good = {"conversations": turns(("human", "q"), ("gpt", "a"))}
    file = write(tmp_path / "x.jsonl", [good, {"conversations": turns(("narrator", "q"), ("gpt", "a"))}])
    with pytest.raises(DataError, match="message 1") as error:
        read(DataConfig(files=[file]), "sft")
    assert error.value.where == f"{file}:2"


def test_prompts_and_completions_of_messages_are_one_conversation(tmp_path: Path) -> None:
    question, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    file = write(tmp_path / "x.jsonl", [{"prompt": [question], "completion": [answer]}])
    (row,) = read(DataConfig(files=[file]), "sft").rows
    assert [(message["role"], message["content"]) for message in row.values["messages"]] == [
        ("user", "q"),
        ("assistant", "a"),
    ]


ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(60)]


@pytest.mark.parametrize("empty", [None, "", " ", float("nan")])
def test_nothing_is_no_group(tmp_path: Path, empty: Any) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{**row, "group": empty} for row in ROWS] + [{**ROWS[0], "text": "z", "group": "g"}]
    if isinstance(empty, float):
        rows = rows[:-1]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    data = read(DataConfig(files=[str(tmp_path / "x.parquet")]), "labelled")
    assert sum("group" in row.values for row in data.rows) == len(rows) - 60
    rest, held = split(data, 0.1)
    assert held.rows and rest.rows


@pytest.mark.parametrize("missing", [0, 59])
def test_an_adopted_group_need_not_stand_in_every_row(tmp_path: Path, missing: int) -> None:
    rows = [dict(row, group=f"g{i % 15}") for i, row in enumerate(ROWS)]
    del rows[missing]["group"]
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", rows)]), "labelled")
    assert "group" not in data.rows[missing].values
    with pytest.raises(DataError, match="no column 'group'"):
        read(DataConfig(files=[write(tmp_path / "x.jsonl", rows)], columns={"group": "group"}), "labelled")


def test_adopted_columns_are_said_and_can_be_given_up(tmp_path: Path) -> None:
    rows = [
        {**row, "group": f"g{i % 15}", "source": "ab"[i % 2], "time": 2000 + i} for i, row in enumerate(ROWS)
    ]
    file = write(tmp_path / "x.jsonl", rows)
    (note,) = read(DataConfig(files=[file]), "labelled").notes
    assert (
        "'group', 'source', 'time'" in note and "{group: none, source: none, time: none} gives it up" in note
    )
    data = read(
        DataConfig(files=[file], columns={"group": "none", "time": "none", "source": "source"}), "labelled"
    )
    assert data.notes == [] and set(data.rows[0].values) == {"text", "label", "source"}
    plain = read(DataConfig(files=[file], columns={"label": "none"}))
    assert plain.kind == "text"


@pytest.mark.parametrize(
    ("groups", "doubt"),
    [
        (["control", "treatment"], "looks like a side of an experiment"),
        (["train", "test", "dev"], "looks like a side of an experiment"),
        (["x"], "one value"),
        (["berlin", "oslo", "rome"], "no tenth can be held out"),
        ([f"id {i}" for i in range(60)], "differs in nearly every row"),
        (["large"] * 50 + [f"{i}" for i in range(20, 40)], "more than half of the rows are one group"),
        ([f"g{i}" for i in range(20)], ""),
    ],
)
def test_columns_that_look_like_no_groups_are_doubted(groups: list[str], doubt: str) -> None:
    values = [{"group": groups[i % len(groups)]} for i in range(max(60, len(groups)))]
    sentence = doubt_about_groups(values, "batch")
    assert doubt in sentence and bool(sentence) == bool(doubt)
    assert not sentence or "'batch'" in sentence


def test_a_split_that_groups_forbid_names_the_column(tmp_path: Path) -> None:
    rows = [{**row, "arm": ["control", "treatment"][i % 2]} for i, row in enumerate(ROWS)]
    file = write(tmp_path / "x.jsonl", rows)
    data = read(DataConfig(files=[file], columns={"group": "arm"}), "labelled")
    with pytest.raises(
        DataError, match=r"2 groups of column 'arm' \(control, treatment\) cannot be split"
    ) as error:
        split(data, 0.1)
    assert "columns: {group: none}" in str(error.value.fix)
