"""Data files that are bombs, pipes, loops or growing: one sentence, within bounds of memory and time."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import random
import string
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from adaptkit.data import dedup, words
from adaptkit.data.files import find_files, records, shown
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import DataError

MIB = 1 << 20
MEMORY_BYTES = 512 * MIB
CPU_S = 60
"""Of the processor, imports included; each takes a few seconds."""
BLOCK = b"0" * (1 << 22)
CHILD = f"""
import resource, sys
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_S}, {CPU_S}))
try:
    read(DataConfig(files=sys.argv[1:]))
except DataError as error:
    print(error.what)
# the peak of resource.getrusage is at least that of the parent
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) * 1024)
"""


def _zst(path: Path, pieces: Callable[[], list[bytes]]) -> None:
    with path.open("wb") as raw, zstandard.ZstdCompressor(level=3).stream_writer(raw) as packed:
        for piece in pieces():
            packed.write(piece)


def _packed(opened: Callable[[Path], Any]) -> Callable[[Path, Callable[[], list[bytes]]], None]:
    def write(path: Path, pieces: Callable[[], list[bytes]]) -> None:
        with opened(path) as packed:
            for piece in pieces():
                packed.write(piece)

    return write


PACKERS = {
    ".zst": _zst,
    ".gz": _packed(partial(gzip.open, mode="wb", compresslevel=1)),
    ".xz": _packed(partial(lzma.open, mode="wb", preset=0)),
    ".bz2": _packed(partial(bz2.open, mode="wb", compresslevel=1)),
}
BEGINNINGS = {".jsonl": b'{"text": "', ".csv": b"text\n", ".txt": b"", ".json": b'[{"text": "'}


@pytest.mark.parametrize("layout", BEGINNINGS)
@pytest.mark.parametrize("packed", PACKERS)
def test_a_bomb_is_refused_in_little_memory(tmp_path: Path, layout: str, packed: str) -> None:
    file = tmp_path / f"bomb{layout}{packed}"
    PACKERS[packed](file, lambda: [BEGINNINGS[layout], *[BLOCK] * 36])  # 144 MiB
    _check_refused(
        file, "unpacks to more than 300 times|a line of more than|a value of more than|one text of more than"
    )


@pytest.mark.parametrize("packed", [".zst", ".xz"])
def test_a_bomb_of_many_rows_is_refused(tmp_path: Path, packed: str) -> None:
    file = tmp_path / f"bomb.jsonl{packed}"
    rows = b'{"text": "the same words again and again"}\n' * 100_000
    PACKERS[packed](file, lambda: [rows] * 4)
    _check_refused(file, "unpacks to more than 300 times|rows")


@pytest.mark.parametrize("layout", BEGINNINGS)
def test_a_plain_file_without_an_end_of_line_is_refused(tmp_path: Path, layout: str) -> None:
    file = tmp_path / f"long{layout}"
    with file.open("wb") as opened:
        opened.write(BEGINNINGS[layout])
        for _ in range(35):
            opened.write(BLOCK)
    _check_refused(file, "a line of more than|a value of more than|one text of more than")


def test_a_parquet_table_of_few_bytes_and_long_texts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "bomb.parquet"
    table = pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * 100_000), ["a" * 4 * MIB])})
    parquet.write_table(table, file)
    _check_refused(file, "rows of|unpacks to")


def _check_refused(file: Path, sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(file)], capture_output=True, text=True, timeout=10 * CPU_S
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
    said, peak = done.stdout.strip().rsplit("\n", 1)
    assert any(part in said for part in sentence.split("|")), said
    assert "\n" not in said
    assert int(peak.split()[1]) <= MEMORY_BYTES, peak


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.txt", "rows.parquet", "rows.jsonl.gz"])
def test_a_pipe_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is a named pipe, not a file"):
        read(DataConfig(files=[str(tmp_path / name)]))
    with pytest.raises(DataError, match="is a named pipe, not a file"):
        list(records(tmp_path / name))
    _write(tmp_path / "good.jsonl")
    files, ignored = find_files([str(tmp_path)])
    assert [file.name for file in files] == ["good.jsonl"] and [file.name for file in ignored] == [name]


def test_a_device_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a device, not a file"):
        read(DataConfig(files=[str(tmp_path / "rows.jsonl")]))


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "**/rows.*", "**", "d/**/*.jsonl", "*/**/**/*.jsonl"])
def test_links_in_a_circle_end(tmp_path: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "d"
    folder.mkdir()
    for name in "abcdef":
        (folder / name).symlink_to("../d")
    _write(folder / "rows.jsonl")
    start = time.monotonic()
    files, _ = find_files([pattern])
    assert [file.resolve() for file in files] == [folder / "rows.jsonl"]
    assert time.monotonic() - start < 20
    (tmp_path / "self.jsonl").symlink_to("self.jsonl")
    with pytest.raises(DataError, match="a link that leads nowhere"):
        find_files(["self.jsonl"])


def test_patterns_match_what_they_matched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "x/.hidden/d.jsonl", "x/y/[e].jsonl", ".f.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _write(tmp_path / name)
    import glob

    for pattern in (
        "**/*.jsonl",
        "x/**/*.jsonl",
        "**/y/*.jsonl",
        "**/[ab].jsonl",
        "**/[[]e].jsonl",
        "x/**/?.jsonl",
    ):
        for beginning in ("", f"{tmp_path}/", "./"):
            theirs = {Path(name) for name in glob.glob(beginning + pattern, recursive=True)}
            assert set(find_files([beginning + pattern])[0]) == theirs, pattern


@pytest.mark.parametrize("name", [b"a\xff.jsonl", "a\u2028b.jsonl".encode(), b"a\nb.jsonl", b"a\x1bb.jsonl"])
def test_a_name_that_no_message_can_hold_is_refused_on_one_line(tmp_path: Path, name: bytes) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "wb") as file:
        file.write(b'{"text": "a"}\n')
    for pattern in (os.fsdecode(path), str(tmp_path), f"{tmp_path}/*.jsonl"):
        with pytest.raises(DataError, match="has a name that") as refused:
            read(DataConfig(files=[pattern]))
        assert refused.value.where is not None
        refused.value.where.encode()
        assert len(refused.value.where.splitlines()) == 1
    assert shown("gr\u00fc\u00dfe \u4e2d\u00a0.jsonl") == "gr\u00fc\u00dfe \u4e2d\u00a0.jsonl"


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path, packed: bool) -> None:
    file = tmp_path / ("rows.jsonl.gz" if packed else "rows.jsonl")
    rng = random.Random(0)
    line = "".join(rng.choice(string.printable[:62]) for _ in range(1000))
    data = "".join(json.dumps({"text": line, "n": n}) + "\n" for n in range(5000)).encode()
    file.write_bytes(gzip.compress(data, 0) if packed else data)
    stream = records(file)
    next(stream)
    with pytest.raises(DataError, match="changed while it was read"):
        for _ in stream:
            with file.open("ab") as more:
                more.write(b'{"text": "more"}\n')
    file.write_bytes(gzip.compress(data, 0) if packed else data)
    stream = records(file)
    next(stream)
    os.truncate(file, 5000)
    with pytest.raises(DataError, match="changed while it was read"):
        list(stream)


def _write(path: Path) -> None:
    path.write_text('{"text": "a text"}\n')


LONG = 100_000
RUNS = {
    "one letter": "a" * LONG,
    "letters": "".join(random.Random(1).choices(string.ascii_letters, k=LONG)),
    "Han": "\u4e2d" * LONG,
    "blanks": "\u00e9" + " " * LONG + "y",
    "marks": "a" + "\u0301" * LONG,
    "brackets": "<|" * (LONG // 2),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_long_row_without_blanks_takes_time_in_proportion(tmp_path: Path, name: str) -> None:
    text = RUNS[name]
    start = time.process_time()
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text + str(number)}) + "\n" for number in range(3)))
    dataset = read(DataConfig(files=[str(file)]))
    dedup.deduplicate(dataset)
    for look in (words.words, words.word_starts, words.num_words, words.without_han_blanks, words.fold):
        look(text)
    words.first_words(text, 50)
    for kind in ("bpe", "unigram", "wordpiece"):
        train_tokenizer([text, "a few words more"], kind, 300)
    assert time.process_time() - start < 30


FLIPPED = """
import sys
from pathlib import Path
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError
file = Path(sys.argv[1])
raw, refused = file.read_bytes(), 0
for at in range(4, len(raw)):
    for bit in (1, 16):
        file.write_bytes(raw[:at] + bytes([raw[at] ^ bit]) + raw[at + 1 :])
        try:
            read(DataConfig(files=[str(file)]))
        except DataError:
            refused += 1
print("refused", refused)
"""


def test_no_flipped_bit_of_a_parquet_table_ends_the_process(tmp_path: Path) -> None:
    """pyarrow 26 calls abort() when it is asked about a column whose facts are damaged; so a child reads."""
    file = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": ["a"] * 12}), file)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FLIPPED, str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout.split()[-1]) > 100


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_wide_text_that_is_cut_in_a_character_is_refused_at_its_place(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "cut.txt"
    file.write_bytes("\ufeffone text of some length\n\nanother".encode(encoding)[:-1])
    with pytest.raises(DataError, match="truncated data") as caught:
        read(DataConfig(files=[str(file)]))
    assert caught.value.where.startswith(str(file)) and caught.value.fix
