"""Spoilt data files of every format: each is read, or refused at its place with a way out; no traceback."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from soak import count, soaked

from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import AdaptkitError

NUM_FILES = soaked(200, 5000)
ROWS = [{"text": f"the {who} reads the dose", "label": "good"} for who in ("nurse", "model", "engine")] * 4
JUNK = (b"\0", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"{", b"[" * 500, b"\r", b"\n\n", b",", b"\t", b"\\u12")
JUNK += (
    "\u2028".encode(),
    "\ufeff".encode(),
    b"NaN",
    b"1e999",
    b"9" * 400,
    b"\x7f" * 40,
    b"PAR1",
    b"\x1f\x8b",
)


def sound(kind: str, folder: Path) -> bytes:
    """A good file of a format."""
    table = [("text", "label"), *((row["text"], row["label"]) for row in ROWS)]
    if kind in ("csv", "tsv"):
        return "".join(("," if kind == "csv" else "\t").join(line) + "\n" for line in table).encode()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), folder / "sound.parquet")
        return (folder / "sound.parquet").read_bytes()
    if kind == "json":
        return json.dumps(ROWS).encode()
    if kind == "txt":
        return "\n\n".join(row["text"] for row in ROWS).encode()
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    return gzip.compress(lines, mtime=0) if kind == "jsonl.gz" else lines


def cut(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def put_junk(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(JUNK) + content[at:]


def flip(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def drop(rng: random.Random, content: bytes) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + content[at + rng.randrange(1, 40) :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    first, last = sorted(rng.randrange(len(content)) for _ in range(2))
    return content[:last] + content[first:last] * rng.randrange(1, 20) + content[last:]


SPOIL: tuple[Callable[[random.Random, bytes], bytes], ...] = (cut, put_junk, put_junk, flip, drop, repeat)
KINDS = ("jsonl", "json", "csv", "tsv", "txt", "parquet", "jsonl.gz")


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_are_read_or_refused_with_a_place_and_a_way_out(kind: str, tmp_path: Path) -> None:
    good, refused, num = sound(kind, tmp_path), 0, NUM_FILES // len(KINDS) + 1
    want = "text" if kind == "txt" else "labelled"
    path = tmp_path / f"data.{kind}"
    path.write_bytes(good)
    assert read(DataConfig(files=[str(path)]), want).rows
    for number in range(num):
        rng = random.Random(f"{kind} {number}")
        content = good
        for _ in range(rng.choice((1, 1, 2, 4))):
            content = rng.choice(SPOIL)(rng, content) if content else b"\n"
        path.write_bytes(content)
        bad_rows = rng.choice(("stop", "skip"))
        try:
            read(DataConfig(files=[str(path)], on_bad_row=bad_rows), want)
        except AdaptkitError as error:
            refused += 1
            assert error.where and error.fix, (number, str(error))
            assert len(str(error)) < 3000 and "Traceback" not in str(error), (number, str(error))
    count("spoilt data files, read or refused with a place", num)
    count("of them refused", refused)
    assert kind == "txt" or refused > num * 0.2
