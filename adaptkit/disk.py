"""Writing files and folders whole or not at all, and saying so when the disk is full."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG

from adaptkit.errors import AdaptkitError, DiskFullError, first_line

ASKED_FROM = 1 << 20
"""Bytes; what is smaller is written without a look at the room."""
_CUT_BY_NUMPY = re.compile(r"\d+ requested and \d+ written")
_SAYINGS = ("No space left", "File too large", "Disk quota exceeded")

_TEMPORARY = re.compile(r"\..+\.(\d+)\.(tmp|old)")
"""The names that files and folders have while they are written: they hold the writer's process id."""
QUIET = 3600.0
"""Seconds without a write after which a temporary folder is left behind, whoever has its process id now."""


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders that a killed process left here; those of living processes are not."""
    left: list[Path] = []
    for place, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            match = _TEMPORARY.fullmatch(name)
            if match and _is_left(Path(place, name), int(match[1])):
                left.append(Path(place, name))
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]
    return sorted(left)


def _is_left(path: Path, pid: int) -> bool:
    """Whether nobody writes it: its process is gone, and no other machine has written to it lately."""
    if pid != os.getpid() and Path(f"/proc/{pid}").exists():
        return False
    if path.parent.name != "export":  # the lock of a run does not keep two from exporting its model
        return True
    return time.time() - max(_touched(entry) for entry in (path, *path.rglob("*"))) > QUIET


def _touched(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what is linked counts nothing."""
    entries = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    total = 0
    for entry in entries:
        try:
            status = entry.lstat()
        except FileNotFoundError:  # it went away meanwhile
            continue
        total += status.st_size if S_ISREG(status.st_mode) else 0
    return total


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder; what is not there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def size_in_words(num_bytes: float) -> str:
    """`1.2 GB`, for people."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


@contextmanager
def writing(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Make the folder of `path`; say what a failed write needs, if that is known, and what there is.

    Where a large need is known and there is less room, nothing is begun.
    Raises: DiskFullError; AdaptkitError for what cannot be written for another reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if num_bytes >= ASKED_FROM and num_bytes > _free_bytes(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except AdaptkitError:
        raise
    except Exception as error:
        if full := disk_full(error, path, num_bytes):
            raise full from None
        if not isinstance(error, OSError):
            raise
        what = f"cannot be written: {error.strerror or first_line(error)}"
        raise AdaptkitError(what, where=str(path), fix="choose a --root that you may write to") from None


def disk_full(error: BaseException, path: Path | None = None, num_bytes: int = 0) -> DiskFullError | None:
    """The error that says where there is no space, what is needed and what there is; None for another error.

    Args:
        path: what was written; the file that the error names, where it is not known.
        num_bytes: what it needs; 0 where that is not known.
    """
    if not is_disk_full(error):
        return None
    named = getattr(error, "filename", None)
    if path is None and isinstance(named, str):
        path = Path(named)
    need = f"needs {num_bytes} bytes, " if num_bytes else ""
    have = f"has {_free_bytes(path or Path.cwd() / 'x')} bytes"
    fix = "free some space and run the same command again"
    where = str(path) if path is not None else str(Path.cwd())
    return DiskFullError(f"no space: {need}{have}", where=where, fix=fix)


def is_disk_full(error: BaseException) -> bool:
    """Whatever a library makes of it: safetensors, tokenizers and numpy raise errors without a number."""
    number, text = getattr(error, "errno", None), str(error)
    if number is None and isinstance(error, OSError) and _CUT_BY_NUMPY.fullmatch(text):
        return True
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or any(words in text for words in _SAYINGS)


def allocate(path: Path) -> None:
    """Take the room for a file of its present size, which may be sparse, before it is written through a map.

    A map that meets a full disk kills the process by a signal (SIGBUS).
    Raises: OSError where there is not so much room.
    """
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _free_bytes(path: Path) -> int:
    folder = next(folder for folder in path.absolute().parents if folder.exists())
    return shutil.disk_usage(folder).free


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: Path, num_bytes: int = 0) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` when the block ends well.

    A crash leaves the old file or the new one, never half of either.

    Args:
        num_bytes: what will be written, if it is known: asked for before anything is.
    Raises: DiskFullError or AdaptkitError, with the old file untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path, num_bytes):
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def whole_folder(folder: Path, *, num_bytes: int = 0, replace: bool = True) -> Iterator[Path]:
    """A temporary folder to fill, which takes the place of `folder` when the block ends well.

    A crash leaves the old folder or the new one, never half of either; power loss too, for all is on the disk
    before the folder takes its name, and the name before this returns.

    Args:
        num_bytes: what will be written, if it is known: asked for before anything is.
        replace: put it in place of an older folder; otherwise one that is there by then stays, as the work of
            another process that made the same.
    Raises: DiskFullError or AdaptkitError, with the old folder untouched.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with writing(folder, num_bytes):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            open_as_folder(temporary)
            for path in [*temporary.rglob("*"), temporary]:
                _sync(path)
            _take_place(temporary, folder, replace)
            _sync(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def open_as_folder(folder: Path) -> None:
    """Let those who may read and write a folder do so with the files in it.

    safetensors writes files that only their owner can read, wherever they lie.
    """
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            match_folder(path)


def match_folder(file: Path) -> None:
    """Give a file the permissions of its folder; a file of somebody else's stays as it is."""
    with suppress(PermissionError):
        file.chmod(file.parent.stat().st_mode & 0o666)


def _take_place(temporary: Path, folder: Path, replace: bool) -> None:
    if not replace:
        try:
            os.rename(temporary, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    if folder.exists():
        os.rename(folder, old)
    os.rename(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
