"""Writing files and folders whole or not at all, and saying so when the disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from adaptkit.errors import AdaptkitError, DiskFullError


@contextmanager
def writing(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Make the folder of `path`; say what a failed write needs, if that is known, and what there is."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except AdaptkitError:
        raise
    except Exception as error:
        if is_disk_full(error):
            need = f"need {num_bytes} bytes, " if num_bytes else ""
            what = f"disk full: {need}have {_free_bytes(path)}"
            fix = "free some space and run the same command again"
            raise DiskFullError(what, where=str(path), fix=fix) from None
        if not isinstance(error, OSError):
            raise
        what = f"cannot be written: {error.strerror}"
        raise AdaptkitError(what, where=str(path), fix="choose a --root that you may write to") from None


def is_disk_full(error: Exception) -> bool:
    """Whatever a library makes of it: safetensors raises an error of its own without a number."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or "No space left" in str(error)


def _free_bytes(path: Path) -> int:
    folder = next(folder for folder in path.resolve().parents if folder.exists())
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
        num_bytes: what will be written, for the message about a full disk.
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
        num_bytes: what will be written, for the message about a full disk.
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
