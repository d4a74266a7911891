"""Open any data file as a stream of UTF-8 bytes, whatever it is packed by and written in.

    with open_utf8(path) as (stream, encoding): ...

Both are seen in the file's first bytes, not in its name: a download that a browser has unpacked keeps its
`.gz`, and spreadsheets write UTF-16 into files called .csv.

What is read is bounded: a file as long as it was when it was opened, and of a packed one no more than can be
packed text.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from adaptkit.errors import DataError
from adaptkit.notices import Tell
from adaptkit.weight_files import kind_of_entry

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
HEAD_BYTES = 4096
"""Looked at to tell the encoding."""
CHUNK_BYTES = 1 << 16
PIECE_BYTES = 1 << 10
"""Of a packed file given to a decompressor at once: zstandard makes at most 32 MiB of so many, xz 8."""
MAX_RATIO, FREE_BYTES = 300, 1 << 23
"""A packed file may grow to so many times its size, or to so many bytes; repeated log lines reach 100."""
MAX_XZ_BYTES = 1 << 28
"""Memory that an xz stream may ask for: `xz -9` asks for 65 MiB."""
MIN_ZERO_SHARE = 0.05
"""Of the 16-bit units: with fewer zero bytes, all on one side, text without a mark is not taken for
UTF-16."""

_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_PAGES = (b"<!DOCTYPE", b"<!doctype", b"<html")
# first bytes of a file that is no text and no compressed text -> what it is, and what to do
_FOREIGN = (
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Office file", "save the sheet as CSV"),
    (b"%PDF-", "a PDF", "export its text to a .txt file"),
    (b"PAR1", "a parquet table", "name it .parquet"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the data", "fetch the data with `git lfs pull`"),
    *((begins, "a web page", "download the file itself") for begins in _PAGES),
)


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked.

    Raises: DataError for what is no plain file; while reading, DataError for a file that changes meanwhile or
        unpacks to more than text can; EOFError, zlib.error or an OSError without a number where packed data
        is cut or damaged.
    """
    with open(path, "rb", buffering=0, opener=_open_without_waiting) as file:
        held = os.fstat(file.fileno())
        if not stat.S_ISREG(held.st_mode):
            fix = "write what it gives into a file, and name that"
            raise DataError(f"is {kind_of_entry(held.st_mode)}, not a file", where=str(path), fix=fix)
        raw = cast(BinaryIO, io.BufferedReader(_AsItWas(file, held.st_size, path), 1 << 17))
        head = raw.read(16)
        raw.seek(0)
        for begins, unpack in _UNPACKERS:
            if head.startswith(begins):
                with unpack(raw) as stream:
                    measured = _Measured(stream, max(FREE_BYTES, MAX_RATIO * held.st_size), path)
                    yield cast(BinaryIO, io.BufferedReader(measured, 1 << 20))
                return
        yield raw


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a named pipe too at once, although nobody writes to it; files know no waiting."""
    return os.open(path, flags | os.O_NONBLOCK)


@contextmanager
def open_utf8(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """The file's text as UTF-8 bytes without a byte order mark, and the encoding that it is written in.

    Raises: DataError for a file that is no text; while reading, what `open_bytes` raises, and EOFError for
        16-bit text that ends within a character.
    """
    with open_bytes(path) as stream:
        head = _read(stream, HEAD_BYTES)
    for begins, what, fix in _FOREIGN:
        if head.lstrip().startswith(begins) and not (begins in _PAGES and ".txt" in path.suffixes):
            raise DataError(f"is {what}", where=str(path), fix=fix)
    mark, encoding = encoding_of(head)
    with open_bytes(path) as stream:
        _read(stream, len(mark))
        if encoding != "utf-8":
            stream = cast(BinaryIO, io.BufferedReader(_Recoded(stream, encoding), 1 << 20))
        yield stream, encoding


def tell_encoding(path: Path, encoding: str, tell: Tell) -> None:
    """Say what a file is written in, if it is not UTF-8."""
    if encoding != "utf-8":
        tell(f"{path}: is written in {encoding.upper()}")


def read_head(path: Path, num_bytes: int) -> tuple[str, bool]:
    """The first text of a file, bytes that are no UTF-8 as lone surrogates, and whether that is all of it."""
    with open_utf8(path) as (stream, _):
        raw = _read(stream, num_bytes)
        whole = not stream.read(1)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    return decoder.decode(raw, whole), whole


def encoding_of(head: bytes) -> tuple[bytes, str]:
    """(byte order mark, encoding) of a text that begins with `head`.

    Without a mark it is UTF-8, unless every second byte is often zero, which only 16-bit text has.
    """
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return mark, encoding
    num_units = len(head) // 2
    zeros = {"utf-16-be": head[: 2 * num_units : 2].count(0), "utf-16-le": head[1::2].count(0)}
    likely, other = sorted(zeros, key=zeros.__getitem__, reverse=True)
    if zeros[likely] <= MIN_ZERO_SHARE * num_units or zeros[other] > 0.1 * zeros[likely]:
        return b"", "utf-8"
    try:
        codecs.getincrementaldecoder(likely)().decode(head)
    except UnicodeDecodeError:
        return b"", "utf-8"
    return b"", likely


def _read(stream: BinaryIO, num_bytes: int) -> bytes:
    """So many bytes, or all there are."""
    parts: list[bytes] = []
    while num_bytes > 0 and (part := stream.read(num_bytes)):
        parts.append(part)
        num_bytes -= len(part)
    return b"".join(parts)


class _Recoded(io.RawIOBase):
    """16- or 32-bit text as UTF-8. Half a surrogate pair becomes bytes that are no UTF-8, for its own row to
    fail."""

    def __init__(self, raw: BinaryIO, encoding: str):
        self._raw, self._ready = raw, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            chunk = self._raw.read(CHUNK_BYTES)
            try:
                text = self._decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                raise EOFError(f"{error.reason} in {error.encoding} text") from None
            if not chunk and not text:
                return 0
            self._ready = text.encode("utf-8", "surrogatepass")
        return _hand_out(self, buffer)


class _AsItWas(io.RawIOBase):
    """A file up to the size that it had when it was opened; at its end it must still have it."""

    def __init__(self, raw: io.FileIO, size: int, path: Path):
        self._raw, self._size, self._path = raw, size, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._raw.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            return self._raw.seek(self._size + offset)
        return self._raw.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        left = self._size - self._raw.tell()
        number = self._raw.readinto(memoryview(buffer)[: max(0, left)]) if left > 0 else 0
        size = os.fstat(self._raw.fileno()).st_size
        if not number and len(buffer) and size != self._size:
            what = f"changed while it was read: it had {self._size:,} bytes, and has {size:,}"
            fix = "wait until what writes it is done, or give a copy"
            raise DataError(what, where=str(self._path), fix=fix)
        return number or 0


class _Measured(io.RawIOBase):
    """Unpacked data, up to a number of bytes."""

    def __init__(self, raw: BinaryIO, most: int, path: Path):
        self._raw, self._most, self._path, self._number = raw, most, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._raw.read(min(len(buffer), CHUNK_BYTES))
        self._number += len(data)
        if self._number > self._most:
            what = f"unpacks to more than {MAX_RATIO} times its size, as no text does"
            fix = "look at what is in it; if it is right, unpack it and give the plain file"
            raise DataError(what, where=str(self._path), fix=fix)
        buffer[: len(data)] = data
        return len(data)


class _Frames(io.RawIOBase):
    """Frames of zstandard or xz as a readable stream that raises where one is cut.

    The libraries' own streams just end there, and ask for as much memory as the data wants.
    """

    def __init__(self, raw: BinaryIO, start: Callable[[], Any], padding: bytes = b""):
        self._raw, self._start, self._padding = raw, start, padding
        self._frame: Any = None
        self._pending, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._frame is None:
                self._pending = self._pending.lstrip(self._padding) if self._padding else self._pending
            if not self._pending:
                self._pending = self._raw.read(CHUNK_BYTES)
                if not self._pending:
                    break
                continue
            self._decode()
        if not self._ready and self._frame is not None:
            raise EOFError("the last frame is incomplete")
        return _hand_out(self, buffer)

    def _decode(self) -> None:
        frame = self._frame or self._start()
        piece, self._pending = self._pending[:PIECE_BYTES], self._pending[PIECE_BYTES:]
        self._frame = frame
        try:
            self._ready = frame.decompress(piece)
        except (zstandard.ZstdError, lzma.LZMAError) as error:
            raise EOFError(str(error)) from None
        if frame.eof:
            self._pending, self._frame = frame.unused_data + self._pending, None


def _hand_out(stream: _Recoded | _Frames, buffer: Any) -> int:
    """Move what a stream has ready into a reader's buffer; the number of bytes."""
    size = min(len(buffer), len(stream._ready))
    buffer[:size], stream._ready = stream._ready[:size], stream._ready[size:]
    return size


def _zstd(raw: BinaryIO) -> BinaryIO:
    frames = _Frames(raw, lambda: zstandard.ZstdDecompressor().decompressobj())
    return cast(BinaryIO, io.BufferedReader(frames, 1 << 20))


def _gzip(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.open(raw))


def _xz(raw: BinaryIO) -> BinaryIO:
    frames = _Frames(raw, lambda: lzma.LZMADecompressor(memlimit=MAX_XZ_BYTES), b"\0")
    return cast(BinaryIO, io.BufferedReader(frames, 1 << 20))


def _bz2(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, bz2.open(raw))


# first bytes of packed files; bzip2's are followed by those of its first block, or of its end
_UNPACKERS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", _gzip),
    (b"\x28\xb5\x2f\xfd", _zstd),
    (b"\xfd7zXZ\0", _xz),
    (
        tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
        _bz2,
    ),
)
