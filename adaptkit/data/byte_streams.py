"""Open any data file as a stream of UTF-8 bytes, whatever it is packed by and written in.

    with open_utf8(path) as (stream, encoding): ...

Both are seen in the file's first bytes, not in its name: a download that a browser has unpacked keeps its
`.gz`, and spreadsheets write UTF-16 into files called .csv.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from adaptkit.errors import DataError
from adaptkit.notices import Tell

COMPRESSIONS = (".gz", ".zst", ".xz", ".bz2")
HEAD_BYTES = 4096
"""Looked at to tell the encoding."""
CHUNK_BYTES = 1 << 16
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

    Raises: while reading, EOFError, zlib.error, LZMAError or an OSError without a number where the packed
        data is cut or damaged.
    """
    with path.open("rb") as raw:
        head = raw.read(16)
        raw.seek(0)
        for begins, unpack in _UNPACKERS:
            if head.startswith(begins):
                with unpack(raw) as stream:
                    yield stream
                return
        yield raw


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


class _ZstdStream(io.RawIOBase):
    """Zstandard frames as a readable stream that raises where a frame is cut; the library's own just ends."""

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._pending, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._pending and not (chunk := self._raw.read(CHUNK_BYTES)):
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return 0
            self._decode(self._pending or chunk)
        return _hand_out(self, buffer)

    def _decode(self, data: bytes) -> None:
        frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._frame = frame
        try:
            self._ready, self._pending = frame.decompress(data), b""
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from None
        if frame.eof:
            self._pending, self._frame = frame.unused_data, None


def _hand_out(stream: _Recoded | _ZstdStream, buffer: Any) -> int:
    """Move what a stream has ready into a reader's buffer; the number of bytes."""
    size = min(len(buffer), len(stream._ready))
    buffer[:size], stream._ready = stream._ready[:size], stream._ready[size:]
    return size


def _zstd(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_ZstdStream(raw), 1 << 20))


def _gzip(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, gzip.open(raw))


def _xz(raw: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, lzma.open(raw))


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
