"""Every layout, encoding and packing gives the same rows, and what cannot be read is named where it stands.
Home of data.byte_streams, data.json_files, data.json_window, data.records and data.table_files."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import string
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptkit.data import json_files
from adaptkit.data.byte_streams import encoding_of
from adaptkit.data.files import find_files, records
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.records import Fault
from adaptkit.errors import DataError

Rows = list[dict[str, str]]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
BOM = "\ufeff"
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom", "utf-16-le", "utf-16-be", "utf-32")


def encoded(text: str, encoding: str) -> bytes:
    if encoding == "utf-16-be-bom":
        return (BOM + text).encode("utf-16-be")
    return text.encode(encoding)


def lines(rows: Rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def pretty(rows: Rows) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in rows)


def table(delimiter: str, line_end: str = "\n") -> Callable[[Rows], str]:
    def write(rows: Rows) -> str:
        sink = io.StringIO()
        writer = csv.DictWriter(sink, ["text", "label"], delimiter=delimiter, lineterminator=line_end)
        writer.writeheader()
        writer.writerows(rows)
        return sink.getvalue()

    return write


WRITERS: dict[str, tuple[str, Callable[[Rows], str]]] = {
    "lines": (".jsonl", lines),
    "lines in .json": (".json", lines),
    "ndjson": (".ndjson", lines),
    "CRLF": (".jsonl", lambda rows: lines(rows).replace("\n", "\r\n")),
    "pretty": (".jsonl", pretty),
    "one list": (".json", lambda rows: json.dumps(rows, ensure_ascii=False)),
    "one list, a row a line": (".jsonl", lambda rows: "[" + ",\n".join(map(json.dumps, rows)) + "]\n"),
    "pretty list": (".json", lambda rows: json.dumps(rows, indent=1)),
    "wrapped": (".json", lambda rows: json.dumps({"data": rows}, ensure_ascii=False)),
    "wrapped, with a version": (
        ".json",
        lambda rows: json.dumps({"version": "1", "rows": rows, "n": 2}, indent=4),
    ),
    "comma": (".csv", table(",")),
    "semicolon": (".csv", table(";", "\r\n")),
    "tab in .csv": (".csv", table("\t")),
    "bar": (".csv", table("|")),
    "tsv": (".tsv", table("\t")),
    "declared": (".csv", lambda rows: "sep=;\r\n" + table(";", "\r\n")(rows)),
}

words = st.text(
    string.ascii_letters + " ,;|\"'\n{}[]:\\\u00e9\u4e2d\U0001f600\u2028", min_size=1, max_size=30
)
row = st.fixed_dictionaries(
    {"text": words.map(lambda text: f"x {text}y"), "label": st.sampled_from(["a", "b"])}
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(row, min_size=2, max_size=8), encoding=st.sampled_from(ENCODINGS))
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_in_every_encoding_gives_the_same_rows(
    tmp_path: Path, layout: str, rows: Rows, encoding: str
) -> None:
    suffix, write = WRITERS[layout]
    file = tmp_path / f"x{suffix}"
    file.write_bytes(encoded(write(rows), encoding))
    read_rows = [record for _, record in records(file, lambda sentence: None)]
    assert read_rows == rows
    places = [place for place, _ in records(file, lambda sentence: None)]
    assert len(set(places)) == len(rows), "every row has a place of its own"


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_is_read_packed(tmp_path: Path, layout: str, packed: str) -> None:
    rows = [{"text": f"row {i}, of \u4e2d", "label": "ab"[i % 2]} for i in range(9)]
    suffix, write = WRITERS[layout]
    file = tmp_path / f"x{suffix}{packed}"
    file.write_bytes(PACKERS[packed](write(rows).encode("utf-16")))
    assert [record for _, record in records(file)] == rows
    named_wrongly = tmp_path / f"y{suffix}"
    named_wrongly.write_bytes(file.read_bytes())
    assert [record for _, record in records(named_wrongly)] == rows, "packing is seen in the bytes"


@pytest.mark.parametrize("packed", [".gz", ".zst", ".xz", ".bz2"])
def test_cut_packed_files_are_refused_at_a_line(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"x.jsonl{packed}"
    rows = [{"text": f"{i} {i * i} {i**3}", "label": "a"} for i in range(5000)]
    file.write_bytes(PACKERS[packed](lines(rows).encode())[:-20])
    with pytest.raises(DataError, match="cut or damaged") as error:
        read(DataConfig(files=[str(file)], on_bad_row="skip"))
    assert str(error.value.where).startswith(f"{file}:")


def test_a_list_is_read_as_it_streams_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are longer than the head and than a window's step; nothing is read whole."""
    monkeypatch.setattr(json_files, "HEAD_BYTES", 200)
    rows = [{"text": '\u4e2d\\" [{' * (50 * (i % 7)) + f"{i}", "n": 10**i} for i in range(60)]
    for name, value in (("list", rows), ("wrapped", {"about": {"rows": [1]}, "data": rows, "end": 1.5})):
        for indent in (None, 1):
            file = tmp_path / f"{name}.json"
            file.write_text(json.dumps(value, indent=indent, ensure_ascii=False))
            assert [record for _, record in records(file)] == rows
    file = tmp_path / "x.jsonl"
    file.write_text(lines([{"text": "a" * 500}, {"text": "b"}]))
    assert [record for _, record in records(file)] == [{"text": "a" * 500}, {"text": "b"}]


def test_a_conversation_that_stands_alone_is_a_row_whatever_lists_stand_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    row = {"messages": turns, "documents": [{"title": "t", "text": "x"}]}
    file = tmp_path / "x.jsonl"
    for head in (json_files.HEAD_BYTES, 10):
        monkeypatch.setattr(json_files, "HEAD_BYTES", head)
        file.write_text(lines([row]))
        assert [record for _, record in records(file)] == [row]


def test_places_are_lines_and_columns(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('[{"a": 1}, {"a": 2},\n {"a": 3}]')
    assert [place for place, _ in records(file)] == ["1", "1:12", "2"]
    data = tmp_path / "y.json"
    data.write_text('[{"text": "a"}, {"text": "b"}]')
    rows = read(DataConfig(files=[str(data)])).rows
    assert [row.where for row in rows] == [f"{data}:1", f"{data}:1:17"] and {row.file for row in rows} == {
        str(data)
    }


FAULTS = [
    ('[{"text": "a"}, 7]', "a JSON number, not an object", "1:17"),
    ('[\n{"text": "a"},\n["b"]\n]', "a JSON list, not an object", "3"),
    ('[{"text": "a"},\n{"text": "b", "text": "c"}]', "'text' is given twice", "2"),
    ('[{"text": "a"},\n{"text": NaN}]', "NaN is not a JSON number", "2"),
    (f'[{{"text": "a"}},\n{{"text": {"9" * 5000}}}]', "number too long", "2"),
]


@pytest.mark.parametrize(("content", "what", "place"), FAULTS)
def test_a_bad_item_of_a_list_is_its_own_fault(tmp_path: Path, content: str, what: str, place: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    bad = [(where, record.what) for where, record in records(file) if isinstance(record, Fault)]
    assert len(bad) == 1 and what in bad[0][1] and bad[0][0] == place


BROKEN = [
    ('[{"text": "a"},\n{"text": "b"},\n]', "3"),
    ('[{"text": "a"},\n{"text" "b"},\n{"text": "c"}]', "2"),
    ('[{"text": "a"}\n{"text": "b"}]', "2"),
    ('[{"text": "a"},', "1"),
    ('[{"text": "a"}] and more', "1"),
    ('{\n "text": "a",\n}\n{\n "text": "b"\n}', "3"),
    ('{"data": [{"text": "a"}\n', "1"),
]


@pytest.mark.parametrize(("content", "line"), BROKEN)
def test_broken_json_is_named_at_its_line(tmp_path: Path, content: str, line: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(DataError) as error:
        read(DataConfig(files=[str(file)]))
    assert error.value.where == f"{file}:{line}" and "valid JSON" in error.value.what and error.value.fix


REFUSED = [
    (
        "x.json",
        json.dumps({"train": [{"text": "a"}], "test": [{"text": "b"}]}),
        "holds 2 lists of rows: 'train', 'test'",
    ),
    ("x.json", json.dumps({"text": ["a", "b"], "label": ["x", "y"]}), "hold lists or objects, and not rows"),
    ("x.json", json.dumps({"1": {"text": "a"}, "2": {"text": "b"}}), "hold lists or objects, and not rows"),
    ("x.jsonl", "<!DOCTYPE html><html></html>", "is a web page"),
    ("x.csv", "PK\x03\x04...", "is a zip archive or a spreadsheet"),
    ("x.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:1", "a pointer of Git LFS"),
    ("x.csv", "a,a\n1,2\n", "column names are missing or repeated"),
    ("x.csv", "", "the file is empty"),
    ("x.jsonl", "", "no usable row"),
]


@pytest.mark.parametrize(("name", "content", "what"), REFUSED)
def test_what_cannot_be_read_is_refused_in_a_sentence(
    tmp_path: Path, name: str, content: str, what: str
) -> None:
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(DataError, match=what) as error:
        read(DataConfig(files=[str(file)]))
    assert str(error.value.where).startswith(str(file)) and error.value.fix


def test_several_lists_are_refused_in_a_stream_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "HEAD_BYTES", 40)
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"train": [{"text": f"a {i}"} for i in range(40)], "test": [{"text": "b"}]}))
    with pytest.raises(DataError, match="holds 2 lists of rows: 'train', 'test'"):
        read(DataConfig(files=[str(file)]))


def test_one_row_is_no_wrapper(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"text": "a", "spans": [{"start": 1}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    ]
    for number, only in enumerate(rows):
        for indent in (None, 2):
            file = tmp_path / f"{number}.json"
            file.write_text(json.dumps(only, indent=indent))
            assert [record for _, record in records(file)] == [only]


def test_tables_as_they_are_found(tmp_path: Path) -> None:
    def cells(name: str, content: str, encoding: str = "utf-8") -> list[dict[str, str]]:
        file = tmp_path / name
        file.write_bytes(content.encode(encoding))
        return [record for _, record in records(file) if isinstance(record, dict)]

    assert cells("empty_columns.csv", "text;label;;\na;x;;\n") == [{"text": "a", "label": "x"}]
    assert cells("commas_inside.csv", "text;price\nwell, so;1,5\nand, on;2,5\n")[1] == {
        "text": "and, on",
        "price": "2,5",
    }
    assert cells("names.csv", "last, first;label\nDoe, J;x\nRoe, R;y\n")[0] == {
        "last, first": "Doe, J",
        "label": "x",
    }
    assert (
        cells("quotes.tsv", 'text\tlabel\n"Hello" he said\tx\n5" nails\ty\n')[0]["text"] == '"Hello" he said'
    )
    assert cells("one.csv", "text\nwell; so\n") == [{"text": "well; so"}]
    assert cells("mac.csv", "text,label\ra,x\rb,y\r") == [
        {"text": "a", "label": "x"},
        {"text": "b", "label": "y"},
    ]
    unicode_text = cells("sheet.txt", "text\tlabel\r\na\tx\r\nb\ty\r\n", "utf-16")
    assert unicode_text == [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert cells("prose.txt", "A line.\nA\ttab.\n", "utf-16") == [{"text": "A line.\nA\ttab.\n"}]


def test_scores_in_spreadsheet_text_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes("text1\ttext2\tscore\r\na\tb\t0.5\r\nc\td\t1\r\n".encode("utf-16"))
    assert [row.values["score"] for row in read(DataConfig(files=[str(file)])).rows] == [0.5, 1.0]


def test_what_is_guessed_is_said_in_one_line(tmp_path: Path) -> None:
    guesses = {
        "a.jsonl": ('[{"text": "a"}]', "is one JSON list"),
        "b.json": ('{"data": [{"text": "a"}]}', "the items of its list 'data'"),
        "c.jsonl": ('{\n"text": "a"\n}', "over several lines"),
        "d.csv": ("text;label\na;b\n", "separated by semicolons"),
        "e.tsv": ('text\tlabel\n"a" b\tc\n', "quotation marks are text"),
    }
    for name, (content, sentence) in guesses.items():
        file = tmp_path / name
        file.write_text(content)
        (note,) = read(DataConfig(files=[str(file)])).notes
        assert note.startswith(f"{file}: ") and sentence in note and "\n" not in note
    (tmp_path / "f.jsonl").write_bytes('{"text": "a"}\n'.encode("utf-16-le"))
    assert read(DataConfig(files=[str(tmp_path / "f.jsonl")])).notes == [
        f"{tmp_path / 'f.jsonl'}: is written in UTF-16-LE"
    ]
    (tmp_path / "g.jsonl").write_text('{"text": "a"}\n')
    assert read(DataConfig(files=[str(tmp_path / "g.jsonl")])).notes == []


@pytest.mark.parametrize(
    "text",
    ["plain", '{"text": "\u4e2d\u6587\u4e2d\u6587"}', "a,b\r\n\u4e2d,\u6587\r\n" * 4, "\u00e9t\u00e9 " * 9],
)
def test_encodings_without_a_mark_are_told_where_they_can_be(text: str) -> None:
    for encoding in ("utf-8", "utf-16-le", "utf-16-be"):
        assert encoding_of(text.encode(encoding)) == (b"", encoding)


def test_utf8_with_a_few_zero_bytes_stays_utf8() -> None:
    assert encoding_of(b'{"text": "a\0"}' + b'{"text": "abc"}\n' * 9) == (b"", "utf-8")


def test_json_beside_other_data_describes_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "dataset_info.json").write_text('{"name": "x"}')
    chosen, others = find_files([str(tmp_path)])
    assert [path.name for path in chosen] == ["rows.jsonl"] and [path.name for path in others] == [
        "dataset_info.json"
    ]
    (tmp_path / "rows.jsonl").unlink()
    assert [path.name for path in find_files([str(tmp_path)])[0]] == ["dataset_info.json"]


@pytest.mark.parametrize(("name", "fix"), [("x.xlsx", "save the sheet as CSV"), ("x.zip", "unpack it")])
def test_other_formats_have_a_way_out(tmp_path: Path, name: str, fix: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(DataError, match="unknown file format") as error:
        find_files([str(tmp_path / name)])
    assert str(error.value.fix).startswith(fix)
