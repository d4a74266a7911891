"""Write and check an export's manifest: what it holds, what it was made from, and digests of its files.

Nothing here holds an absolute path, a host or user name, a line of anybody's text or the time of the export:
two exports of one run are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from adaptkit.environment import environment
from adaptkit.errors import ModelError
from adaptkit.export.papers.lineage import Lineage
from adaptkit.export.record import HTTP_FILE, KEY, MANIFEST_FILE, ExportRecord
from adaptkit.run import digest, file_digest, read_json, write_json
from adaptkit.version import __version__

SIGNATURE = "model.sig"
LATER = (SIGNATURE, HTTP_FILE)
"""Files that come after the manifest: it cannot list them."""


@dataclass(frozen=True)
class Provenance:
    """What an export is and what it was made from: the manifest without its list of files.

    Attributes:
        weights: file name -> sha256 of the model that was exported.
        licence: tag of the model's licence; `export.licence` says it in words.
    """

    export: ExportRecord
    weights: dict[str, str]
    lineage: Lineage
    licence: str

    def as_json(self) -> dict[str, Any]:
        return {
            KEY: self.export.model_dump(mode="json"),
            "source": self.weights,
            "lineage": self.lineage.as_json(),
            "code": code(),
        }


def write_manifest(folder: Path, provenance: Provenance) -> dict[str, dict[str, Any]]:
    """Write manifest.json over all files that the folder holds by now; returns its list of files."""
    files = file_digests(folder)
    write_json(folder / MANIFEST_FILE, {**provenance.as_json(), "files": files})
    return files


@cache
def code() -> dict[str, Any]:
    """Describe the code that writes exports, as a process first reads it: version, commit, sha256."""
    root = Path(__file__).parents[2]
    modules = {str(path.relative_to(root)): file_digest(path) for path in sorted(root.rglob("*.py"))}
    machine = environment()
    return {
        "adaptkit": __version__,
        "sha256": digest(modules),
        "commit": machine["code"] or None,
        "versions": machine["versions"],
    }


def file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Digest every file but the manifest and what comes after it: relative name -> sha256 and size."""
    return {
        name: {"sha256": file_digest(path), "num_bytes": path.stat().st_size}
        for name, path in _files(folder)
        if name not in (MANIFEST_FILE, *LATER)
    }


def verify(folder: Path) -> None:
    """Check an exported folder against its manifest.

    Raises: ModelError naming the first file that is missing, changed or not listed.
    """
    where = str(folder)
    listed = read_json(folder / MANIFEST_FILE).get("files") or {}
    held = dict(_files(folder))
    fix = "export it again, or copy it again from where it was exported"
    for name, expected in listed.items():
        if name not in held:
            raise ModelError(f"{name} is missing, and the manifest lists it", where=where, fix=fix)
        same_size = held[name].stat().st_size == expected["num_bytes"]
        if not same_size or file_digest(held[name]) != expected["sha256"]:
            raise ModelError(f"{name} is not the file that was exported", where=where, fix=fix)
    extra = sorted(set(held) - set(listed) - {MANIFEST_FILE, *LATER})
    if extra:
        what = f"{extra[0]} is not in the manifest"
        raise ModelError(what, where=where, fix="take it out of the folder: only exported files are served")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() or path.is_symlink():
            yield path.relative_to(folder).as_posix(), path
