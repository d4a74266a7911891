"""Arms: an origin (what the weights start from) with an adaptation (how the task is learnt).

An arm's score on *language* (bits per byte of held-out domain text) belongs to a language model. Arms of the
origins `continued`, `scratch`, `distilled` and `placebo` share their origin's model. `generic` with a trained
adaptation spends its budget on the same domain text through that adaptation; `generic+prompt` and
`generic+probe` use the base model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from adaptkit.errors import ConfigError, nearest


class Origin(StrEnum):
    """What the weights of an arm start from."""

    GENERIC = "generic"
    CONTINUED = "continued"
    SCRATCH = "scratch"
    PLACEBO = "placebo"
    DISTILLED = "distilled"

    @property
    def describe(self) -> str:
        return ORIGIN_WORDS[self]


class Adaptation(StrEnum):
    """How an arm learns a task."""

    PROMPT = "prompt"
    PROBE = "probe"
    LORA = "lora"
    QLORA = "qlora"
    FULL = "full"

    @property
    def trains(self) -> bool:
        """Whether weights of the model move."""
        return self in (Adaptation.LORA, Adaptation.QLORA, Adaptation.FULL)

    @property
    def is_a_model(self) -> bool:
        """Whether what answers can be served: a probe is a regression on another model's features."""
        return self is not Adaptation.PROBE

    @property
    def describe(self) -> str:
        return ADAPTATION_WORDS[self]


ORIGIN_WORDS = {
    Origin.GENERIC: "the base model as it is",
    Origin.CONTINUED: "the base model after more pretraining on the domain text",
    Origin.SCRATCH: "random weights and a domain tokenizer, pretrained on the domain text alone",
    Origin.PLACEBO: "the base model after as much more pretraining on general text: what training alone buys",
    Origin.DISTILLED: "a smaller student of the best teacher so far",
}
ADAPTATION_WORDS = {
    Adaptation.PROMPT: "prompted, nothing trained on the task",
    Adaptation.PROBE: "frozen features: under a linear head, or as vectors to search by",
    Adaptation.LORA: "low-rank adapters",
    Adaptation.QLORA: "low-rank adapters on a 4-bit base",
    Adaptation.FULL: "all weights",
}


@dataclass(frozen=True)
class TextJob:
    """One training on text, whose model all arms share that start from it.

    Attributes:
        adaptation: which weights of the untouched base move; None for every other origin.
    """

    origin: Origin
    adaptation: Adaptation | None = None

    @property
    def name(self) -> str:
        """For people and for file names."""
        return self.origin.value if self.adaptation is None else f"{self.origin}+{self.adaptation}"

    def weights(self, continue_with: Adaptation) -> Adaptation:
        """Which weights the job trains: `continue_with` is the study's choice for continued pretraining."""
        if self.adaptation is not None:
            return self.adaptation
        return Adaptation.FULL if self.origin in (Origin.SCRATCH, Origin.DISTILLED) else continue_with


@dataclass(frozen=True)
class Arm:
    """One strategy, named `origin+adaptation`."""

    origin: Origin
    adaptation: Adaptation

    @classmethod
    def parse(cls, name: str) -> Arm:
        """The arm that a config names.

        Raises: ConfigError for a name that is no known `origin+adaptation`.
        """
        if name not in ARMS:
            fix = "choose from " + ", ".join(ARMS)
            raise ConfigError(f"unknown arm '{name}'{nearest(name, tuple(ARMS))}", where="arms", fix=fix)
        return ARMS[name]

    @property
    def name(self) -> str:
        return f"{self.origin}+{self.adaptation}"

    @property
    def describe(self) -> str:
        return f"{self.origin.describe}; {self.adaptation.describe}"

    @property
    def language_job(self) -> TextJob | None:
        """The training on text whose model this arm is scored on; None for the base as it is."""
        if self.origin is not Origin.GENERIC:
            return TextJob(self.origin)
        return TextJob(self.origin, self.adaptation) if self.adaptation.trains else None

    @property
    def origin_job(self) -> TextJob | None:
        """The training on text that the labelled task starts from; None for the base as it is."""
        return None if self.origin is Origin.GENERIC else TextJob(self.origin)


ARMS = {arm.name: arm for arm in (Arm(origin, adaptation) for origin in Origin for adaptation in Adaptation)}
"""Every arm by its name."""


def language_jobs(arms: Sequence[Arm]) -> list[TextJob]:
    """The trainings on text that `arms` need, each once, in order; a student comes after its teachers."""
    jobs = dict.fromkeys(job for arm in arms if (job := arm.language_job))
    return sorted(jobs, key=lambda job: job.origin is Origin.DISTILLED)
