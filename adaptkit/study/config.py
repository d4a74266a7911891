"""The config of a study: which arms are compared on which text and tasks, under which budget."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

import adaptkit.study.tasks  # noqa: F401 registers the kinds of task
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.config import Config, Count, Flops, Magnitude, Share, in_unit
from adaptkit.data.canaries import CanaryConfig
from adaptkit.pretrain.config import TokenizerConfig
from adaptkit.study.api import ApiConfig
from adaptkit.study.arms import Adaptation, Arm, Origin, with_text_arms
from adaptkit.study.budget import BudgetConfig
from adaptkit.study.rag import RagConfig
from adaptkit.study.task import CorpusConfig, TaskConfig
from adaptkit.trainer.config import TrainerConfig

DECIDED_BY_PLAN = ("learning_rate", "num_steps", "seed")
LANGUAGE = "language"
"""The task of the text ledger: predict held-out domain text."""


class DecisionConfig(Config):
    """What is preferred among arms that none beats by more than the margin, and the numbers for it."""

    prefer: Literal["cost", "quality", "latency", "forgetting", "simplicity"] = "cost"
    """cost: the cheapest to own at your traffic (the simplest where price or traffic is not given); quality:
    the best score; latency: the shortest wait; forgetting: the least general text forgotten; simplicity."""
    requests_per_month: Annotated[Magnitude, in_unit("requests")] = 0.0
    """Your traffic; 0 is not stated."""
    months: Annotated[Magnitude, in_unit("months")] = Field(12.0, gt=0, le=1200)
    """Over which a training is written off."""
    base_studies: Annotated[Magnitude, in_unit("studies")] = Field(10.0, ge=1, le=1e6)
    """Studies among which the cost of making the base is shared."""
    base_tokens: Annotated[Magnitude, in_unit("tokens")] = 0.0
    """Tokens that a given base was trained on, as its card says; 0 is not known."""


class MixedConfig(Config):
    """How the domain text is mixed into general text for `mixed`, a model from scratch (arXiv 2603.16177)."""

    domain_share: Share = Field(0.5, gt=0, lt=1)
    """Share of the rows that come from the domain text, from the first step to the last."""
    repetitions: Annotated[Magnitude, in_unit("passes")] = Field(16.0, ge=1, le=1000)
    """Passes over the domain text at most: where the budget reads it more often, general text takes the
    place, and the share is smaller. Up to 16 passes still teach, 40 do not (arXiv 2305.16264)."""


class TaptConfig(Config):
    """How `tapt` pretrains the base on the text of a task's training rows (arXiv 2004.10964)."""

    repetitions: Annotated[Magnitude, in_unit("passes")] = Field(16.0, ge=1, le=1000)
    """Passes over that text at most: it is small, and what the budget would pay for beyond them stays
    unspent. Up to 16 passes still teach, 40 do not (arXiv 2305.16264)."""


class ForecastConfig(Config):
    """Smaller trainings beside those that are compared, to forecast what other amounts would do."""

    share: Share = 0.0
    """FLOPs of all smaller trainings of an arm, as a share of the run that is compared, seed by seed. They
    come beside `budget`, the same for every arm that learns your text. 0 trains none and forecasts
    nothing."""
    least_steps: Annotated[Count, in_unit("steps")] = Field(192, ge=8)
    """Steps of the shortest of these trainings. The first steps fall in another way than later ones: from
    random weights a model learns how frequent tokens are, and one that starts from the base forgets before
    it learns. With half as many, laws predicted lower than was measured (benchmarks/truth)."""
    labels_share: Share = 0.0
    """FLOPs of all trainings of an arm with fewer labels, as a share of the run with all of them, task by
    task and seed by seed. They come beside `budget` and tell from how many labels on training beats
    prompting, and what twice the labels would buy. 0 trains none and forecasts nothing; 0.5 pays for
    three."""


class StudyConfig(Config):
    """Everything a study depends on."""

    COST_ONLY: ClassVar[frozenset[str]] = frozenset({"jobs"})
    PLACES: ClassVar[frozenset[str]] = frozenset({"base"})

    name: str
    """The study's name, and the first part of its folder's."""
    base: str = ""
    """The generic model: a HF folder or hub id. Empty makes one on the spot from `general.train`."""
    base_flops: Flops = 0.0
    """FLOPs to spend on making the base when `base` is empty."""
    api: ApiConfig | None = None
    """A model behind an API to compare with, as the arms api+prompt and api+rag: it is paid, and your texts
    go there."""
    domain: CorpusConfig
    """The company's own text."""
    general: CorpusConfig
    """General text: for the base made on the spot, replay, the placebo arm, and to measure forgetting."""
    tasks: list[TaskConfig] = []
    """Labelled tasks; bits per byte on the domain text is always measured."""
    rag: RagConfig | None = None
    """What arms that look things up search, beside the domain's own text."""
    arms: list[str] = []
    """Arms: an origin (`continued`) is scored on held-out text, `origin+adaptation` (`continued+full`) on
    the tasks. Left out, it is every arm that the data and the budget allow, controls among them."""
    without: list[str] = []
    """Arms, or origins with all of their arms, that are not wanted: [placebo], [generic+prompt]."""
    primary: str = ""
    """The task whose verdict decides the exit code: a task's name, or `language`. Empty is the first task."""
    budget: BudgetConfig
    """What each arm may spend per task and seed."""
    decision: DecisionConfig = DecisionConfig()
    """How one is chosen among equals."""
    seeds: Annotated[Count, in_unit("repetitions")] = Field(3, ge=1, le=100)
    """Repetitions of every training, each with its own initialisation, data order and few-shot draws."""
    forecast: ForecastConfig = ForecastConfig()
    """Whether it is forecast what more or less text, compute and labels would do."""
    margin: Annotated[Share, in_unit("bits per byte: share of the best score; tasks: score")] = Field(
        0.01, lt=1
    )
    """Smallest difference worth acting on: relative for bits per byte, absolute for task scores."""
    confidence: Share = Field(0.95, ge=0.5, lt=1)
    """Confidence of every interval."""
    size: SizeConfig = SizeConfig()
    """Size of the models trained from scratch, the base made on the spot among them."""
    sizes: list[Annotated[Count, Field(gt=0), in_unit("parameters")]] = []
    """Sizes at which the models from scratch are trained beside `size.params`, each with the FLOPs of the run
    that is compared, beside `budget`: [1M, 3M, 10M]. Learning rates are carried over from `size.params`. The
    report says whether what is decided at one size holds at the next."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The domain tokenizer (and the general one of a base made on the spot)."""
    replay_share: Share = Field(0.1, lt=1)
    """Share of general text mixed into continued pretraining."""
    extend_vocabulary: Annotated[Count, in_unit("vocabulary entries")] = Field(0, le=1_000_000)
    """Entries learnt from the domain text that the arm continued-vocabulary adds to the base's tokenizer, at
    most; the arm is otherwise that of continued, so what lies between the two is the vocabulary's. 0 adds
    none and has no such arm."""
    mixed: MixedConfig = MixedConfig()
    """The mixture of the origin `mixed`."""
    tapt: TaptConfig = TaptConfig()
    """The pretraining of the origin `tapt`."""
    adapter: AdapterConfig = AdapterConfig()
    """Rank and targets of adapters. `kind` is that of continued-lora; LoRA arms follow rslora and dora."""
    trainer: TrainerConfig = TrainerConfig()
    """Batch, schedule and precision of the language trainings; the plan sets rate, steps and seed."""
    canaries: CanaryConfig | None = None
    """Made-up secrets to plant in the domain's training text once tests and overlap are out of it, for
    `adaptkit audit` to look for; they count as text that is learnt."""
    jobs: Annotated[Count, in_unit("stages at once")] = Field(0, le=10_000)
    """Stages run at once; 0 takes one per GPU, each stage with its own; without a GPU one per core for models
    under 10M parameters, else one at a time."""

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names) or len(set(self.arms)) < len(self.arms):
            raise ValueError("arms and task names must be given each once")
        jobs = [name for name in self.arms if Arm.parse(name).ledger == "jobs"]
        if jobs and not self.tasks:
            raise ValueError(f"'{jobs[0]}' learns a task, and there is none: without tasks, arms are origins")
        for task in self.tasks:
            if task.depth != TaskConfig.model_fields["depth"].default and not task.task_kind.searches:
                raise ValueError(f"`depth` is for kind retrieve, and {task.name} is of kind '{task.kind}'")
            for name in task.without:
                if Arm.parse(name, where=f"tasks.{task.name}.without").ledger == "text":
                    raise ValueError(
                        f"'{name}' learns no task: in a task's `without`, name arms like generic+full"
                    )
        for name in self.without:
            if name != Origin.TAPT and Arm.parse(name, where="without") == Arm(Origin.GENERIC):
                raise ValueError(
                    "the base as it is cannot be left out: every other arm is measured against it"
                )
        if self.rag and jobs and not any(arm.looks_up for arm in map(Arm.parse, jobs)):
            raise ValueError("`rag` is set, and no arm looks anything up: name generic+rag, or leave it out")
        asked = [arm.name for arm in self.job_arms if arm.origin is Origin.API]
        if asked and self.api is None:
            raise ValueError(f"arm '{asked[0]}' needs `api`: url, model, price and ceiling")
        if self.primary not in ["", LANGUAGE, *names]:
            raise ValueError(
                f"primary must be 'language' or a task's name ({', '.join(names) or 'none given'})"
            )
        if self.forecast.share and not self.size.params:
            raise ValueError("a forecast compares models of one size: set size.params, or no forecast.share")
        self._check_sizes()
        if not self.base and not self.base_flops:
            raise ValueError(
                "give `base` (a HF folder or hub id), or `base_flops` to make one from the general text"
            )
        if self.tokenizer.new_tokens:
            raise ValueError("tokenizer.new_tokens is for `pretrain`: in a study, set extend_vocabulary")
        extending = {arm.origin: arm.name for arm in map(Arm.parse, self.arms)}.get(
            Origin.CONTINUED_VOCABULARY
        )
        if extending and not self.extend_vocabulary:
            raise ValueError(f"'{extending}' adds entries to the base's vocabulary: set extend_vocabulary")
        if taken := [key for key in DECIDED_BY_PLAN if key in self.trainer.model_fields_set]:
            raise ValueError(f"trainer.{taken[0]} is decided by the plan: from budget, trials and seeds")
        return self

    def _check_sizes(self) -> None:
        if not self.sizes:
            return
        if len(set(self.sizes)) < len(self.sizes):
            raise ValueError("sizes must be given each once")
        if not self.size.params:
            raise ValueError("sizes take their learning rates from the size that is tuned: set size.params")
        if len(self.ladder) < 2:
            raise ValueError("one size leaves nothing to compare: give sizes other than size.params")
        if not any(self.may_have(origin) for origin in Origin if origin.starts_random):
            raise ValueError(
                "sizes are those of models from scratch, and no arm is one: name scratch or mixed"
            )

    @property
    def ladder(self) -> tuple[int, ...]:
        """All sizes of models from scratch, ascending; that of the study is among them."""
        return tuple(sorted({*self.sizes, self.size.params})) if self.sizes else ()

    @property
    def decides(self) -> str:
        """The task whose verdict decides."""
        return self.primary or (self.tasks[0].name if self.tasks else LANGUAGE)

    @property
    def parsed_arms(self) -> list[Arm]:
        """The arms that are named, and those of the text ledger that they start from."""
        return with_text_arms(Arm.parse(name) for name in self.arms)

    def may_have(self, origin: Origin) -> bool:
        """Whether arms of an origin are named, or may be chosen where none are."""
        if self.arms:
            return any(arm.origin is origin for arm in self.parsed_arms)
        return origin.value not in self.without

    @property
    def text_arms(self) -> list[Arm]:
        return [arm for arm in self.parsed_arms if arm.ledger == "text"]

    @property
    def job_arms(self) -> list[Arm]:
        return [arm for arm in self.parsed_arms if arm.ledger == "jobs"]

    def task(self, name: str) -> TaskConfig:
        return next(task for task in self.tasks if task.name == name)

    def arms_on(self, task: TaskConfig) -> list[Arm]:
        """The arms that learn a task."""
        return [arm for arm in self.job_arms if learns(task, arm) and arm.name not in task.without]

    def tasks_of(self, arm: Arm) -> list[TaskConfig]:
        """The tasks that an arm learns; none for an arm of the text ledger."""
        return [task for task in self.tasks if learns(task, arm) and arm.name not in task.without]

    def adapter_of(self, adaptation: Adaptation) -> AdapterConfig:
        """The adapter that learns a task: rsLoRA and DoRA stand in for LoRA where asked for."""
        kind = "none" if adaptation in (Adaptation.FULL, Adaptation.RERANK) else adaptation.value
        if adaptation in (Adaptation.LORA, Adaptation.RAG_LORA):
            kind = self.adapter.kind if self.adapter.kind in ("rslora", "dora") else "lora"
        return self.adapter.model_copy(update={"kind": kind})

    def adapter_on_text(self, origin: Origin) -> AdapterConfig:
        """The adapter that a training on text moves; of kind `none` where all weights move."""
        kind = self.adapter.kind if self.adapter.kind != "none" else "lora"
        return self.adapter.model_copy(update={"kind": kind if origin is Origin.CONTINUED_LORA else "none"})


def learns(task: TaskConfig, arm: Arm) -> bool:
    """Whether an arm can learn tasks of this kind, from a base that can."""
    if arm.adaptation is None or (arm.origin.per_task and not task.task_kind.has_own_text):
        return False
    return task.task_kind.learns_by(arm.adaptation)
