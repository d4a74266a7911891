"""Readers: formats, roles, bad rows at their true line, deterministic samples and splits. Home of
data.column_roles and data.files."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest
import zstandard

from adaptkit.data.readers import DataConfig, Dataset, Row, content_id, read
from adaptkit.data.splitting import split
from adaptkit.errors import DataError

ROWS = [
    {"text": f"Document number {i} says hello, W\u00f6rld \U0001f600.\n", "label": "ab"[i % 2]}
    for i in range(40)
]


def jsonl(rows: list) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(
        path.suffix, lambda data: data
    )
    path.write_bytes(pack(content))
    return str(path)


def table(format: str) -> bytes:
    if format == ".jsonl":
        return jsonl(ROWS)
    if format == ".parquet":
        import io

        import pyarrow
        from pyarrow import parquet

        sink = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), sink)
        return sink.getvalue()
    mark = "," if format == ".csv" else "\t"
    return "".join(
        ["text" + mark + "label\n", *(f'"{r["text"]}"{mark}{r["label"]}\n' for r in ROWS)]
    ).encode()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("format", [".jsonl", ".parquet", ".csv", ".tsv"])
def test_every_format_gives_the_same_rows(tmp_path: Path, format: str, packed: str) -> None:
    data = read(DataConfig(files=[write(tmp_path / f"x{format}{packed}", table(format))]), "labelled")
    assert [row.values for row in data.rows] == ROWS
    assert data.kind == "labelled" and data.labels == ["a", "b"]
    assert (
        data.digest == read(DataConfig(files=[write(tmp_path / "y.jsonl", jsonl(ROWS))]), "labelled").digest
    )


def test_text_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b", "a", "sub/c"):
        write(tmp_path / f"{name}.txt", f"File {name}.".encode())
    (tmp_path / "notes.docx").write_bytes(b"x")
    folder, glob = (
        read(DataConfig(files=[str(tmp_path)])),
        read(DataConfig(files=[f"{tmp_path}/**/*.txt", f"{tmp_path}/a.txt"])),
    )
    assert [row.text for row in folder.rows] == ["File a.", "File b.", "File sub/c."]
    assert folder.digest == glob.digest and [Path(p).name for p in folder.ignored] == ["notes.docx"]
    assert folder.rows[0].where.endswith("a.txt:1") and folder.num_bytes == 25


@pytest.mark.parametrize("pattern", ["nothing/*.jsonl", "missing.jsonl", "x.docx", ""])
def test_nothing_to_read_is_an_error(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "x.docx").write_bytes(b"x")
    with pytest.raises(DataError) as error:
        read(DataConfig(files=[str(tmp_path / pattern)]))
    assert error.value.where and error.value.fix


SHAPES = [
    ({"text": "a"}, "text", {"text": "a"}),
    ({"title": "t", "text": "a"}, "text", {"text": "a"}),
    ({"prompt": "p", "completion": "c"}, "sft", {"prompt": "p", "completion": "c"}),
    ({"instruction": "p", "input": "", "output": "c"}, "sft", {"prompt": "p", "completion": "c"}),
    ({"instruction": "p", "input": "i", "output": "c"}, "sft", {"prompt": "p\n\ni", "completion": "c"}),
    (
        {"anchor": "p", "positive": "c", "negative": "n"},
        "pairs",
        {"anchor": "p", "positive": "c", "negative": "n"},
    ),
    ({"text1": "p", "text2": "c", "score": 3}, "pairs", {"text1": "p", "text2": "c", "score": 3.0}),
    ({"text": "p", "label": 3}, "labelled", {"text": "p", "label": "3"}),
    ({"prompt": "p"}, "prompts", {"prompt": "p"}),
    (
        {"messages": [{"role": "assistant", "content": "hi"}]},
        "messages",
        {"messages": [{"role": "assistant", "content": "hi"}]},
    ),
]


@pytest.mark.parametrize(("row", "kind", "values"), SHAPES)
def test_roles_are_found_by_column_name(tmp_path: Path, row: dict, kind: str, values: dict) -> None:
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl([row]))]))
    assert (data.kind, data.rows[0].values) == (kind, values)


def test_roles_can_be_set_and_joined(tmp_path: Path) -> None:
    rows = [{"title": "T", "abstract": ["one", "two"], "outcome": "yes"}]
    file = write(tmp_path / "x.jsonl", jsonl(rows))
    data = read(DataConfig(files=[file], columns={"text": "title+abstract", "label": "outcome"}), "labelled")
    assert data.rows[0].values == {"text": "T\none\ntwo", "label": "yes"}
    for columns, complaint in (({"txt": "title"}, "did you mean 'text'"), ({"text": "abstrct"}, "abstract")):
        with pytest.raises(DataError, match=complaint):
            read(DataConfig(files=[file], columns=columns))


BAD = [
    (b'{"text": "cut', "not valid JSON"),
    (b"[1]", "JSON list, not an object"),
    (b"7", "JSON number"),
    (b'{"label": "a"}', "no column 'text'"),
    (b'{"text": 3, "label": "a"}', "'text' is int"),
    (b'{"text": ["a"], "label": "a"}', "'text' is list"),
    (b'{"text": null, "label": "a"}', "'text' is null"),
    (b'{"text": " ", "label": "a"}', "'text' is empty"),
    (b'{"text": "a", "label": 3}', "'label' is int here and str above"),
    (b'{"text": "a", "label": null}', "'label' is null"),
    (b'{"text": "a", "label": NaN}', "NaN is not a JSON number"),
    (b'{"text": "a", "label": "a", "x": Infinity}', "Infinity"),
    (b'{"text": "a", "text": "b", "label": "a"}', "'text' is given twice"),
    (b'{"text": "a\xff", "label": "a"}', "not UTF-8"),
    (b'{"text": "a\\u0000", "label": "a"}', "NUL"),
    (b'{"text": "a\x00", "label": "a"}', "NUL"),
    (b'{"text": "a\\ud800", "label": "a"}', "not valid Unicode"),
    (b"", "empty line"),
    (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"text": ' + b"9" * 10_000 + b', "label": "a"}', "number too long"),
]


@pytest.mark.parametrize(("line", "what"), BAD)
def test_a_bad_row_is_named_or_counted(tmp_path: Path, line: bytes, what: str) -> None:
    lines = jsonl(ROWS).splitlines()
    file = write(tmp_path / "x.jsonl.gz", b"\n".join([*lines[:30], line, *lines[30:]]) + b"\n")
    with pytest.raises(DataError, match=what) as error:
        read(DataConfig(files=[file]))
    assert error.value.where == f"{file}:31" and "on_bad_row" in error.value.fix
    data = read(DataConfig(files=[file], on_bad_row="skip"))
    assert len(data.rows) == 40 and data.manifest()["num_skipped"] == 1 and f"{file}:31" in data.skipped[0]


def test_the_true_line_is_told_far_into_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl.gz", b'{"text": "a"}\n' * 250_000 + b'{"text": 1}\n')
    with pytest.raises(DataError) as error:
        read(DataConfig(files=[file]))
    assert error.value.where == f"{file}:250001"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'text,label\n"a\nb",x\nc\n', 4),
        (b'text,label\na,x\n"open,x\nb,y\n', 3),
        (b"text,label\na,x\nb\xff,y\n", 3),
        (b"text,label\na,x\n,y\n", 3),
    ],
)
def test_csv_rows_are_named_by_their_first_line(tmp_path: Path, content: bytes, line: int) -> None:
    with pytest.raises(DataError) as error:
        read(DataConfig(files=[write(tmp_path / "x.csv", content)]))
    assert error.value.where.endswith(f"x.csv:{line}")


@pytest.mark.parametrize("ending", [".jsonl.gz", ".jsonl.zst", ".parquet", ".csv.gz"])
def test_a_cut_file_is_an_error_even_when_skipping(tmp_path: Path, ending: str) -> None:
    file = Path(
        write(tmp_path / f"x{ending}", table(ending if ending == ".parquet" else "." + ending.split(".")[1]))
    )
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError) as error:
        read(DataConfig(files=[str(file)], on_bad_row="skip"))
    assert str(file) + ":" in error.value.where


def test_a_first_row_without_its_label_does_not_change_the_kind(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", jsonl([{"text": "a"}, *ROWS]))
    with pytest.raises(DataError, match="no column 'label'") as error:
        read(DataConfig(files=[file]))
    assert error.value.where.endswith(":1")


def mutate(lines: list[bytes], rng: random.Random) -> bytes:
    """One change of a random kind to a valid file."""
    at = rng.randrange(len(lines))
    line = bytearray(lines[at])
    kind = rng.randrange(9)
    if kind == 0:
        line[rng.randrange(len(line))] = rng.randrange(256)
    elif kind == 1:
        del line[rng.randrange(len(line)) :]
    elif kind == 2:
        line[rng.randrange(len(line)) : 0] = bytes(rng.randrange(256) for _ in range(3))
    elif kind == 3:
        line = bytearray(
            rng.choice([b"", b"null", b"[]", b"{}", b'"x"', b"NaN", b"{" * 5000, b"\xff\xfe", b"\0"])
        )
    elif kind == 4:
        line = line * 2
    elif kind == 5:
        line = bytearray(
            line.replace(b'"label"', rng.choice([b'"text"', b'"lable"', b"label", b'"label": 1, "label"']))
        )
    elif kind == 6:
        line = bytearray(
            b'{"text": '
            + rng.choice([b"null", b"1", b'""', b"[]", b"{}", b"true", b"1e999", b"NaN"])
            + b', "label": "a"}'
        )
    elif kind == 7:
        line = bytearray(
            b'{"text": "x", "label": '
            + rng.choice([b"null", b"1", b'""', b"[]", b"1.5", b"true", b"-0"])
            + b"}"
        )
    else:
        line = bytearray(line.replace(b" ", b"\r"))
    return b"\n".join([*lines[:at], bytes(line), *lines[at + 1 :]]) + rng.choice([b"\n", b"", b"\n\n"])


def test_200_mutated_files_are_read_or_refused_at_a_line(tmp_path: Path) -> None:
    """No traceback but DataError; each refusal names file and line; each kept row is a whole, typed row."""
    rng, lines, refused = random.Random(7), jsonl(ROWS).splitlines(), 0
    for number in range(200):
        file = write(tmp_path / f"{number}.jsonl", mutate(lines, rng))
        kept = read(DataConfig(files=[file], on_bad_row="skip"), "labelled")
        for row in kept.rows:
            assert (
                row.text.strip()
                and "\0" not in row.text
                and row.text.encode()
                and set(row.values) == {"text", "label"}
            )
        try:
            data = read(DataConfig(files=[file]), "labelled")
            assert not kept.skipped and data.digest == kept.digest
        except DataError as error:
            refused += 1
            name, _, line = error.where.rpartition(":")
            assert (
                name == file
                and int(line) >= 1
                and error.fix
                and kept.skipped[0].startswith(f"{error.where}: ")
            )
    assert 120 <= refused < 200


def test_a_byte_limit_takes_the_same_rows_whatever_the_order(tmp_path: Path) -> None:
    texts = [{"text": f"text {i} " * (1 + i % 7)} for i in range(200)]
    limit = sum(len(row["text"]) for row in texts) // 3
    samples = []
    for seed in range(4):
        random.Random(seed).shuffle(texts)
        data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl(texts))], max_bytes=limit))
        assert 0.9 * limit < data.num_bytes <= limit and data.num_sampled_from == 200
        assert [int(row.where.rpartition(":")[2]) for row in data.rows] == sorted(
            int(row.where.rpartition(":")[2]) for row in data.rows
        )
        samples.append({row.id for row in data.rows})
    larger = read(DataConfig(files=[str(tmp_path / "x.jsonl")], max_bytes=limit * 2))
    assert all(sample == samples[0] for sample in samples) and samples[0] < {row.id for row in larger.rows}


def test_a_split_follows_content_not_order(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": "x", "group": f"g{i % 20}"} for i in range(200)]
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl(rows))]), "labelled")
    rest, held = split(data, 0.3, seed=1)
    again = split(data.with_rows(reversed(data.rows)), 0.3, seed=1)
    assert (
        {r.id for r in held.rows}
        == {r.id for r in again[1].rows}
        != {r.id for r in split(data, 0.3, seed=2)[1].rows}
    )
    assert not {r.values["group"] for r in rest.rows} & {r.values["group"] for r in held.rows}


def plain(values: list[dict]) -> Dataset:
    rows = [Row(value, f"x.jsonl:{i + 1}", content_id(value)) for i, value in enumerate(values)]
    return Dataset(rows, "text", {})


def test_the_text_of_a_row_is_what_a_model_may_see() -> None:
    row = Row({"text": "words", "label": "x", "group": "g"}, "x:1", "0")
    assert row.text == "words"
    assert (
        Row({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, "", "").text
        == "a\nb"
    )
    assert content_id({"text": "a", "group": "g"}) == content_id({"text": "a"}) != content_id({"text": "b"})


def test_group_source_and_time_are_facts_about_a_row_and_not_its_content(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x", "group": 7, "source": "wiki", "time": "2024-05-31"}]
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl(rows))]), "labelled")
    (row,) = data.rows
    assert row.text == "a" and row.id == content_id({"text": "a", "label": "x"})
    assert row.values["time"] == "2024-05-31T00:00:00" and row.values["source"] == "wiki"
    assert row.cluster == "7" and row.file == str(tmp_path / "x.jsonl")
    alone = Row({"text": "a"}, "x.jsonl:1", "id")
    assert alone.cluster == "id", "a row without a group is a cluster of its own"


MOMENTS = [
    (2019, 2019.0),
    ("2019", 2019.0),
    (1.5, 1.5),
    ("2019-03", "2019-03-01T00:00:00"),
    ("2019-03-04T05:06:07+02:00", "2019-03-04T03:06:07"),
    ("2019-03-04 05:06", "2019-03-04T05:06:00"),
]


@pytest.mark.parametrize(("written", "moment"), MOMENTS)
def test_a_time_is_an_iso_date_or_a_number(tmp_path: Path, written: object, moment: object) -> None:
    file = write(tmp_path / "x.jsonl", jsonl([{"text": "a", "date": written}]))
    data = read(DataConfig(files=[file], columns={"time": "date"}), "text")
    assert data.rows[0].values["time"] == moment
    again = write(tmp_path / "y.jsonl", jsonl([row.values for row in data.rows]))
    assert read(DataConfig(files=[again]), "text").rows[0].values["time"] == moment


@pytest.mark.parametrize("value", ["last week", None, True, "2019-13-01", ["2019"]])
def test_a_time_that_is_named_must_be_one(tmp_path: Path, value: object) -> None:
    rows = [{"text": "a", "date": "2019-01-01"}, {"text": "b", "date": value}]
    file = write(tmp_path / "x.jsonl", jsonl(rows))
    with pytest.raises(DataError, match="'date' is no ISO date and no number") as caught:
        read(DataConfig(files=[file], columns={"time": "date"}), "text")
    assert caught.value.where == f"{file}:2"


def test_dates_and_numbers_do_not_mix(tmp_path: Path) -> None:
    rows = [{"text": "a", "date": "2019-01-01"}, {"text": "b", "date": 3}]
    file = write(tmp_path / "x.jsonl", jsonl(rows))
    with pytest.raises(DataError, match="a date in some rows and a number in others"):
        read(DataConfig(files=[file], columns={"time": "date"}), "text")


def test_columns_that_only_happen_to_be_called_time_or_source_do_no_harm(tmp_path: Path) -> None:
    good = {"text": "b", "time": "2019", "source": "wiki"}
    rows = [{"text": "a", "time": "noon", "source": 3}, good, {**good, "text": "d"}, {"text": "c"}]
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl(rows))]), "text")
    whole = {"text": "b", "time": 2019.0, "source": "wiki"}
    assert [row.values for row in data.rows] == [{"text": "a"}, whole, {**whole, "text": "d"}, {"text": "c"}]


def test_equal_rows_have_distinct_ids(tmp_path: Path) -> None:
    data = read(DataConfig(files=[write(tmp_path / "x.jsonl", jsonl([{"text": "same"}] * 3))]))
    assert len({row.id for row in data.rows}) == 3 and data.rows[0].id == data.rows[2].id.removesuffix("-3")
