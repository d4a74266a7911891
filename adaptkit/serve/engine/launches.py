"""Turn the words of the command line into processes to start: models, their names, and adapters over them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.formats import find_format
from adaptkit.export.hardware import Hardware
from adaptkit.export.resolve import resolve
from adaptkit.export.source import Source
from adaptkit.run import Run
from adaptkit.serve.beside import beside
from adaptkit.serve.engine import lora
from adaptkit.serve.engine.command import Launch, avoids_bfloat16
from adaptkit.serve.engine.draft import Draft, check_draft
from adaptkit.serve.engine.lora_flags import Adapter, AdapterRoom
from adaptkit.study.record import is_study

_NAMED = re.compile(r"([A-Za-z0-9][\w.-]*)=(.+)", re.ASCII)


@dataclass(frozen=True)
class ModelWord:
    """One word of the command line: a folder, and the name that the user gave it."""

    name: str | None
    folder: Path

    @property
    def is_adapter(self) -> bool:
        return lora.is_adapter(self.folder)


@dataclass(frozen=True)
class Choice:
    """Which model of a study or run to serve.

    Attributes:
        format: serve each run's export of this format instead of the model as trained.
        arms: of a study, instead of its winner; several give several models.
        task, seed: of a study, instead of its primary task and the seed with the best dev score.
        for_demo: also serve what the demo of a study asks, where one is given: see `serve.beside`.
    """

    format: str | None = None
    arms: tuple[str, ...] = ()
    task: str | None = None
    seed: int | None = None
    for_demo: bool = False

    @property
    def is_open(self) -> bool:
        """Whether nothing was chosen of a study."""
        return not self.arms and (self.format, self.task, self.seed) == (None, None, None)


@dataclass
class _Plan:
    """What is to be served: models in order, adapters by their base's name, and sentences for people."""

    sources: list[Source] = field(default_factory=list)
    adapters: dict[str, list[Adapter]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    beside: list[Source] = field(default_factory=list)
    """Of the models, those that nobody named."""


def split_words(words: Sequence[str]) -> tuple[list[ModelWord], list[str]]:
    """Split the words into models and what stands after `--`, which begins with vLLM's first flag.

    Raises: ConfigError without a model.
    """
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    models = [_model_word(word) for word in words[:first]]
    if not models:
        fix = "give a study, a run or a model folder: adaptkit serve runs/STUDY-1a2b3c4d"
        raise ConfigError("no model was given", where="command line", fix=fix)
    return models, list(words[first:])


def _model_word(word: str) -> ModelWord:
    """Read one word: NAME=FOLDER, unless a folder of that very name exists."""
    named = _NAMED.fullmatch(word)
    if named is None or Path(word).exists():
        return ModelWord(None, Path(word).expanduser())
    return ModelWord(named[1], Path(named[2]).expanduser())


def make_launches(
    words: Sequence[ModelWord], hardware: Hardware, choice: Choice, extra: Sequence[str] = ()
) -> tuple[list[Launch], list[str]]:
    """Plan one process per model; adapters that vLLM can serve ride on their base's.

    Args:
        extra: vLLM's own flags.
    Returns: the launches, and sentences for people: what was picked, what is merged and why.
    Raises: ModelError, DataError or ConfigError.
    """
    plan = _Plan()
    for word in words:
        if not word.is_adapter:
            _add_models(plan, word, choice)
    bases = list(plan.sources)
    for word in words:
        if word.is_adapter:
            _add_adapter(plan, word, bases)
    if choice.for_demo and choice.is_open and not extra:
        _add_beside(plan, words, hardware)
    share = 1 / len(plan.sources)
    launches = [
        Launch(
            source,
            hardware,
            tuple(plan.adapters.get(source.name, ())),
            tuple(extra),
            share,
            optional=source in plan.beside,
        )
        for source in plan.sources
    ]
    for launch in launches:
        if why := avoids_bfloat16(launch.source, hardware):
            plan.notes.append(f"{launch.name}: {why}")
    return launches, plan.notes


def with_room(planned: Sequence[Launch], room: AdapterRoom) -> list[Launch]:
    """Give each model that writes room for adapters that come while it is served.

    Raises: ConfigError where none writes.
    """
    if all(launch.source.kind != "generate" for launch in planned):
        what = "adapters ride on models that write, and none is given"
        raise ConfigError(
            what, where="--adapters", fix="give their base too: adaptkit serve BASE --adapters FOLDER"
        )
    return [
        dataclasses.replace(launch, room=room) if launch.source.kind == "generate" else launch
        for launch in planned
    ]


def with_our_encoder(planned: Sequence[Launch]) -> list[Launch]:
    """Let our own encoder serve the embedding models among them; vLLM serves the others.

    Raises: ConfigError where none embeds, or flags are given, which are vLLM's.
    """
    if all(launch.source.kind != "embed" for launch in planned):
        what = "adaptkit's own encoder serves embedding models, and none is given"
        raise ConfigError(what, where="--engine", fix="leave --engine out: vLLM serves every kind")
    if planned[0].extra:
        what = "what follows `--` goes to vLLM, and adaptkit's own encoder takes no flags"
        raise ConfigError(what, where="--engine", fix="leave --engine or the flags out")
    return [
        dataclasses.replace(launch, engine="adaptkit") if launch.source.kind == "embed" else launch
        for launch in planned
    ]


def with_draft(planned: Sequence[Launch], draft: Source, tokens: int) -> list[Launch]:
    """Let a model draft for the first of those that write.

    Args:
        tokens: how many are guessed before they are judged.
    Raises: ConfigError where none writes, or adapters ride on it; ModelError for a draft that does not fit.
    """
    target = next((launch for launch in planned if launch.source.kind == "generate"), None)
    if target is None:
        what, fix = "a draft is for a model that writes, and none is given", "leave --draft out"
        raise ConfigError(what, where="--draft", fix=fix)
    if target.with_lora:
        what = f"{target.name} is served with adapters, and a draft with these was never tried"
        raise ConfigError(what, where="--draft", fix="serve one of the two by a server of its own")
    check_draft(draft, target.source, target.extra)
    drafted = dataclasses.replace(target, draft=Draft(draft, tokens))
    return [drafted if launch is target else launch for launch in planned]


def find_draft(word: ModelWord, words: Sequence[ModelWord]) -> Source:
    """Find who drafts: a run, an export, a model folder, or an arm of the study that is served.

    Raises: ModelError or DataError.
    """
    studies = [given.folder for given in words if is_study(given.folder)]
    if not word.folder.exists() and len(studies) == 1:
        return resolve(studies[0], arm=str(word.folder))
    return resolve(word.folder)


def replicated(planned: Sequence[Launch], replicas: int) -> list[Launch]:
    """Plan so many processes for each model."""
    return [
        dataclasses.replace(launch, replica=number + 1, share=launch.share / replicas)
        for launch in planned
        for number in range(replicas)
    ]


def _add_models(plan: _Plan, word: ModelWord, choice: Choice) -> None:
    """Add the model of a folder, or one for each chosen arm of a study."""
    arms: tuple[str | None, ...] = choice.arms or (None,)
    for arm in arms:
        source = resolve(word.folder, arm=arm, task=choice.task, seed=choice.seed)
        if choice.format:
            source = _exported(source, choice.format)
        plan.notes.append(f"{word.name or source.name}: {source.why}")
        if word.name and len(arms) == 1:
            source = dataclasses.replace(source, name=word.name)
        plan.sources.append(source)


def _add_beside(plan: _Plan, words: Sequence[ModelWord], hardware: Hardware) -> None:
    """Add what the demo of a study asks beside the model that it recommends, if one study was given."""
    unnamed = [word.folder for word in words if word.name is None]
    studies = [source for source in plan.sources if source.study is not None and source.study in unnamed]
    if len(studies) != 1:
        return
    others = [source for source in plan.sources if source is not studies[0]]
    added, notes = beside(studies[0], others, hardware)
    plan.sources += added
    plan.beside += added
    plan.notes += notes


def _add_adapter(plan: _Plan, word: ModelWord, bases: Sequence[Source]) -> None:
    """Add an adapter over its base, or its merged model where vLLM cannot serve it."""
    name = word.name or word.folder.resolve().name
    if why := lora.cannot_be_served(word.folder):
        plan.sources.append(lora.merged(name, word.folder, bases))
        plan.notes.append(f"{name}: served merged, because {why}")
        return
    base = lora.base_of(word.folder, bases)
    other = lora.check_fit(word.folder, base)
    plan.adapters.setdefault(base.name, []).append(lora.adapter_over(base, name, word.folder))
    note = f"{name}: a LoRA adapter over {base.name}"
    if other is not None:
        note += f"; {other}"
    plan.notes.append(note)


def _exported(source: Source, format: str) -> Source:
    """Find the export of a run in this format.

    Raises: ModelError if it was not exported.
    """
    find_format(format)
    if source.exported:
        return source
    if source.run is None or not Run(source.run).export(format).is_dir():
        fix = f"adaptkit export {source.study or source.run or source.folder} --format {format}"
        where = str(source.run or source.folder)
        raise ModelError(f"there is no {format} export of it", where=where, fix=fix)
    exported = resolve(Run(source.run).export(format))
    return dataclasses.replace(exported, name=source.name, run=source.run, study=source.study, why=source.why)
