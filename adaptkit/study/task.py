"""What a kind of task is: the one class that a new kind implements, and the registry that finds it.

    class Stars(RowKind):                 # a file of your own
        name, want, metrics = "stars", "labelled", ("accuracy",)
        ...

    register(Stars())                     # one line; from another package: entry point "adaptkit.task_kinds"

A study asks its kind for everything that differs between tasks: which rows are read and written, what a step
costs, how a frozen or a trained model answers, what answers without a language model, and what is measured.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.config import Config, Count, Magnitude, Tokens, in_unit
from adaptkit.data.json_fields import Schema
from adaptkit.data.readers import DataConfig, Dataset, Row
from adaptkit.errors import nearest
from adaptkit.model_uses import Use
from adaptkit.run import Run
from adaptkit.study.arms import SEARCHING, Adaptation, Arm
from adaptkit.study.own_metric import OWN_METRICS, OwnMetric, why_no_own_metric
from adaptkit.study.rag import Library
from adaptkit.study.task_answers import Answers, Baseline
from adaptkit.study.task_size import TaskSize
from adaptkit.study.tuning import LearningRates, for_length

if TYPE_CHECKING:
    from adaptkit.client.paid import PaidClient
    from adaptkit.finetune.prompt_passages import Lookup

TEST_SHARE = 0.1
PROMPT_FIELDS = ("instruction", "labels", "examples", "fields")
"""Settings of a task that its kind may leave unread."""
MAX_LENGTH = 256  # tokens of a text that a task reads where nothing else is said


class CorpusConfig(Config):
    """Rows to train on and rows held out for the final scores."""

    train: DataConfig
    """What models may be trained on; a part is held out for tuning."""
    test: DataConfig | None = None
    """What no model is trained or tuned on; a tenth of `train` (whole groups) if not given."""
    split: Literal["hash", "time"] = "hash"
    """How that tenth is taken: by hash, or the newest rows by their `time` column."""
    test_items: Annotated[Count, in_unit("passages")] = 400
    """Test passages at most, drawn by hash from all of the test; 0 takes all there are."""
    dev_items: Annotated[Count, in_unit("passages")] = 100
    """Passages to tune on at most, drawn by hash from training documents held out for it; 0 takes all of
    them."""

    @model_validator(mode="after")
    def _fitting_split(self) -> CorpusConfig:
        if self.split == "time" and self.test is not None:
            raise ValueError("split: time takes the newest tenth of `train`; leave out `test`, or `split`")
        return self


def _named_by_text(labels: Any) -> Any:
    """Labels by their names as rows have them: YAML reads 1 and true as something else."""
    if not isinstance(labels, dict):
        return labels
    return {name if isinstance(name, str) else json.dumps(name): meaning for name, meaning in labels.items()}


class TaskConfig(CorpusConfig):
    """A labelled task: rows to train on and rows held out."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"metric_file"})
    COST_ONLY: ClassVar[frozenset[str]] = frozenset({"metric_seconds"})

    name: str
    """The task's name in tables and file names."""
    kind: str = "classify"
    """classify: a classification head; label_words: the language model's own words for the labels; generate:
    free text; retrieve: search by embeddings, where `train` names the folder of a retrieval set in BEIR's
    layout; multi_label: any number of labels; spans: parts of a text with a label each; regression: a number;
    pairs: a label for two texts, or which of two answers is preferred; extract: fields, as a JSON object."""
    metric: str = ""
    """accuracy or macro_f1; micro_f1 or macro_label_f1 for several labels; entity_f1 or macro_entity_f1 for
    spans; spearman or mae for numbers; field_f1, macro_field_f1, json_exact_match or valid_json for fields;
    rouge_l or exact_match for free text; ndcg_at_10, mrr_at_10, map, recall_at_10 or recall_at_100 for
    search. own_score (more is better) or own_error (less is better) is what `metric_file` gives. Empty takes
    the first."""
    metric_file: str = ""
    """A Python file of yours with score(items), one number for each item, or a local module of `evaluate`."""
    metric_seconds: Annotated[Magnitude, in_unit("seconds")] = Field(120.0, gt=0)
    """What `metric_file` may take for one set of items."""
    instruction: str = ""
    """What to do, in your words, for prompted arms. Empty is made from the labels, or from the kind of task,
    and shown by the dry run."""
    labels: Annotated[dict[str, str], BeforeValidator(_named_by_text)] = {}
    """Label -> what it means, for prompted arms; labels that are left out are only named."""
    examples: Annotated[Count | None, in_unit("examples")] = Field(None, le=256)
    """Examples in a prompt at most, drawn by hash from training rows, labels in turns; formats without any
    compete with them. Left out, it is one of each label (4 to 16 in all), or 2 for free text."""
    fields: dict[str, Any] = {}
    """Field -> its type, for `extract`: string, number, integer, boolean, `list of` one of these, the texts
    it may be, {field: type} of an object, [{field: type}] of several. Left out, those of training rows."""
    max_length: Tokens = 0
    """Tokens after which a text is cut, for every arm. 0 takes 256, or as many as all models have positions
    for."""
    max_epochs: Annotated[Count, in_unit("epochs")] = Field(8, ge=1, le=10_000)
    """Passes over the labelled rows at most: the budget is a ceiling, not a duty."""
    test_items: Annotated[Count, in_unit("rows or queries")] = 2000
    """Test rows or queries at most, drawn by hash; labels, sources and groups keep shares; 0 takes all."""
    depth: Annotated[Count, in_unit("documents per query")] = Field(50, ge=2, le=1000)
    """Documents that `rerank` arms read again of what a search has found; for kind `retrieve`."""
    dev_items: Annotated[Count, in_unit("rows or queries")] = 300
    """Rows or queries to tune on at most, and at most a fifth of the training rows; 0 takes that fifth."""
    without: list[str] = []
    """Arms that are left out on this task, of those that could learn it."""

    @field_validator("fields")
    @classmethod
    def _known_types(cls, fields: dict[str, Any]) -> dict[str, Any]:
        Schema.of(fields)
        return fields

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, kind: str) -> str:
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}{nearest(kind, tuple(KINDS))}")
        return kind

    @model_validator(mode="after")
    def _known_metric(self) -> TaskConfig:
        metrics = self.task_kind.metrics
        if wrong := why_no_own_metric(self.metric, self.metric_file, self.task_kind.takes_own_metric):
            raise ValueError(wrong)
        if self.metric not in ("", *OWN_METRICS, *metrics):
            raise ValueError(f"metric must be one of {', '.join(metrics)} for kind '{self.kind}'")
        letters = self.name.replace("_", "a").replace("-", "a")
        if not letters.isalnum() or self.name in ("language", "general"):
            raise ValueError("a task's name is letters, digits, - and _, and not 'language' or 'general'")
        unread = [name for name in PROMPT_FIELDS if getattr(self, name) and name not in self.task_kind.asks]
        if unread:
            reads = "is for kind extract" if unread[0] == "fields" else "is for prompts"
            raise ValueError(f"`{unread[0]}` {reads}, and a task of kind '{self.kind}' reads none")
        return self

    @property
    def task_kind(self) -> TaskKind:
        return KINDS[self.kind]

    @property
    def score(self) -> str:
        """The metric that decides."""
        return self.metric or self.task_kind.metrics[0]

    @property
    def tuned_by(self) -> str:
        """The metric that settings without training are chosen by: for one's own, the kind's first."""
        return self.task_kind.metrics[0] if self.own_metric else self.score

    @property
    def own_metric(self) -> OwnMetric | None:
        """The user's metric; None where one of the kit's decides."""
        if self.metric not in OWN_METRICS:
            return None
        return OwnMetric(self.metric, Path(self.metric_file), self.metric_seconds)


@dataclass(frozen=True)
class TaskFiles:
    """Where the prepared rows of a task lie; the folder is for kinds that keep more than rows."""

    folder: Path
    train: Path
    dev: Path
    test: Path


@dataclass(frozen=True)
class CorpusRows:
    """What was read of a data set.

    Attributes:
        train: training rows without duplicates.
        test: the items to judge on, drawn from the test rows without duplicates.
        duplicates: counts of repeated training rows.
        documents: what the passages of a text were drawn from; empty for rows.
        num_test_rows, num_test_duplicates: test rows that were read, and that repeat others.
        drawn: a sentence on how the items were drawn.
    """

    train: Dataset
    test: Dataset
    duplicates: dict[str, int] = field(default_factory=dict)
    documents: tuple[Row, ...] = ()
    num_test_rows: int = 0
    num_test_duplicates: int = 0
    drawn: str = ""


@dataclass(frozen=True)
class Assignment:
    """One arm on one task: what a kind is given to work with.

    Attributes:
        origin: folder of the model to start from.
        adapter: the low-rank update of this arm; its kind is `none` where all weights move.
        trials: settings that a frozen arm may try.
        flops: what a trained arm may spend, scoring on development rows included.
        learning_rate: the rate of a trial, or the best that was tried.
        tried_steps: steps of the trial whose rate it is; 0 where it needs no correction.
        tuning: a trial is judged on dev rows at its end and not tested.
        open: opens the run of a recipe's settings, by name.
        library: what passages are looked up in.
        lookup: how, where another arm has chosen that; None takes the first way that would be tried.
        api: the model of an arm that has no folder, but is asked over an API.
    """

    task: TaskConfig
    files: TaskFiles
    arm: Arm
    origin: Path
    seed: int
    threads: int
    trials: int
    adapter: AdapterConfig
    flops: float
    learning_rate: float
    tried_steps: int
    tuning: bool
    open: Callable[[str, Config], Run]
    library: Library | None = None
    lookup: Lookup | None = None
    api: PaidClient | None = None

    @property
    def name(self) -> str:
        """Of the run, and in messages."""
        return f"{self.task.name}-{self.arm.name}"

    def rate_for(self, num_steps: int) -> float:
        """The learning rate of a training of so many steps."""
        if not self.tried_steps:
            return self.learning_rate
        return for_length(self.learning_rate, self.tried_steps, num_steps)


class TaskKind(ABC):
    """One kind of task."""

    name: ClassVar[str]  # as configs write it
    family: ClassVar[str]
    """What reports show it as: classify, multi_label, spans, regression, generate, extract or retrieve."""
    metrics: ClassVar[tuple[str, ...]]  # what it is scored by; the first decides unless the config names one
    cannot: ClassVar[frozenset[Adaptation]] = frozenset({Adaptation.RAG, Adaptation.RAG_LORA})
    """Adaptations that give no answer to it."""
    asks: ClassVar[frozenset[str]] = frozenset()  # which of `PROMPT_FIELDS` its prompts are made of
    takes_own_metric: ClassVar[bool] = False  # whether a user's metric can judge its item rows, one by one
    searches: ClassVar[bool] = False  # whether it ranks documents: SEARCHING adaptations learn it
    has_own_text: ClassVar[bool] = False  # whether its rows are texts to pretrain on: see `own_texts`
    rates: ClassVar[LearningRates]
    batch_rows: ClassVar[int]  # of an optimizer step

    @abstractmethod
    def read(self, corpus: CorpusConfig) -> CorpusRows:
        """Read the rows that overlap is looked for in.

        Raises: DataError for rows that cannot be used.
        """

    @abstractmethod
    def prepare(self, files: TaskFiles, corpus: CorpusConfig, rows: CorpusRows) -> None:
        """Write the rows that every arm will read; `rows.train` holds no test rows any more.

        Raises: DataError where the parts do not fit together.
        """

    def clusters(self, files: TaskFiles, rows: CorpusRows) -> dict[str, str]:
        """Test item -> what it belongs to, by the ids that the item rows of arms have."""
        return {row.id: row.cluster for row in rows.test.rows}

    def own_texts(self, files: TaskFiles) -> dict[str, list[str]]:
        """Texts of its rows without labels or answers: of `train` to pretrain on, of `dev` to judge by."""
        return {}

    @abstractmethod
    def size(self, task: TaskConfig) -> TaskSize:
        """How much there is to read, from the raw rows: what plans and budgets are made from."""

    def texts(self, task: TaskConfig) -> list[str]:
        """The raw texts that `max_length` cuts, for a plan to say how many it cuts."""
        return []

    def size_for(self, task: TaskConfig, size: TaskSize, adaptation: Adaptation) -> TaskSize:
        """The same, as an arm reads it."""
        return size

    def instruction(self, task: TaskConfig) -> str:
        """What a prompt says before its texts, from the raw rows; empty for a kind that is not prompted."""
        return ""

    @abstractmethod
    def frozen(self, work: Assignment) -> Answers:
        """Answer with a model that is not trained: prompted, or by its features."""

    @abstractmethod
    def train(self, work: Assignment) -> Run:
        """Train an arm and score it under the task's name; the run is finished when this returns."""

    @abstractmethod
    def baseline(self, task: TaskConfig, files: TaskFiles) -> Baseline | None:
        """Answers without any language model; None where there are none."""

    @abstractmethod
    def tuning_score(self, dev: dict[str, float], metric: str) -> float:
        """What trials are compared by; lower is better."""

    def scoring_passes(self, tuning: bool) -> int:
        """How often a training reads the development rows, beside learning."""
        return 1

    @abstractmethod
    def use(self, adaptation: Adaptation) -> Use:
        """What an arm needs of the model that it starts from."""

    def learns_by(self, adaptation: Adaptation) -> bool:
        return self.searches if adaptation in SEARCHING else adaptation not in self.cannot

    def scores(self, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
        """The task's metrics of item rows; empty without rows."""
        from adaptkit.study.scores import score_table

        own = [name for name in OWN_METRICS if name in rows[0]] if rows else []
        return {name: score_table(name, rows).value for name in [*self.metrics, *own]} if rows else {}


KINDS: dict[str, TaskKind] = {}
"""Every registered kind by its name."""


def register(kind: TaskKind) -> None:
    """Make a kind known to studies; a later one of the same name replaces the earlier."""
    KINDS[kind.name] = kind
