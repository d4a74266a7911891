"""The config of a study: which arms are compared on which text and tasks, under which budget."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.config import Config, Count, Magnitude
from adaptkit.data.readers import DataConfig
from adaptkit.pretrain.config import TokenizerConfig
from adaptkit.study.arms import Arm
from adaptkit.study.budget import BudgetConfig
from adaptkit.trainer.config import TrainerConfig

TASK_METRICS = {
    "classify": ("accuracy", "macro_f1"),
    "label_words": ("accuracy", "macro_f1"),
    "generate": ("rouge_l", "exact_match"),
    "retrieve": ("ndcg_at_10", "mrr_at_10", "map", "recall_at_10", "recall_at_100"),
}
DECIDED_BY_PLAN = ("learning_rate", "num_steps", "seed")


class CorpusConfig(Config):
    """Rows to train on and rows held out for the final scores."""

    train: DataConfig
    """What models may be trained on; a part is held out for tuning."""
    test: DataConfig | None = None
    """What no model is trained or tuned on; a tenth of `train` (whole groups, by hash) if not given."""


class TaskConfig(CorpusConfig):
    """A labelled task: rows to train on and rows held out."""

    name: str
    """The task's name in tables and file names."""
    kind: Literal["classify", "label_words", "generate", "retrieve"] = "classify"
    """A classification head, the language model's own words for the labels, free text, or search by
    embeddings; `train` then names the folder of a retrieval set in BEIR's layout."""
    metric: str = ""
    """accuracy or macro_f1; rouge_l or exact_match for free text; ndcg_at_10, mrr_at_10, map, recall_at_10 or
    recall_at_100 for search. Empty takes the first."""
    max_length: Count = 256
    """Tokens after which a text is cut, for every trained arm and probe."""
    max_epochs: int = 8
    """Passes over the labelled rows at most: the budget is a ceiling, not a duty."""

    @model_validator(mode="after")
    def _known_metric(self) -> TaskConfig:
        if self.metric and self.metric not in TASK_METRICS[self.kind]:
            raise ValueError(
                f"metric must be one of {', '.join(TASK_METRICS[self.kind])} for kind '{self.kind}'"
            )
        if not self.name.replace("_", "a").replace("-", "a").isalnum() or self.name in (
            "language",
            "general",
        ):
            raise ValueError("a task's name is letters, digits, - and _, and not 'language' or 'general'")
        return self

    @property
    def score(self) -> str:
        return self.metric or TASK_METRICS[self.kind][0]


class StudyConfig(Config):
    """Everything a study depends on."""

    name: str
    """The study's name, and the first part of its folder's."""
    base: str = ""
    """The generic model: a HF folder or hub id. Empty makes one on the spot from `general.train`."""
    base_flops: Magnitude = 0.0
    """FLOPs to spend on making the base when `base` is empty."""
    domain: CorpusConfig
    """The company's own text."""
    general: CorpusConfig
    """General text: for the base made on the spot, replay, the placebo arm, and to measure forgetting."""
    tasks: list[TaskConfig] = []
    """Labelled tasks; bits per byte on the domain text is always measured."""
    arms: list[str] = ["generic+prompt", "generic+probe", "generic+lora", "continued+full", "scratch+full"]
    """Arms, as origin+adaptation."""
    primary: str = "language"
    """The task whose verdict decides the exit code: `language` or a task's name."""
    budget: BudgetConfig
    """What each arm may spend per seed."""
    seeds: int = 3
    """Repetitions of every training, each with its own initialisation, data order and few-shot draws."""
    fractions: list[float] = [1.0]
    """Shares of the domain text at which the language models are trained; the budget shrinks with the share."""
    margin: float = 0.01
    """Smallest difference worth acting on: relative for bits per byte, absolute for task scores."""
    confidence: float = 0.95
    """Confidence of every interval."""
    size: SizeConfig = SizeConfig()
    """Size of the models trained from scratch, the base made on the spot among them."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The domain tokenizer (and the general one of a base made on the spot)."""
    continue_with: Literal["full", "lora", "qlora"] = "full"
    """Which weights continued pretraining moves."""
    replay_share: float = 0.1
    """Share of general text mixed into continued pretraining."""
    adapter: AdapterConfig = AdapterConfig()
    """Rank and targets of the LoRA and QLoRA arms; its `kind` is set by the arm."""
    trainer: TrainerConfig = TrainerConfig()
    """Batch, schedule and precision of the language trainings; the plan sets learning rate, steps and seed."""
    jobs: int = 0
    """Stages run at once; 0 takes one per free core for models under 10M parameters on a CPU, else one at a
    time."""

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        for name in self.arms:
            Arm.parse(name)
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names) or len(set(self.arms)) < len(self.arms) or not self.arms:
            raise ValueError("arms and task names must be given, each once")
        if self.primary not in ["language", *names]:
            raise ValueError(
                f"primary must be 'language' or a task's name ({', '.join(names) or 'none given'})"
            )
        ascending = (
            self.fractions == sorted(set(self.fractions))
            and self.fractions[-1:] == [1.0]
            and self.fractions[0] > 0
        )
        if self.seeds < 1 or not ascending:
            raise ValueError("seeds >= 1 and fractions ascending within (0, 1], ending in 1.0, are needed")
        if not self.base and not self.base_flops:
            raise ValueError(
                "give `base` (a HF folder or hub id), or `base_flops` to make one from the general text"
            )
        if taken := [key for key in DECIDED_BY_PLAN if key in self.trainer.model_fields_set]:
            raise ValueError(f"trainer.{taken[0]} is decided by the plan: from budget, trials and seeds")
        return self

    @property
    def parsed_arms(self) -> list[Arm]:
        return [Arm.parse(name) for name in self.arms]
