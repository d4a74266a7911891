"""Where an exported model comes from, and proof that it is still what was exported: lineage, licence,
digests.

Nothing here holds an absolute path, a host or user name, a line of anybody's text or the time of the export:
two exports of one run are the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

import adaptkit
from adaptkit.errors import ModelError
from adaptkit.export.parity.reference import HTTP_FILE
from adaptkit.export.source import Source, run_config
from adaptkit.run import Run, digest, environment, file_digest, read_json

MANIFEST, SIGNATURE = "manifest.json", "model.sig"
LATER = (SIGNATURE, HTTP_FILE)  # files that come after the manifest: it cannot list them
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*")
UNKNOWN_LICENCE = "not stated in its folder"
PARTS_OF_TEACHER = ("every", "last", "search")  # starts of a student that are blocks of its teacher
SERVED_TEACHER = "a model behind HTTP"


@dataclass(frozen=True)
class Ancestor:
    """One training on the way to the model, the last one first, or the foreign model that it began with.

    Attributes:
        name: the run's name, or the base's (a hub id, or its folder's name).
        facts: what is known: identity, config digest, data digests, code and versions; weights for a foreign
            base.
        licence: what the folder of a foreign base says; None for a run.
        folder: where it lies here; never written out.
    """

    name: str
    facts: dict[str, Any]
    licence: str | None
    folder: Path | None


def lineage(source: Source) -> list[Ancestor]:
    """All trainings from the last to the first, then the foreign base if there is one, then foreign teachers
    that are not it."""
    if source.run is None:
        return [_foreign("base", str(source.folder), source.folder)]
    return _lineage(source.run)


def _lineage(run: Path | None) -> list[Ancestor]:
    found: list[Ancestor] = []
    teachers: list[Ancestor] = []
    while run is not None:
        base, teacher = began_with(run_config(run))
        found.append(Ancestor(run.resolve().name, _run_facts(run), None, run))
        if teacher not in ("", base):
            teachers += _foreign_teachers(run, teacher)
        folder = located_base(run, base)
        run = _run_of(folder)
        if run is None and base:
            found.append(_foreign("base", base, folder))
    return found + teachers


def began_with(config: dict[str, Any]) -> tuple[str, str]:
    """(what the weights of a run were at first, the teacher it learnt from), each a folder, a hub id, an
    address or empty."""
    teacher, start = str(config.get("teacher") or ""), str((config.get("student") or {}).get("start") or "")
    if not teacher:
        return str(config.get("base") or ""), ""
    return teacher if start in PARTS_OF_TEACHER else "" if start == "fresh" else start, teacher


def _foreign_teachers(run: Path, teacher: str) -> list[Ancestor]:
    """The teacher, or, of one that was trained here, the foreign model that it goes back to."""
    folder = located_base(run, teacher)
    if (trained := _run_of(folder)) is None:
        return [_foreign("teacher", teacher, folder)]
    above = [ancestor for ancestor in _lineage(trained) if ancestor.licence is not None]
    return [
        replace(known, facts={"teacher": known.name, "weights": known.facts["weights"]}) for known in above
    ]


def _run_of(folder: Path | None) -> Path | None:
    """The run that a model folder lies in."""
    return folder.parent if folder is not None and (folder.parent / "config.yaml").is_file() else None


def licence_of(ancestors: list[Ancestor]) -> tuple[str, str]:
    """(licence tag for the card's header, the same in words): the base's, else a teacher's, else what goes
    for own text."""
    foreign = [ancestor for ancestor in ancestors if ancestor.licence is not None]
    if not foreign:
        return "other", "no base model: whoever owns the training text decides"
    first, role = foreign[0], _role(foreign[0])
    others = {
        f"{ancestor.licence} for what its {_role(ancestor)} {ancestor.name} gave"
        for ancestor in foreign[1:]
        if ancestor.licence != first.licence
    }
    more = "".join(f"; {words}" for words in sorted(others))
    if first.licence == UNKNOWN_LICENCE:
        return (
            "other",
            f"that of its {role} {first.name}, which is {UNKNOWN_LICENCE}: look it up before you pass this on{more}",
        )
    return str(first.licence), f"{first.licence}, carried over from its {role} {first.name}{more}"


def _role(ancestor: Ancestor) -> str:
    return "base" if "base" in ancestor.facts else "teacher"


def licence_files(ancestors: list[Ancestor]) -> list[Path]:
    """Licence texts in the folder of the foreign base."""
    folders = [
        ancestor.folder
        for ancestor in ancestors
        if ancestor.licence is not None and ancestor.folder is not None
    ]
    return [
        path
        for folder in folders
        for pattern in LICENCE_FILES
        for path in sorted(folder.glob(pattern))
        if path.is_file()
    ]


@cache
def code() -> dict[str, Any]:
    """The code that writes exports, as a process first finds it: version, commit if there is one, sha256 over
    its modules."""
    root = Path(adaptkit.__file__).parent
    modules = {str(path.relative_to(root)): file_digest(path) for path in sorted(root.rglob("*.py"))}
    found = environment()
    return {
        "adaptkit": adaptkit.__version__,
        "sha256": digest(modules),
        "commit": found["code"] or None,
        "versions": found["versions"],
    }


def weights_digests(folder: Path) -> dict[str, str]:
    """File name -> sha256 of the weights, config and tokenizer in a model folder."""
    kept = (".safetensors", ".json", ".jinja", ".model", ".txt")
    return {
        path.name: file_digest(path)
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in kept
    }


def file_digests(folder: Path) -> dict[str, dict[str, Any]]:
    """Relative name -> sha256 and size of every file but the manifest and what comes after it."""
    return {
        name: {"sha256": file_digest(path), "num_bytes": path.stat().st_size}
        for name, path in _files(folder)
        if name not in (MANIFEST, *LATER)
    }


def verify(folder: Path) -> None:
    """Check an exported folder against its manifest.

    Raises: ModelError naming the first file that is missing, changed or not listed.
    """
    where = str(folder)
    listed = read_json(folder / MANIFEST).get("files") or {}
    held = dict(_files(folder))
    fix = "export it again, or copy it again from where it was exported"
    for name, expected in listed.items():
        if name not in held:
            raise ModelError(f"{name} is missing, and the manifest lists it", where=where, fix=fix)
        if (
            held[name].stat().st_size != expected["num_bytes"]
            or file_digest(held[name]) != expected["sha256"]
        ):
            raise ModelError(f"{name} is not the file that was exported", where=where, fix=fix)
    if extra := sorted(set(held) - set(listed) - {MANIFEST, *LATER}):
        what = f"{extra[0]} is not in the manifest"
        raise ModelError(what, where=where, fix="take it out of the folder: only exported files are served")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() or path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def _run_facts(run: Path) -> dict[str, Any]:
    manifest = Run(run).manifest()
    config = run / "config.yaml"
    splits = manifest.get("record", {}).get("splits") or manifest.get("data") or {}
    return {
        "run": run.resolve().name,
        "teacher": _teacher_name(run),
        "identity": manifest.get("identity"),
        "config_sha256": file_digest(config) if config.is_file() else None,
        "data": {name: _data_facts(part) for name, part in splits.items()},
        "code": manifest.get("code") or None,
        "versions": manifest.get("versions"),
    }


def _teacher_name(run: Path) -> str | None:
    """What a distillation learnt from: the teacher's run, or its own name; None for other trainings."""
    teacher = began_with(run_config(run))[1]
    trained = _run_of(located_base(run, teacher))
    return trained.resolve().name if trained else _short(teacher) if teacher else None


def _data_facts(part: dict[str, Any]) -> dict[str, Any]:
    files = [{**file, "name": Path(str(file["name"])).name} for file in part.get("files") or []]
    return {key: part.get(key) for key in ("kind", "documents", "num_bytes", "digest", "licences")} | {
        "files": files
    }


def _foreign(role: str, model: str, folder: Path | None) -> Ancestor:
    """A model that was not trained here, as `base` or as `teacher`."""
    weights = weights_digests(folder) if folder is not None else None
    licence = _stated_licence(folder) if folder is not None else UNKNOWN_LICENCE
    return Ancestor(_short(model), {role: _short(model), "weights": weights}, licence, folder)


def _short(model: str) -> str:
    """A hub id as it is; of a path only its last part; of an address nothing."""
    if model.startswith(("http://", "https://")):
        return SERVED_TEACHER
    path = Path(model).expanduser()
    return model if re.fullmatch(r"[\w.-]+/[\w.-]+", model) and not path.is_dir() else path.resolve().name


def located_base(run: Path, base: str) -> Path | None:
    """The folder of a base: as named, under the run's root if all runs have moved, or in the hub's cache."""
    if not base:
        return None
    named = Path(base).expanduser()
    moved = run.parent / named.parent.name / named.name
    for folder in (named, moved):
        if folder.is_dir():
            return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        return None
    from adaptkit import models

    try:
        return models.find(base)
    except ModelError:
        return None


def _stated_licence(folder: Path) -> str:
    """`license` (or `license_name` where that is `other`) in the front matter of the folder's card."""
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN_LICENCE
    header = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        told = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError:
        return UNKNOWN_LICENCE
    if not isinstance(told, dict) or not told.get("license"):
        return UNKNOWN_LICENCE
    name = told.get("license_name") if told["license"] == "other" else None
    return str(name or told["license"])
