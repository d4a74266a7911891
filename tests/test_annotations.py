"""Several labels, tags of words, spans and pairs: how rows are read, and what is said of wrong ones.
Home of data.annotations and data.shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_rows import dataset

from adaptkit.data.annotations import spans_of_tags, tags_of, words_of
from adaptkit.data.check import check
from adaptkit.data.dedup import deduplicate
from adaptkit.data.readers import DataConfig, Dataset, Want, read
from adaptkit.data.splitting import split
from adaptkit.errors import DataError


def rows(folder: Path, values: list[dict], want: Want | None, name: str = "rows.jsonl") -> Dataset:
    (folder / name).write_text("".join(json.dumps(value) + "\n" for value in values))
    return read(DataConfig(files=[str(folder / name)]), want)


def refusal(folder: Path, value: dict, want: Want, good: dict) -> str:
    with pytest.raises(DataError) as error:
        rows(folder, [good, value], want)
    assert error.value.where == f"{folder / 'rows.jsonl'}:2"
    return str(error.value)


def test_labels_come_as_a_list_or_as_text_with_one_separator(tmp_path: Path) -> None:
    values = [
        {"text": "a", "labels": ["x", "y", "x"]},
        {"text": "b", "labels": []},
        {"text": "c", "labels": 3},
    ]
    data = rows(tmp_path, values, "multi_label")
    assert [row.values["labels"] for row in data.rows] == [["x", "y"], [], ["3"]]
    assert data.labels == ["3", "x", "y"] and data.kind == "multi_label"
    (tmp_path / "t.csv").write_text('text,labels\none,"R&D, labs"\ntwo,"R&D, labs; pay"\nthree,\n')
    cells = read(DataConfig(files=[str(tmp_path / "t.csv")]), "multi_label")
    assert [row.labels for row in cells.rows] == [("R&D, labs",), ("R&D, labs", "pay"), ()]


def test_labels_that_are_none_are_named_with_their_line(tmp_path: Path) -> None:
    good = {"text": "a", "labels": ["x"]}
    null = refusal(tmp_path, {"text": "b", "labels": None}, "multi_label", good)
    assert "'labels' is null, not a list of labels" in null
    assert "'labels' holds null, not a label" in refusal(
        tmp_path, {"text": "b", "labels": [None]}, "multi_label", good
    )


def test_a_list_of_labels_in_a_task_of_one_label_names_the_kind(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"text": "b", "label": ["x", "y"]}, "labelled", {"text": "a", "label": "x"})
    assert "set kind: multi_label, columns: {labels: label}" in said


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        (["B-P", "I-P", "O", "B-L"], ["Ann Lee:P", "Rome:L"]),
        (["I-P", "I-P", "O", "I-L"], ["Ann Lee:P", "Rome:L"]),
        (["B-P", "L-P", "O", "U-L"], ["Ann Lee:P", "Rome:L"]),
        (["B-P", "E-P", "O", "S-L"], ["Ann Lee:P", "Rome:L"]),
        (["P", "P", "O", "L"], ["Ann Lee:P", "Rome:L"]),
        (["B-P", "B-P", "I-L", "I-L"], ["Ann:P", "Lee:P", "in Rome:L"]),
        (["O", "O", "O", "O"], []),
    ],
)
def test_every_scheme_of_tags_becomes_spans(tags: list[str], found: list[str]) -> None:
    outcome = spans_of_tags(["Ann", "Lee", "in", "Rome"], tags)
    assert isinstance(outcome, tuple)
    text, spans = outcome
    assert [f"{text[span['start'] : span['end']]}:{span['label']}" for span in spans] == found


def test_words_and_tags_are_read_again_as_they_were_written(tmp_path: Path) -> None:
    value = {"tokens": ["Ann", "-", "Lee", "left"], "tags": ["B-P", "I-P", "I-P", "O"]}
    first = rows(tmp_path, [value], "spans")
    assert first.rows[0].values == {
        "text": "Ann - Lee left",
        "spans": [{"start": 0, "end": 9, "label": "P"}],
        "tokens": ["Ann", "-", "Lee", "left"],
    }
    again = rows(tmp_path, [first.rows[0].values], "spans")
    assert again.rows[0].values == first.rows[0].values and again.rows[0].id == first.rows[0].id


def test_words_of_scripts_without_blanks_are_joined_without() -> None:
    outcome = spans_of_tags(
        ["\u6211", "\u5728", "\u5317", "\u4eac", "2", "km"], ["O", "O", "B-L", "I-L", "O", "O"]
    )
    assert isinstance(outcome, tuple)
    assert outcome == ("\u6211\u5728\u5317\u4eac2 km", [{"start": 2, "end": 4, "label": "L"}])
    assert [outcome[0][a:b] for a, b in words_of(outcome[0])] == [
        "\u6211",
        "\u5728",
        "\u5317",
        "\u4eac",
        "2",
        "km",
    ]


def test_a_span_gives_its_tag_to_every_word_that_it_holds_any_of() -> None:
    text = "Pay $5m to Dr. Ann-Lee now"
    places = words_of(text)
    assert [text[a:b] for a, b in places] == ["Pay", "$", "5m", "to", "Dr", ".", "Ann", "-", "Lee", "now"]
    spans = [{"start": 4, "end": 6, "label": "SUM"}, {"start": 15, "end": 22, "label": "P"}]
    assert tags_of(places, spans) == ["O", "B-SUM", "I-SUM", "O", "O", "O", "B-P", "I-P", "I-P", "O"]


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([{"start": 0, "end": 9, "label": "P"}], "is 0 to 9, and the text has 8 characters"),
        ([{"start": 3, "end": 3, "label": "P"}], "is 3 to 3"),
        ([{"start": "0", "end": 3, "label": "P"}], "start and end are no whole numbers"),
        ([{"start": 0, "end": 3}], "span 1 of 'spans' holds start, end"),
        ([{"start": 0, "end": 3, "label": ""}], "has empty as its label"),
        ([{"start": 3, "end": 4, "label": "P"}], "holds nothing but blanks"),
        ([[0, 3, "P"], [2, 8, "Q"]], "spans overlap: 'Ann' (P) and 'n left' (Q)"),
        (None, "'spans' is null"),
        ("Ann", "'spans' is null, not a list of spans"),
    ],
)
def test_spans_that_do_not_fit_their_text_are_named_with_their_line(
    tmp_path: Path, spans: object, said: str
) -> None:
    good = {"text": "Bo sat", "spans": []}
    assert said in refusal(tmp_path, {"text": "Ann left", "spans": spans}, "spans", good)


def test_tags_that_do_not_fit_their_words_are_named_with_their_line(tmp_path: Path) -> None:
    good = {"tokens": ["a"], "tags": ["O"]}
    short = refusal(tmp_path, {"tokens": ["a", "b"], "tags": ["O"]}, "spans", good)
    assert "2 words and 1 tags" in short
    numbers = refusal(tmp_path, {"tokens": ["a"], "tags": [3]}, "spans", good)
    assert "holds the number 3 in place of a name" in numbers
    assert "'tokens' is empty" in refusal(tmp_path, {"tokens": [], "tags": []}, "spans", good)


def test_a_preference_is_two_answers_and_which_of_them_is_better(tmp_path: Path) -> None:
    values = [{"prompt": f"Why {i}?", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(40)]
    data = rows(tmp_path, values, "labelled_pairs")
    assert data.labels == ["first", "second"]
    for row in data.rows:
        better = row.values["text1" if row.values["label"] == "first" else "text2"]
        assert better.startswith("good")
    again = rows(tmp_path, [row.values for row in data.rows], "labelled_pairs")
    assert [row.id for row in again.rows] == [row.id for row in data.rows]
    assert data.rows[0].text.startswith("Why 0?\n")


def test_a_score_that_is_no_number_is_named_with_its_line(tmp_path: Path) -> None:
    said = refusal(tmp_path, {"text": "b", "score": "high"}, "scored", {"text": "a", "score": 1.5})
    assert "'score' is str, not a finite number" in said


def test_the_check_tells_what_files_hold_by_their_columns(tmp_path: Path) -> None:
    texts = [f"number {i} of {i % 7} made rows, {'long' * (i % 3)}" for i in range(30)]
    made = {
        "multi_label": [
            {"text": text, "labels": ["a"] if i % 2 else ["a", "b"]} for i, text in enumerate(texts)
        ],
        "spans": [{"text": text, "spans": [[0, 6, "N"]]} for text in texts],
        "scored": [{"text": text, "score": i} for i, text in enumerate(texts)],
        "pairs": [{"text_a": text, "text_b": text[::-1], "label": i % 2} for i, text in enumerate(texts)],
        "text": [{"text": text, "score": None, "spans": 3} for text in texts],
    }
    for kind, values in made.items():
        (tmp_path / f"{kind}.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    report = check([str(tmp_path / f"{kind}.jsonl") for kind in made])
    assert {d.name.removesuffix(".jsonl"): d.kind for d in report.datasets} == {kind: kind for kind in made}
    assert report.ok
    labels = {d.kind: d.labels for d in report.datasets}
    assert labels["multi_label"] == {"a": 30, "b": 15} and labels["spans"] == {"N": 30}


def test_every_label_keeps_its_share_where_rows_have_several() -> None:
    values = [
        {"text": f"row {i}", "labels": [name for name, n in (("a", 2), ("b", 5), ("c", 20)) if i % n == 0]}
        for i in range(400)
    ]
    rest, held = split(dataset(values, "multi_label"), 0.1)
    for name, share in (("a", 0.5), ("b", 0.2), ("c", 0.05)):
        held_share = sum(name in row.labels for row in held.rows) / len(held.rows)
        assert held_share == pytest.approx(share, abs=0.05)
    rare = [{"text": "the only one", "labels": ["a", "rare"]}, *values]
    rest, held = split(dataset(rare, "multi_label"), 0.1)
    assert "rare" in rest.labels and "rare" not in held.labels


def test_near_copies_with_the_same_entities_are_repeats() -> None:
    frame = "the old report says that on the second day of the trial {} was seen by all nurses of the ward{}"
    values = []
    for name, end in (("Ann", "."), ("Ann", "!"), ("Bob", ".")):
        text = frame.format(name, end)
        span = {"start": text.index(name), "end": text.index(name) + 3, "label": "P"}
        values.append({"text": text, "spans": [span]})
    kept, report = deduplicate(dataset(values, "spans"))
    assert len(kept.rows) == 2 and report.num_near == 1
