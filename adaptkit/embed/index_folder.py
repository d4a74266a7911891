"""The folder of an index: whole versions, never changed, and one small file that says which of them answers.

    index/
      current.json       {"version": "v-0f3a5c7e9b1d"}
      v-0f3a5c7e9b1d/    index.json, documents.jsonl, vectors.npy or index.faiss, canaries.json; after updates
                         also added.jsonl, added.npy, gone.json
      v-7d2b90aa41c6/    the one before, until it is dropped
      next-b2a66ad5f2c1/ an encoding that a migration or an update has begun

Replacing that file is one step, so a reader meets one version or the other, whole. An index of an earlier
release has its files in the folder itself: they are a version too.
"""

from __future__ import annotations

import re
from pathlib import Path

from adaptkit.disk import remove
from adaptkit.errors import DataError
from adaptkit.run import read_sealed, write_sealed

INFO, POINTER = "index.json", "current.json"
FAISS, EXACT = "index.faiss", "vectors.npy"
ADDED, ADDED_DOCUMENTS, GONE = "added.npy", "added.jsonl", "gone.json"
"""What an update writes beside the files of the version before, which it links to."""
FILES = (INFO, "ids.jsonl", EXACT, FAISS, "canaries.json")
"""Of an index of an earlier release."""
_VERSION, _NEXT = re.compile(r"v-[0-9a-f]{12}"), re.compile(r"next-[0-9a-f]{12}")
_TEMPORARY = re.compile(r"\..+\.(tmp|old)")


def current(folder: Path) -> Path:
    """Where the version lies that answers.

    Raises: DataError for a folder that holds no index.
    """
    if (folder / POINTER).exists():
        return folder / str(read_sealed(folder / POINTER)["version"])
    if (folder / INFO).exists():
        return folder
    raise DataError(
        "holds no index", where=str(folder), fix="give the folder that `adaptkit embed index` wrote"
    )


def switch(folder: Path, version: Path) -> None:
    """Let a version of an index answer from now on, in one step.

    Args:
        version: a folder of `versions(folder)`.
    """
    write_sealed(folder / POINTER, {"version": version.relative_to(folder).as_posix()})


def versions(folder: Path) -> list[Path]:
    """The whole versions that an index holds."""
    found = [path for path in sorted(folder.glob("v-*")) if _VERSION.fullmatch(path.name)]
    return [path for path in [folder, *found] if (path / INFO).exists()]


def version_folder(folder: Path, digest: str) -> Path:
    return folder / f"v-{digest[:12]}"


def next_folder(folder: Path, digest: str) -> Path:
    """Where documents are encoded for the next version."""
    return folder / f"next-{digest[:12]}"


def drop_others(folder: Path) -> int:
    """Delete every version but the one that answers, and what unfinished migrations encoded.

    Returns: how many versions are gone. Whoever reads one of them holds its files until it lets go of them.
    """
    kept = current(folder)
    gone = [path for path in versions(folder) if path != kept]
    for path in gone:
        if path == folder:
            (folder / INFO).unlink()  # first: without it the other files are no version
        else:
            remove(path)
    if kept != folder:
        for name in FILES:
            remove(folder / name)
    for path in folder.glob("next-*"):
        if _NEXT.fullmatch(path.name):
            remove(path)
    return len(gone)


def check_replaceable(folder: Path) -> None:
    """Raises: DataError for a folder with files that no index has: they would be gone."""
    if not folder.is_dir():
        return
    patterns = (_VERSION, _NEXT, _TEMPORARY)
    for name in sorted(path.name for path in folder.iterdir()):
        if name not in (*FILES, POINTER) and not any(pattern.fullmatch(name) for pattern in patterns):
            what = f"holds {name}, which is no part of an index"
            raise DataError(what, where=str(folder), fix="choose another --out")
