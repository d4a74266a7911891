"""A disk that fills up while anything is written: no signal, no defect, and the old file untouched.

Each writer runs in a process of its own whose files may not grow beyond a few KiB, which is to the writer
what a full disk is. Maps of memory, which a full disk ends by a signal, are tried on a small disk where one
can be had.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from adaptkit.cli.console import _explain
from adaptkit.data.readers import DataConfig, read
from adaptkit.data.shards import write_shards
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.disk import is_disk_full, whole_file, whole_folder
from adaptkit.embed import encoding
from adaptkit.embed.stored_documents import Document, write_documents
from adaptkit.errors import EXIT_USER, DiskFullError
from adaptkit.run import append_jsonl, write_jsonl
from adaptkit.trainer.checkpoint import write_safetensors

LIMIT = 4096
TEXT = "words of a domain " * 20_000


def _vectors_part(folder: Path) -> None:
    documents = [Document(f"{number}", "a", spans=((0, 1),)) for number in range(100)]
    encoding._write_part(folder / "000000.npy", documents, np.zeros((100, 64), np.float32))


def _vectors(folder: Path) -> None:
    part = folder / "000000.npy"
    encoding._join_npy(folder, [part], 100, 64)


def _table_of_vectors(folder: Path) -> None:
    encoding._join_parquet(folder, [folder.parent / "part.npy"], 5000, 1)


def _shards(folder: Path) -> None:
    file = folder.parent / "text.txt"
    tokenizer = train_tokenizer(["a text"], "bpe", 300)
    write_shards(read(DataConfig(files=[str(file)])), tokenizer, folder / "shards")


def _tokenizer(folder: Path) -> None:
    with whole_folder(folder / "tokenizer") as target:
        train_tokenizer([TEXT], "bpe", 400).save_pretrained(target)


def _bare_tokenizer(folder: Path) -> None:
    train_tokenizer([TEXT], "bpe", 400).save_pretrained(folder)


def _tensors(folder: Path) -> None:
    import torch

    with whole_folder(folder / "checkpoint") as target:
        write_safetensors(target / "model.safetensors", {"w": torch.zeros(10_000)})


def _array(folder: Path) -> None:
    with whole_file(folder / "x") as temporary, temporary.open("wb") as file:
        np.zeros(10_000).tofile(file)


def _rows(folder: Path) -> None:
    write_jsonl(folder / "rows.jsonl", [{"text": TEXT}])


def _one_row(folder: Path) -> None:
    append_jsonl(folder / "rows.jsonl", {"text": TEXT})


WRITERS: list[Callable[[Path], None]] = [
    _vectors_part,
    _vectors,
    _table_of_vectors,
    _shards,
    _tokenizer,
    _bare_tokenizer,
    _tensors,
    _array,
    _rows,
    _one_row,
]


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_writer_says_that_there_is_no_space(tmp_path: Path, writer: Callable[[Path], None]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "text.txt").write_text(TEXT)
    np.save(tmp_path / "part.npy", np.random.default_rng(0).random((5000, 1), np.float32))
    documents = (Document(f"document {number}", "how it begins", spans=((0, 13),)) for number in range(5000))
    write_documents(tmp_path / "part.jsonl", documents)
    report = tmp_path / "report.txt"
    report.touch()
    child = os.fork()
    if not child:
        _limited(writer, folder, report)
    _, status = os.waitpid(child, 0)
    words = report.read_text()
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXIT_USER, words
    assert "no space: " in words and " bytes" in words and "defect" not in words
    left = [path for path in folder.rglob("*") if ".tmp" in path.name]
    assert not left


def _limited(writer: Callable[[Path], None], folder: Path, report: Path) -> None:
    """What a command does with the error; never returns."""
    code = 70
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
        try:
            writer(folder)
            words = "nothing was raised"
        except Exception as error:
            problem, code = _explain(error)
            words = str(problem) if is_disk_full(error) or isinstance(error, DiskFullError) else repr(error)
        report.write_text(words[:LIMIT])
    except BaseException:
        report.write_text(traceback.format_exc()[-LIMIT:])
    finally:
        os._exit(code)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small disk can be had here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_map_on_a_full_disk_is_no_signal(small_disk: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "part.npy", np.ones((2000, 64), np.float32))
    for patch in ("", "encoding.whole_file = lambda path, size: real(path)"):  # also where the room was there
        script = f"""
from pathlib import Path
from adaptkit.embed import encoding
real = encoding.whole_file
{patch}
from adaptkit.errors import DiskFullError
try:
    encoding._join_npy(Path({str(small_disk)!r}), [Path({str(tmp_path / "part.npy")!r})], 2000, 64)
except DiskFullError as error:
    print(error.what)
"""
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == 0, (done.returncode, done.stderr)
        assert done.stdout.startswith("no space: ")
        assert list(small_disk.iterdir()) == []


def test_room_is_asked_for_before_anything_is_written(tmp_path: Path) -> None:
    for writer in (whole_file, whole_folder):
        need = 10**17
        with (
            pytest.raises(DiskFullError, match=rf"no space: needs {need} bytes, has \d+ bytes") as no,
            writer(tmp_path / "x", num_bytes=need),
        ):
            pytest.fail("begun")
        assert no.value.where == str(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
