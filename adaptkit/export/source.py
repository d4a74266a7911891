"""What is to be exported or served: a study's winner, a run, an exported folder or any model folder, as one
`Source`.

    source = resolve("runs/study-1a2b3c4d")            # the winner; in a tie the best generic arm that can be
    served source.folder, source.kind, source.name, source.why

Nothing heavy is imported and no weights are read: folders are told apart by the files they hold.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from adaptkit.errors import ModelError
from adaptkit.run import Run, read_json

ServedKind = Literal["generate", "classify", "embed", "rerank"]
EXPORTED = "export"  # the key of an exported folder's manifest.json that no run's manifest has


@dataclass(frozen=True)
class Source:
    """A model to export or serve, and where it comes from.

    Attributes:
        folder: HF folder with whole (merged) weights, config and tokenizer.
        kind: what it answers with; decides the server's routes.
        name: what clients call it by; letters, digits, `.`, `_` and `-`.
        why: one sentence for people: what was picked and for which reason.
        run: the run directory that trained it; None for a plain folder.
        study, arm, task, seed: the study it stands for; None outside a study.
        adapter: the peft folder beside the merged weights, if it was trained with one.
        base: what its training started from (folder or hub id); empty for a model from scratch or an unknown
            one.
        labels: the classes of a classifier, in the order of its outputs.
        scores: the run that holds `eval/<suite>.json` for it (a study scores language models in runs of their
            own).
        suite: the name of that suite; None where nothing was scored.
        manifest: manifest.json of an exported folder; empty otherwise.
    """

    folder: Path
    kind: ServedKind
    name: str
    why: str
    run: Path | None = None
    study: Path | None = None
    arm: str | None = None
    task: str | None = None
    seed: int | None = None
    adapter: Path | None = None
    base: str = ""
    labels: tuple[str, ...] = ()
    scores: Path | None = None
    suite: str | None = None
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def exported(self) -> bool:
        """True for a folder that `adaptkit export` wrote."""
        return EXPORTED in self.manifest


def resolve(
    path: str | Path, *, arm: str | None = None, task: str | None = None, seed: int | None = None
) -> Source:
    """The model that `path` stands for.

    Args:
        path: a study's or a training's run directory, an exported folder, or a HF model folder.
        arm, task, seed: for a study, instead of its winner on its primary task and of the seed with the best
            dev score.
    Raises: ModelError or DataError where there is nothing to serve, saying what the folder holds and what to
        give.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        fix = (
            "give a study's or run's directory (runs/NAME-1a2b3c4d), an exported folder or a HF model folder"
        )
        raise ModelError("no such folder", where=str(path), fix=fix)
    if _is_study(folder):
        from adaptkit.export.pick import choose

        return choose(folder, arm=arm, task=task, seed=seed)
    if given := [
        f"--{name}" for name, value in {"arm": arm, "task": task, "seed": seed}.items() if value is not None
    ]:
        raise ModelError(
            f"{given[0]} picks from a study, and this is none", where=str(folder), fix=f"leave {given[0]} out"
        )
    if (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
        return _model_folder(folder)
    if (folder / "config.yaml").is_file():
        return of_run(folder)
    if (folder / "adapter_config.json").is_file():
        fix = "give the run directory that it lies in, which holds the merged model, or merge it into its base first"
        raise ModelError("this is an adapter, not a whole model", where=str(folder), fix=fix)
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    fix = "give a study's or run's directory, an exported folder or a HF model folder"
    raise ModelError(f"neither a run nor a model (the folder holds: {held})", where=str(folder), fix=fix)


def of_run(folder: Path, **known: Any) -> Source:
    """The model that one training left in its run directory; `known` says what the caller knows better.

    Raises: ModelError for a run that has not ended or kept no model.
    """
    run = Run(folder)
    manifest = run.manifest()
    if not (run.model / "config.json").is_file():
        state = manifest.get("status", "unknown")
        if state != "finished":
            what, fix = f"this run has not ended (status: {state})", "run the same command again: it resumes"
        else:
            what, fix = (
                "this run kept no model",
                "give a run of `adaptkit pretrain` or `adaptkit finetune`, or the study",
            )
        raise ModelError(what, where=str(folder), fix=fix)
    config = run_config(folder)
    suite = config.get("task") if "task" in config else "language"
    scored = run.scores(str(suite)).is_file()
    found = {
        "why": f"the model that run {folder.resolve().name} trained",
        "name": served_name(manifest.get("name") or folder.resolve().name),
        "run": folder,
        "adapter": run.adapter if (run.adapter / "adapter_config.json").is_file() else None,
        "base": str(config.get("base") or ""),
        "scores": folder if scored else None,
        "suite": suite if scored else None,
        "task": config.get("task"),
    }
    return _described(run.model, **{**found, **known})


def of_model(folder: Path, **known: Any) -> Source:
    """A model folder as it is; the run that it lies in, if it is a run's `model/`, is found."""
    if folder.name == "model" and (folder.parent / "config.yaml").is_file():
        return of_run(folder.parent, **known)
    name = folder.resolve().name
    return _described(folder, **{"why": f"the model folder {name}", "name": served_name(name), **known})


def run_config(run: Path) -> dict[str, Any]:
    """config.yaml of a run as plain values; empty where there is none."""
    path = run / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def served_name(name: str) -> str:
    """`name` with everything but letters, digits, `.`, `_` and `-` turned into `-`."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"


def _is_study(folder: Path) -> bool:
    return (folder / "study.json").is_file() or "arms" in run_config(folder)


def _model_folder(folder: Path) -> Source:
    manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    if EXPORTED not in manifest:
        return of_model(folder)
    told = manifest[EXPORTED]
    return _described(
        folder,
        name=told["name"],
        why=f"the {told['format']} export of {told['name']}",
        arm=told.get("arm"),
        task=told.get("task"),
        base=told.get("base", ""),
        manifest=manifest,
    )


def _described(folder: Path, **fields: Any) -> Source:
    config = read_json(folder / "config.json")
    labels = config.get("id2label") or {}
    kind = _served_kind(folder, config)
    names = tuple(str(labels[key]) for key in sorted(labels, key=int)) if kind == "classify" else ()
    return Source(folder=folder, kind=kind, labels=names, **fields)


def _served_kind(folder: Path, config: dict[str, Any]) -> ServedKind:
    """A sequence classifier with one output scores pairs; an encoder, or a folder with pooling, embeds."""
    architecture = (config.get("architectures") or [""])[0]
    if (folder / "modules.json").is_file():
        return "embed"
    if "SequenceClassification" in architecture:
        return "rerank" if len(config.get("id2label") or {0: "", 1: ""}) == 1 else "classify"
    if architecture.endswith(("CausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "generate"
    return "embed"
