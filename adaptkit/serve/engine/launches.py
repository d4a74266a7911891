"""From the words of the command line to the processes to start: which model, under which name, with which
adapters."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.formats import find_format
from adaptkit.export.hardware import Hardware
from adaptkit.export.resolve import resolve
from adaptkit.export.source import Source
from adaptkit.run import Run
from adaptkit.serve.engine import lora
from adaptkit.serve.engine.command import Adapter, Launch

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Wish:
    """One word of the command line: a folder, and the name that was given to it."""

    name: str | None
    folder: Path


def divide(words: Sequence[str]) -> tuple[list[Wish], list[str]]:
    """Models, and what stands after `--`: it begins with vLLM's first flag.

    Raises: ConfigError without a model.
    """
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    wishes = []
    for word in words[:first]:
        named = None if Path(word).exists() else _NAMED.fullmatch(word)
        wishes.append(Wish(named[1], Path(named[2])) if named else Wish(None, Path(word)))
    if not wishes:
        fix = "give a study, a run or a model folder: adaptkit serve runs/STUDY-1a2b3c4d"
        raise ConfigError("no model was given", where="command line", fix=fix)
    return wishes, list(words[first:])


def make_launches(
    wishes: Sequence[Wish],
    hardware: Hardware,
    *,
    extra: Sequence[str] = (),
    format: str | None = None,
    arms: Sequence[str] = (),
    task: str | None = None,
    seed: int | None = None,
) -> tuple[list[Launch], list[str]]:
    """One process per model; adapters that vLLM can serve ride on their base's.

    Args:
        format: serve each run's export of this format instead of the model as trained.
        arms: of a study, instead of its winner; several give several models.
    Returns: the launches, and sentences for people: what was picked, what is merged and why.
    Raises: ModelError, DataError or ConfigError.
    """
    sources, notes = [], []
    for wish in wishes:
        if lora.is_adapter(wish.folder.expanduser()):
            continue
        for arm in arms or [None]:
            source = resolve(wish.folder, arm=arm, task=task, seed=seed)
            source = _exported(source, format) if format else source
            notes.append(f"{wish.name or source.name}: {source.why}")
            sources.append(
                dataclasses.replace(source, name=wish.name) if wish.name and len(arms) < 2 else source
            )
    riding: dict[str, list[Adapter]] = {source.name: [] for source in sources}
    whole = list(sources)
    for wish in wishes:
        folder = wish.folder.expanduser()
        if not lora.is_adapter(folder):
            continue
        name = wish.name or folder.resolve().name
        if why := lora.cannot_be_served(folder):
            sources.append(lora.merged(name, folder, whole))
            notes.append(f"{name}: served merged, because {why}")
        else:
            base = lora.base_of(folder, whole)
            riding[base.name].append(lora.as_adapter(name, folder))
            notes.append(f"{name}: a LoRA adapter over {base.name}")
    share = 1 / len(sources)
    made = [
        Launch(source, hardware, tuple(riding.get(source.name, ())), tuple(extra), share)
        for source in sources
    ]
    return made, notes


def _exported(source: Source, format: str) -> Source:
    """The export of a run in this format.

    Raises: ModelError if it was not exported.
    """
    find_format(format)
    if source.exported:
        return source
    folder = Run(source.run).export(format) if source.run else None
    if folder is None or not folder.is_dir():
        fix = f"adaptkit export {source.study or source.run or source.folder} --format {format}"
        raise ModelError(
            f"there is no {format} export of it", where=str(source.run or source.folder), fix=fix
        )
    return dataclasses.replace(
        resolve(folder), name=source.name, run=source.run, study=source.study, why=source.why
    )
