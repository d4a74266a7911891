"""A study and all of its runs as one file, to keep or to take elsewhere.

    archive("runs/tickets-5e6f7a8b", "tickets.tar")      # every digest is checked on the way
    unpack("tickets.tar", "elsewhere/runs")              # and again

The file is a plain tar: first `study.index.json`, sealed, with the name, size and sha256 of every file, then
those files. Nothing but plain files with the names and digests of that index is ever unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

import pydantic

from adaptkit.compare.kept_runs import kept_run
from adaptkit.compare.workspace import is_workspace, runs_needed
from adaptkit.disk import remove, size_in_words, whole_file, writing
from adaptkit.errors import AdaptkitError, DataError
from adaptkit.run import Run
from adaptkit.run_lock import hold
from adaptkit.run_record import Record
from adaptkit.seal import WRITTEN, check, file_digest, sealed, unsealed

INDEX = "study.index.json"
MAX_INDEX_BYTES = 64 * 2**20
BLOCK = 2**20
LEFT_OUT = frozenset({"checkpoints"})
"""What only a run that has not ended needs."""
_NAME = re.compile(r"\w[\w.+=@-]{0,140}")


class FileEntry(Record):
    """One file of an archive."""

    num_bytes: int = pydantic.Field(ge=0)
    sha256: str


class ArchiveIndex(Record):
    """What an archive says of itself."""

    format: Literal[1] = 1
    study: str
    runs: dict[str, str]
    """Name of each run, the study's folder among them -> its identity."""
    files: dict[str, FileEntry]
    """`<run>/<name>` -> size and digest."""


@dataclass(frozen=True)
class Archived:
    """What was packed or unpacked; `already_there` counts the runs that were there, the same."""

    study: Path
    num_runs: int
    num_files: int
    num_bytes: int
    already_there: int = 0


def archive(study: Path, file: Path) -> Archived:
    """Write a study and every run that its records name into one file.

    Raises: DataError for a folder that is no study, for a damaged or missing file, and for a link;
        AdaptkitError for a study that a process is at.
    """
    if not is_workspace(study):
        raise DataError(
            "this is no study", where=str(study), fix="name the folder of a study: runs/NAME-1a2b3c4d"
        )
    hold(Run(study))
    root = study.absolute().parent
    names = [study.name, *sorted(_with_bases(root, runs_needed(study)))]
    paths: dict[str, Path] = {}
    for name in names:
        _check_run(root / name)
        paths |= {path.relative_to(root).as_posix(): path for path in _files(root / name)}
    index = ArchiveIndex(
        study=study.name,
        runs={name: str(Run(root / name).manifest().get("identity", "")) for name in names},
        files={
            name: FileEntry(num_bytes=path.stat().st_size, sha256=file_digest(path))
            for name, path in paths.items()
        },
    )
    num_bytes = sum(entry.num_bytes for entry in index.files.values())
    with whole_file(file, num_bytes) as temporary, tarfile.open(temporary, "w") as tar:
        text = json.dumps(sealed(index.model_dump(mode="json")), indent=1).encode()
        tar.addfile(_entry(INDEX, len(text)), BytesIO(text))
        for name, path in paths.items():
            with path.open("rb") as content:
                tar.addfile(_entry(name, index.files[name].num_bytes), content)
    return Archived(study, len(names) - 1, len(paths), num_bytes)


def _with_bases(root: Path, names: set[str]) -> set[str]:
    """The runs, and those whose models they stand on."""
    new = set(names)
    while new:
        standing = {
            base for name in new if (root / name).is_dir() for base in kept_run(root / name).stands_on
        }
        new = standing - names
        names = names | new
    return names


def _check_run(folder: Path) -> None:
    """Hold the files of a run against its digests; earlier releases list models of trials that are gone."""
    run = Run(folder)
    if not run.manifest_path.is_file():
        fix = "run the same `adaptkit compare` again, which makes it anew"
        raise DataError("this run is missing, and the study's records name it", where=str(folder), fix=fix)
    parts = {name.partition("/")[0] for name in run.manifest().get(WRITTEN, {})}
    for part in parts if run.model.exists() else parts - {run.model.name}:
        check(folder / part)


def _files(run: Path) -> Iterator[Path]:
    """The plain files of a run, without checkpoints and what is hidden."""
    for path in sorted(run.rglob("*")):
        parts = path.relative_to(run).parts
        if parts[0] in LEFT_OUT or any(part.startswith(".") for part in parts):
            continue
        if path.is_symlink():
            fix = "put a copy of the file in its place"
            raise DataError("this is a link, and an archive holds files", where=str(path), fix=fix)
        if path.is_file():
            yield path


def _entry(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info


def unpack(file: Path, root: Path) -> Archived:
    """Unpack an archived study below `root`; runs that are there, the same, are left as they are.

    Raises: DataError for a file that is no archive or damaged, for a name that leads out, a link or a device,
        and where another run has the name of one of these; then nothing is unpacked.
    """
    try:
        with tarfile.open(file, "r:") as tar:
            index = _read_index(tar, file)
            there = {name for name in index.runs if _is_there(root / name, name, index)}
            num_bytes = sum(entry.num_bytes for entry in index.files.values())
            _check_room(root, num_bytes)
            with _temporary_folder(root, index) as temporary, writing(temporary, num_bytes):
                _unpack_files(tar, index, temporary, file)
                for name in sorted(set(index.runs) - there, key=lambda name: (name == index.study, name)):
                    (temporary / name).rename(root / name)
    except (tarfile.TarError, EOFError) as error:
        raise _unfit(f"cannot be read as a tar file: {error}", file) from None
    except FileNotFoundError:
        raise DataError(
            "no such file", where=str(file), fix="name what `adaptkit runs export` wrote"
        ) from None
    return Archived(root / index.study, len(index.runs) - 1, len(index.files), num_bytes, len(there))


@contextmanager
def _temporary_folder(root: Path, index: ArchiveIndex) -> Iterator[Path]:
    """A folder that is gone at the end; of a kill it is a leftover, which `adaptkit runs prune` knows."""
    folder = root / f".{index.study}.{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        remove(folder)


def _unfit(what: str, file: Path, name: str = "") -> DataError:
    fix = "nothing was unpacked; write it again with `adaptkit runs export`, and only trust whom you know"
    return DataError(what, where=f"{file}: {name[:200]}" if name else str(file), fix=fix)


def _read_index(tar: tarfile.TarFile, file: Path) -> ArchiveIndex:
    first = tar.next()
    if first is None or first.name != INDEX or not first.isreg() or first.size > MAX_INDEX_BYTES:
        raise _unfit(f"is no archive of a study: {INDEX} does not come first", file)
    try:
        value: Any = json.loads(_content(tar, first).read())
        index = ArchiveIndex.model_validate(unsealed(value, file))
    except (ValueError, RecursionError) as error:
        raise _unfit(f"its {INDEX} does not fit: {str(error).splitlines()[0]}", file) from None
    if index.study not in index.runs:
        raise _unfit("its index does not name its study", file)
    for name in index.runs:
        if not _NAME.fullmatch(name):
            raise _unfit("this cannot name a run", file, name)
    for name in index.files:
        parts = PurePosixPath(name).parts
        hidden = any(part.startswith(".") for part in parts)
        if len(parts) < 2 or parts[0] not in index.runs or hidden or "\\" in name or "/".join(parts) != name:
            raise _unfit("this name leads out of the study's runs", file, name)
    return index


def _is_there(folder: Path, name: str, index: ArchiveIndex) -> bool:
    """Whether a run is there already, the same.

    Raises: DataError where another one has its name.
    """
    if not folder.exists() and not folder.is_symlink():
        return False
    files = {entry: known for entry, known in index.files.items() if entry.startswith(f"{name}/")}
    identity = Run(folder).manifest().get("identity", "")
    same = identity == index.runs[name] and all(
        (folder.parent / entry).is_file() and file_digest(folder.parent / entry) == known.sha256
        for entry, known in files.items()
    )
    if not same:
        fix = "nothing was unpacked: import under another --root, or delete that run"
        raise DataError("another run with this name is there already", where=str(folder), fix=fix)
    return True


def _check_room(root: Path, num_bytes: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if num_bytes > free:
        what = f"too little room: need {size_in_words(num_bytes)}, have {size_in_words(free)}"
        raise AdaptkitError(what, where=str(root), fix="free some space, or choose another --root")


def _unpack_files(tar: tarfile.TarFile, index: ArchiveIndex, folder: Path, file: Path) -> None:
    """Write each file of the index below a folder, and hold it against its digest."""
    left = dict(index.files)
    while (member := tar.next()) is not None:
        if member.name not in left:
            raise _unfit("this is not in its index, or stands in it twice", file, member.name)
        known = left.pop(member.name)
        if not member.isreg() or member.issparse():
            raise _unfit("this is a link, a device or a folder, not a plain file", file, member.name)
        if member.size != known.num_bytes:
            raise _unfit(f"this has {member.size} bytes, not {known.num_bytes}", file, member.name)
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as output:
            if _copy(_content(tar, member), output) != known.sha256:
                raise _unfit("this file is damaged: its sha256 is another one", file, member.name)
    if left:
        raise _unfit("this file is missing, and stands in its index", file, next(iter(left)))


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None, "a plain file"
    return content


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy all bytes; returns their sha256."""
    digest = hashlib.sha256()
    while block := source.read(BLOCK):
        digest.update(block)
        target.write(block)
    return digest.hexdigest()
