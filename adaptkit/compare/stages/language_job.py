"""What a kind of training on text is: one class each, and what all of them are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from adaptkit.compare.workspace import Workspace
from adaptkit.data.readers import DataConfig
from adaptkit.run import Run
from adaptkit.study.arms import Adaptation, TextJob
from adaptkit.trainer.config import TrainerConfig

FULL_RATE, ADAPTER_RATE = 0.5, 3.0
"""Centres of the learning rates tried, relative to training all weights from scratch."""


@dataclass(frozen=True)
class JobOrder:
    """One training on text that a stage asks for.

    Attributes:
        share: of the domain text.
        flops: what it may spend.
    """

    workspace: Workspace
    job: TextJob
    share: float
    flops: float
    seed: int
    threads: int
    learning_rate: float

    @property
    def weights(self) -> Adaptation:
        """Which weights it moves."""
        return self.job.weights(Adaptation(self.workspace.config.continue_with))

    @property
    def trainer(self) -> TrainerConfig:
        """The study's trainer settings with what the plan decides."""
        settings = self.workspace.config.trainer.model_dump(exclude_unset=True)
        settings |= {"learning_rate": self.learning_rate, "seed": self.seed, "threads": self.threads}
        return TrainerConfig(**settings)


class LanguageJob(ABC):
    """One kind of training on text."""

    text: str = "domain"
    """The corpus that is learnt, and on whose development part the training is judged."""

    @abstractmethod
    def rate_share(self, weights: Adaptation) -> float:
        """Where the learning rates tried are centred, relative to training all weights from scratch."""

    @abstractmethod
    def train(self, order: JobOrder) -> tuple[Run, float]:
        """The finished run, and its score on development text, lower is better.

        Raises: BudgetError where the FLOPs buy too few steps.
        """


def adapted_rate(weights: Adaptation) -> float:
    return FULL_RATE if weights is Adaptation.FULL else ADAPTER_RATE


def files(path: Path) -> DataConfig:
    return DataConfig(files=[str(path)])
