"""Digests: of what a run leaves, checked before anything reads it; and of records, within themselves.

    manifest["files_written"] = digests(run_folder)     # when the run ends
    check(run_folder / "model")                 # DataError: model/model.safetensors is damaged

    write_json(path, sealed(value)); unsealed(read_json(path), path)

A file of a finished run is held against the digest in the run's manifest, once per process and state of the
file. Files that come later (exports, reports, benchmarks) are not listed and not checked here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError

MANIFEST = "manifest.json"
WRITTEN = "files_written"
SEAL = "seal"
LATER = frozenset({MANIFEST, "cost.json", "parity.json", "bench.json", "memorisation.json", "bias.json"})
LATER_FOLDERS = frozenset({"checkpoints", "tensorboard", "export", "report", "logs", "stages"})
"""What is written, or written again, after a run has ended; cost.json is sealed by itself."""

_checked: dict[tuple[int, ...], str] = {}
"""State of a file -> its sha256: whatever names it has."""


def digest(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Relative name -> sha256 of every file that a run leaves when it ends."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in _left_by_run(folder)}


def check(path: Path) -> None:
    """Hold a file, or all listed files of a folder, against what the run around it recorded.

    Nothing happens outside of finished runs.
    Raises: DataError that names the file which is damaged or missing.
    """
    run = _run_around(path)
    if run is None:
        return
    name = path.absolute().relative_to(run).as_posix()
    manifest = unsealed(_read(run / MANIFEST), run / MANIFEST)
    if not isinstance(manifest, dict):
        return
    command = " ".join(manifest.get("argv", []))
    fix = f"delete {run} and make it again: {command}".removesuffix(": ")
    for listed, recorded in manifest.get(WRITTEN, {}).items():
        if name in (".", listed) or listed.startswith(f"{name}/"):
            _check_file(run / listed, recorded, fix)


def check_listed(folder: Path, info: dict[str, Any], fix: str) -> None:
    """Hold the files of a folder against the digests that its own record lists under `files_written`.

    Raises: DataError that names the file which is damaged or missing.
    """
    for name, recorded in info.get(WRITTEN, {}).items():
        _check_file(folder / name, recorded, fix)


def _check_file(file: Path, recorded: str, fix: str) -> None:
    where = str(file)
    try:
        status = file.stat()
        state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if _checked.get(state) == recorded:
            return
        found = file_digest(file)
    except FileNotFoundError:
        raise DataError("this file is missing, and was listed", where=where, fix=fix) from None
    if found != recorded:
        what = f"this file is damaged: its sha256 is {found[:12]}..., not {recorded[:12]}..."
        raise DataError(what, where=where, fix=fix)
    _checked[state] = recorded


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """The same object with the digest of its content."""
    content = {key: item for key, item in value.items() if key != SEAL}
    return {**content, SEAL: digest(content)}


def unsealed(value: Any, path: Path) -> Any:
    """The content of a sealed object; what never was sealed comes back as it is.

    Raises: DataError where content and digest do not belong together.
    """
    if not isinstance(value, dict) or SEAL not in value:
        return value
    content = {key: item for key, item in value.items() if key != SEAL}
    if digest(content) != value[SEAL]:
        fix = "delete it and run the same command again: what it was made from is still there"
        raise DataError("this record is damaged: its digest is another one", where=str(path), fix=fix)
    return content


def _left_by_run(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        first = path.relative_to(folder).parts[0]
        if path.is_file() and first not in LATER | LATER_FOLDERS and not first.startswith("."):
            yield path


def _run_around(path: Path) -> Path | None:
    """The folder of the run that a path is or lies in: where its manifest is."""
    for folder in [path.absolute(), *path.absolute().parents[:4]]:
        if (folder / MANIFEST).is_file():
            return folder
    return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        fix = "delete the run directory and run again"
        raise DataError(f"not readable as JSON: {error}", where=str(path), fix=fix) from None
