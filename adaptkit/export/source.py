"""A model to export or serve, and where it comes from, as one `Source`: of a run, or of any model folder.

    source = of_run(Path("runs/finetune-1a2b3c4d"))
    source.folder, source.kind, source.name, source.record

Nothing heavy is imported and no weights are read: a model folder's kind follows from the files that it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.export.record import ExportRecord, ServedKind, read_export
from adaptkit.model_gate import check_folder
from adaptkit.run import Run, read_json
from adaptkit.run_record import RecipeKind, RunRecord, local_base, read_record
from adaptkit.seal import check

ONE_CLASS, LABEL_SET, REGRESSION = ("single_label_classification", "multi_label_classification", "regression")
"""What transformers and vLLM call the problems of a classifier."""


SERVED_TAGGERS = tuple(
    f"{name}ForTokenClassification" for name in ("Bert", "ModernBert", "Roberta", "XLMRoberta")
)
"""Architectures that tag words in vLLM 0.32."""


class ModelRole(StrEnum):
    """The part that a model plays in the comparison."""

    GENERIC = "generic"
    """As it came: nothing of it was trained here."""
    FINETUNED = "finetuned"
    """The generic model after training on a task, or on the domain's text through the same adapter."""
    PRETRAINED = "pretrained"
    """It has read the domain's text: more pretraining, or pretraining from random weights."""
    DISTILLED = "distilled"
    """Small, taught by a larger one."""
    OTHER = "other"
    """A control, such as as much more pretraining on general text."""


@dataclass(frozen=True)
class Source:
    """A model to export or serve, and where it comes from.

    Attributes:
        folder: HF folder with whole (merged) weights, config and tokenizer.
        kind: what it answers with; decides the server's routes.
        name: what clients call it by; letters, digits, `.`, `_` and `-`.
        why: one sentence for people: what was picked and for which reason.
        run: the run directory that trained it; None for a plain folder.
        record: what that run is; None for a plain folder.
        study: the directory of the study it stands for; None outside a study.
        study_name: what the study's config calls it; None outside a study.
        arm: name of the study's arm, for people, never taken apart; None outside a study.
        origin: what its weights started from: generic, continued, mixed, scratch, placebo or distilled.
        adaptation: how it learnt its task: prompt, rag, probe, lora, qlora, rag-lora, full or rerank; None
            where it learnt none.
        task: name of the task it answers; in a study also `language`; None for a language model outside one.
        seed: of the study's seeds, the one behind this model; None outside a study.
        adapter: the peft folder beside the merged weights, if it was trained with one.
        base: what its weights were at first (folder or hub id); empty for random weights or an unknown base.
        labels: the classes of a classifier, or the tags of words, in the order of the outputs.
        scored_run: the run whose record holds its scores; a study scores language models in runs apart.
        suite: the name of those scores; None where nothing was scored.
        export: what `adaptkit export` recorded in its manifest.json; None for a folder that it did not write.
    """

    folder: Path
    kind: ServedKind
    name: str
    why: str
    run: Path | None = None
    record: RunRecord | None = None
    study: Path | None = None
    study_name: str | None = None
    arm: str | None = None
    origin: str | None = None
    adaptation: str | None = None
    task: str | None = None
    seed: int | None = None
    adapter: Path | None = None
    base: str = ""
    labels: tuple[str, ...] = ()
    scored_run: Path | None = None
    suite: str | None = None
    export: ExportRecord | None = None

    @property
    def exported(self) -> bool:
        """True for a folder that `adaptkit export` wrote."""
        return self.export is not None

    @property
    def role(self) -> ModelRole:
        """The part that the model plays in the comparison: follows from origin and adaptation."""
        return role_of(self.origin, self.adaptation)


def role_of(origin: str | None, adaptation: str | None) -> ModelRole:
    """Derive the part that a model plays from its origin and adaptation."""
    if origin in ("generic", "tapt"):
        untrained = origin == "generic" and adaptation in (None, "prompt", "rag", "probe", "hybrid")
        return ModelRole.GENERIC if untrained else ModelRole.FINETUNED
    if origin in ("continued", "continued-lora", "continued-vocabulary", "mixed", "scratch"):
        return ModelRole.PRETRAINED
    if origin == "distilled":
        return ModelRole.DISTILLED
    return ModelRole.OTHER


def of_run(folder: Path) -> Source:
    """Describe the model that one training left in its run directory.

    Raises: DataError for a run that has not ended, is damaged or of an older release; ModelError if it kept
        no model.
    """
    run = Run(folder)
    record = read_record(run)
    if not (run.model / "config.json").is_file():
        fix = "give a run of `adaptkit pretrain` or `adaptkit finetune`, or the study"
        raise ModelError("this run kept no model", where=str(folder), fix=fix)
    check(run.path)
    check_folder(run.model)
    adapter: Path | None = None
    if (run.adapter / "adapter_config.json").is_file():
        adapter = run.adapter
    scored_run: Path | None = None
    suite: str | None = None
    if record.suite in record.suites:
        scored_run, suite = folder, record.suite
    return Source(
        folder=run.model,
        kind=kind_of(run.model),
        name=served_name(run.manifest()["name"]),
        why=f"the model that run {folder.resolve().name} trained",
        run=folder,
        record=record,
        origin=_origin(run, record),
        adaptation=_adaptation(record),
        task=record.task or None,
        adapter=adapter,
        base=record.base,
        scored_run=scored_run,
        suite=suite,
        labels=_labels(run.model),
    )


def of_model(folder: Path) -> Source:
    """Describe a model folder: an export, the model of the run that it lies in, or any other as it is."""
    run = run_of(folder)
    if run is not None:
        return of_run(run.path)
    exported = read_export(folder)
    if exported is not None:
        return _of_export(folder, exported)
    name = folder.resolve().name
    why = f"the model folder {name}"
    return Source(
        folder=folder,
        kind=kind_of(folder),
        name=served_name(name),
        why=why,
        origin="generic",
        labels=_labels(folder),
    )


def _of_export(folder: Path, exported: ExportRecord) -> Source:
    return Source(
        folder=folder,
        kind=kind_of(folder),
        name=exported.name,
        why=f"the {exported.format} export of {exported.name}",
        study_name=exported.study_name,
        arm=exported.arm,
        origin=exported.origin,
        adaptation=exported.adaptation,
        task=exported.task,
        seed=exported.seed,
        base=exported.base or "",
        labels=_labels(folder),
        export=exported,
    )


def _origin(run: Run, record: RunRecord) -> str:
    """Say what the weights started from, in a study's words: that of the base where it was trained here."""
    if record.recipe is RecipeKind.DISTILL:
        return "distilled"
    if record.recipe is RecipeKind.PRETRAIN:
        if record.base:
            added = (record.facts.get("tokenizer") or {}).get("added")
            return "continued-vocabulary" if added else "continued"
        return "mixed" if "replay" in record.splits else "scratch"
    base = run_of(local_base(run.path, record.base))
    if base is None:
        return "generic"
    return _origin(base, read_record(base))


def _adaptation(record: RunRecord) -> str | None:
    """Say how the task was learnt, in the words of a study; None for a language model."""
    if record.recipe is RecipeKind.PRETRAIN:
        return None
    if record.adapter is None or record.adapter.kind == "none":
        return "full"
    if record.expects_passages:
        return "rag-lora"
    return "qlora" if record.adapter.kind == "qlora" else "lora"


def run_of(folder: Path | None) -> Run | None:
    """Find the run whose trained model this folder is; None for any other folder, or for none."""
    if folder is None:
        return None
    run = Run(folder.parent)
    if folder.name == run.model.name and run.config_path.is_file():
        return run
    return None


def find_base(run: Path, base: str) -> Path | None:
    """Find the folder of a run's base, here or in the hub's cache; None where it cannot be had."""
    folder = local_base(run, base)
    if folder is not None or not is_hub_id(base):
        return folder
    from adaptkit.models import find  # loads torch, which a server's own process does without

    try:
        return find(base)
    except ModelError:
        return None


def is_hub_id(model: str) -> bool:
    """Say whether a model's name can be one on the hub: owner/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model) is not None


def served_name(name: str) -> str:
    """Turn everything but letters, digits, `.`, `_` and `-` into `-`."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"


def kind_of(folder: Path) -> ServedKind:
    """Tell what a model folder answers with; a folder with pooling, or a bare encoder, gives vectors."""
    config = read_json(folder / "config.json")
    architecture = (config.get("architectures") or [""])[0]
    if (folder / "modules.json").is_file():
        return "embed"
    if "TokenClassification" in architecture:
        return "tag"
    if "SequenceClassification" in architecture:  # with one output it scores pairs, or gives a text a number
        num_outputs = len(config.get("id2label") or {0: "", 1: ""})
        if num_outputs == 1 and config.get("problem_type") != REGRESSION:
            return "rerank"
        return "classify"
    if architecture.endswith(("CausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return "generate"
    return "embed"


def problem_type(folder: Path) -> str:
    """Tell what a classifier's outputs mean: one of several classes, a yes or no for each, or a number."""
    return str(read_json(folder / "config.json").get("problem_type") or ONE_CLASS)


def _labels(folder: Path) -> tuple[str, ...]:
    """List the classes of a classifier in the order of its outputs; none for other models."""
    if kind_of(folder) not in ("classify", "tag"):
        return ()
    names = read_json(folder / "config.json").get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))
