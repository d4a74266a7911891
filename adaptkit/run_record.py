"""What a run is, as one frozen record in its manifest.json: its recipe writes it, everyone else reads it.

    record = read_record(Run("runs/finetune-1a2b3c4d"))
    record.recipe, record.base, record.splits["train"].digest, record.suites["ticket"].metrics

Nobody else looks into another recipe's config, repeats its split or takes a name apart to learn these things.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeVar

import pydantic
from pydantic import BaseModel, ConfigDict

from adaptkit.adapters import AdapterConfig
from adaptkit.errors import DataError
from adaptkit.run import FORMAT, Run, within_root

OLDER = "was made by an older release of adaptkit, whose records this one does not read"
AGAIN = "run the same command again with another --root: it makes a new run"


class Record(BaseModel):
    """Base of all records: frozen, strict, without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=()
    )


R = TypeVar("R", bound=Record)
LEARNT = ("train", "replay")
"""The splits of a run that weights are trained on."""


class RecipeKind(StrEnum):
    """What made a run."""

    PRETRAIN = "pretrain"
    FINETUNE = "finetune"
    EMBED = "embed"
    RERANK = "rerank"
    DISTILL = "distill"
    PREPARE = "prepare"
    """The prepared data of a study."""
    TOKENIZER = "tokenizer"
    SCORE = "score"
    """A model scored on text by a study."""
    FROZEN = "frozen"
    """A prompt or a probe: answers of a model that was not trained for the task."""
    BASELINE = "baseline"
    """Answers without a language model."""


class ModelKind(StrEnum):
    """What a model's outputs are."""

    CAUSAL = "causal"
    MASKED = "masked"
    CLASSIFIER = "classifier"
    TAGGER = "tagger"
    ENCODER = "encoder"
    RERANKER = "reranker"


class SplitRecord(Record):
    """One part of the data that a run read."""

    kind: str
    """Kind of its rows: text, labelled, sft, messages, prompts, pairs, ..."""
    documents: int
    """Rows."""
    num_bytes: int
    """UTF-8 bytes of their text."""
    digest: str
    """sha256 over the rows that were used, in order."""
    roles: dict[str, str] = {}
    """Role -> column in the files."""
    files: list[dict[str, Any]] = []
    """Name, size in bytes and sha256 of each file read."""
    licences: dict[str, int] = {}
    """Licence -> rows that state it."""
    num_skipped: int = 0
    """Rows left out by `on_bad_row: skip`."""
    skipped: list[str] = []
    """`file:line: why` of the first of these."""
    num_sampled_from: int | None = None
    """Rows there were before sampling to `max_bytes`; None where all were kept."""
    masked: dict[str, dict[str, int]] = {}
    """Kind of personal data -> file -> how often `protect` masked it."""
    facts: dict[str, int] = {}
    """Further counts of this kind of data, such as queries."""


class CanaryRecord(Record):
    """Made-up secrets that were planted in the training text: which ones, by their seed."""

    repeats: tuple[int, ...]
    """How often they stand in the text; as many others were never planted, as a control."""
    each: int
    """Canaries of each number of repeats."""
    seed: int
    num_texts: int
    """Short documents that were added."""
    num_bytes: int
    """UTF-8 bytes of these."""
    digest: str
    """sha256 over the texts of all canaries."""


class SuiteRecord(Record):
    """Scores of one suite; the items lie in eval/<suite>.jsonl."""

    judged_on: Literal["test", "dev"]
    """The split that `metrics` were computed on."""
    num_items: int
    metrics: dict[str, float]
    dev: dict[str, float] = {}
    """The same on development data, by which settings and arms are chosen."""
    teacher: dict[str, float] = {}
    """A distillation's teacher on the same items."""


class RunRecord(Record):
    """What a finished run is."""

    format: Literal[2] = FORMAT
    recipe: RecipeKind
    model_kind: ModelKind | None = None
    """None for runs that keep no model."""
    task: str = ""
    """Name of the task that the model was trained for; empty for a language model."""
    suite: str = ""
    """The suite under eval/ that this run is judged by; empty where nothing was scored."""
    base: str = ""
    """What the weights were at first: a folder (its name below the root of all runs, if it lies there) or a
    hub id; empty for random weights."""
    teacher: str = ""
    """What it learnt from, besides text: a folder, hub id or address, named as `base` is."""
    adapter: AdapterConfig | None = None
    """None where all weights were trained."""
    adapter_base: str = ""
    """What the adapter stands on, where that is not `base`."""
    seq_len: int = 0
    """Tokens of a training example at most; 0 for runs that train nothing."""
    splits: dict[str, SplitRecord] = {}
    """train, dev, test, replay: what was read."""
    canaries: CanaryRecord | None = None
    """What was planted in the training text, to see what the model keeps; None where nothing was."""
    suites: dict[str, SuiteRecord] = {}
    num_steps: int = 0
    params: int = 0
    """Parameters of the model that the run kept."""
    facts: dict[str, Any] = {}
    """What only the recipe's own report tells: tokenizer, student, merge_difference, best_step, ..."""

    @property
    def expects_passages(self) -> bool:
        """Whether the model was trained with looked-up passages before each question."""
        return bool(self.facts.get("looked_up"))


def placed_record(record: RunRecord, run: Run) -> RunRecord:
    """The record with other runs named below the root of all runs, so that they can move together."""
    root = run.path.parent
    names = {name: getattr(record, name) for name in ("base", "teacher", "adapter_base")}
    return record.model_copy(update={key: within_root(name, root) for key, name in names.items() if name})


def local_base(run: Path, base: str) -> Path | None:
    """Find the folder of a run's base: among the runs beside it, which move with it, or where it is named."""
    if not base:
        return None
    named = Path(base).expanduser()
    places = [run.parent / named, named]
    beside = Run(run.parent / named.parent.name)
    if beside.manifest_path.is_file():  # it was named with a root that may have moved since
        places.insert(0, beside.path / named.name)
    return next((folder for folder in places if folder.is_dir()), None)


def read_record(run: Run) -> RunRecord:
    """The record of a finished run.

    Raises: DataError for a run that has not ended, was made by an older release, or does not fit.
    """
    manifest = run.manifest()
    if "record" not in manifest:
        if manifest.get("status") != "finished":
            state = manifest.get("status", "unknown")
            raise DataError(
                f"this run has not ended (status: {state})",
                where=str(run.path),
                fix="run the same command again: it resumes",
            )
        raise DataError(OLDER, where=str(run.path), fix=AGAIN)
    return validated(RunRecord, manifest["record"], str(run.manifest_path))


def validated(kind: type[R], value: Any, where: str, format: int = FORMAT) -> R:
    """`value` as a record of this kind.

    Args:
        format: the version that is read.
    Raises: DataError for another format or content that does not fit.
    """
    if not isinstance(value, dict) or value.get("format", format) != format:
        raise DataError(OLDER, where=where, fix=AGAIN)
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        what = f"the record does not fit at '{key}': {first['msg']}"
        raise DataError(what, where=where, fix="delete the run directory and run again") from None
