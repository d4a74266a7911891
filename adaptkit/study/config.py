"""The config of a study: which arms are compared on which text and tasks, under which budget."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import model_validator

import adaptkit.study.tasks  # noqa: F401 registers the kinds of task
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.config import Config, Flops, Share, in_unit
from adaptkit.pretrain.config import TokenizerConfig
from adaptkit.study.arms import Adaptation, Arm
from adaptkit.study.budget import BudgetConfig
from adaptkit.study.task import CorpusConfig, TaskConfig
from adaptkit.trainer.config import TrainerConfig

DECIDED_BY_PLAN = ("learning_rate", "num_steps", "seed")


class StudyConfig(Config):
    """Everything a study depends on."""

    name: str
    """The study's name, and the first part of its folder's."""
    base: str = ""
    """The generic model: a HF folder or hub id. Empty makes one on the spot from `general.train`."""
    base_flops: Flops = 0.0
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
    seeds: Annotated[int, in_unit("repetitions")] = 3
    """Repetitions of every training, each with its own initialisation, data order and few-shot draws."""
    fractions: list[Share] = [1.0]
    """Shares of the domain text that language models are trained on; the budget shrinks with the share."""
    margin: Annotated[float, in_unit("bits per byte: share of the generic score; tasks: score")] = 0.01
    """Smallest difference worth acting on: relative for bits per byte, absolute for task scores."""
    confidence: Share = 0.95
    """Confidence of every interval."""
    size: SizeConfig = SizeConfig()
    """Size of the models trained from scratch, the base made on the spot among them."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """The domain tokenizer (and the general one of a base made on the spot)."""
    continue_with: Literal["full", "lora", "qlora"] = "full"
    """Which weights continued pretraining moves."""
    replay_share: Share = 0.1
    """Share of general text mixed into continued pretraining."""
    adapter: AdapterConfig = AdapterConfig()
    """Rank and targets of the LoRA and QLoRA arms; its `kind` is set by the arm."""
    trainer: TrainerConfig = TrainerConfig()
    """Batch, schedule and precision of the language trainings; the plan sets rate, steps and seed."""
    jobs: Annotated[int, in_unit("stages at once")] = 0
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

    def task(self, name: str) -> TaskConfig:
        return next(task for task in self.tasks if task.name == name)

    def arms_on(self, task: TaskConfig) -> list[Arm]:
        """The arms that can learn a task."""
        return [arm for arm in self.parsed_arms if task.task_kind.learns_by(arm.adaptation)]

    def adapter_of(self, adaptation: Adaptation) -> AdapterConfig:
        """The adapter that an adaptation means here: rsLoRA and DoRA stand in for LoRA where asked for."""
        kind = "none" if adaptation is Adaptation.FULL else adaptation.value
        if adaptation is Adaptation.LORA and self.adapter.kind in ("rslora", "dora"):
            kind = self.adapter.kind
        return self.adapter.model_copy(update={"kind": kind})
