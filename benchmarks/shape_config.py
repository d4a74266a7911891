"""What a file of benchmarks/shapes says: trainings, tests of their models, what is claimed of the scores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from adaptkit.config import Config, Count, Magnitude, Share, in_unit
from adaptkit.data.readers import DataConfig

DIVERGED = 1e9
"""Stands for the loss of a training that failed."""
TOY_BYTES, TOY_PAIRS = 60_000, 300_000
TOY_STEPS = 100
TOY = {"params": 160_000, "vocab_size": 512, "global_batch_size": 4, "seq_len": 64, "max_length": 48}
"""Settings at toy size."""


class TrainingConfig(Config):
    """One training, in all seeds, or a model that is scored as it is."""

    recipe: Literal["pretrain", "finetune", "embed", "none"] = "none"
    """What trains it; none scores `start` as it is."""
    like: str = ""
    """A training whose recipe, start, rates and settings it shares where it names none of its own."""
    start: str = ""
    """The training whose model it begins with, or a model's folder."""
    rates: list[Annotated[Magnitude, in_unit("none")]] = []
    """Learning rates; of several, the best on development text at the first seed is that of all seeds."""
    once: bool = False
    """Train it at the first seed alone: all seeds of others begin with the same model."""
    scored: bool = True
    """Whether it stands in the table; others are only begun with."""
    dropout: Share = 0.0
    """Dropout that the model it begins with is given, where its folder states none."""
    config: dict[str, Any] = {}
    """Settings of the recipe."""


class TestConfig(Config):
    """What models are scored on."""

    kind: Literal["text", "search", "labels"]
    """text: bits per byte; search: nDCG@10 of a retrieval set; labels: accuracy on the test of a
    fine-tuning itself."""
    data: DataConfig | None = None
    """Text, the folder of a retrieval set, or the test of a fine-tuning, which says what belongs together."""
    seq_len: Annotated[Count, in_unit("tokens")] = 256
    """Tokens that a model reads at once."""


class ClaimConfig(Config):
    """What is said of a test's scores: an order, or how far one training is ahead of another."""

    test: str
    """The test."""
    order: list[str] = []
    """Trainings, the best first: each is ahead of the next."""
    ahead: str = ""
    """The training that is ahead ..."""
    of: str = ""
    """... of this one ..."""
    by: list[float] = Field([0.0, 1e9], min_length=2, max_length=2)
    """... by this much at least and at most, in the test's metric; positive is better, whichever way that
    goes."""

    def pairs(self) -> list[tuple[str, str]]:
        """Which training is said to be ahead of which."""
        return list(zip(self.order, self.order[1:], strict=False)) if self.order else [(self.ahead, self.of)]


class ShapeConfig(Config):
    """One published effect, and how it is looked for."""

    name: str
    """Of the table."""
    source: str
    """The paper."""
    seeds: Annotated[Count, in_unit("repetitions")] = Field(2, ge=1)
    """Repetitions of every training."""
    tests: dict[str, TestConfig]
    """What the models are scored on."""
    trainings: dict[str, TrainingConfig]
    """What is trained."""
    claimed: list[ClaimConfig]
    """What the paper says, in words of these tests."""
    predicted: list[ClaimConfig]
    """What was expected here before the run."""

    def training(self, name: str) -> TrainingConfig:
        """A training with what it shares with others filled in."""
        own = self.trainings[name]
        if not own.like:
            return own
        shared = self.training(own.like)
        filled = {key: getattr(shared, key) for key in ("recipe", "start", "rates", "dropout")}
        filled |= {key: getattr(own, key) for key in own.model_fields_set}
        return TrainingConfig(**{**filled, "like": "", "config": merged(shared.config, own.config)})

    def seeds_of(self, name: str) -> list[int]:
        """The seeds that a training is run with."""
        training = self.training(name)
        return [0] if training.once or training.recipe == "none" else list(range(self.seeds))

    def tests_of(self, name: str) -> list[str]:
        """The tests that a training's model can take."""
        training = self.training(name)
        kind = {"embed": "search", "finetune": "labels"}.get(training.recipe, "text")
        return [test for test, its in self.tests.items() if training.scored and its.kind == kind]

    def depth(self, name: str) -> int:
        """How many trainings follow one another from this one on."""
        following = [key for key in self.trainings if self.training(key).start == name]
        return 1 + max(map(self.depth, following), default=0)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two trees of settings as one; where both say something, `above` counts."""
    tree = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(tree.get(key), dict) and "files" not in value
        tree[key] = merged(tree[key], value) if both else value
    return tree


def toy(tree: Any, key: str = "") -> Any:
    """The settings at a size that ends in seconds on a CPU."""
    if isinstance(tree, dict):
        small = {name: toy(value, name) for name, value in tree.items()}
        if "files" in tree:
            small["max_bytes"] = TOY_PAIRS if key == "train" else TOY_BYTES
        return small
    if key == "num_steps":
        return max(2, tree // TOY_STEPS)
    if key == "epochs":
        return 0.1
    return TOY.get(key, tree)
