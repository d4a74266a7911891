"""Arms: an origin (what the weights start from) times an adaptation (how the task is learnt).

An arm's score on *language* (bits per byte of held-out domain text) belongs to a language model. Arms of the
origins `continued`, `scratch`, `distilled` and `placebo` share their origin's model; `generic` with a
trainable adaptation spends its budget on the same domain text through that adaptation; `generic+prompt` and
`generic+probe` use the base model as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.errors import ConfigError, nearest

ORIGINS = {
    "generic": "the base model as it is",
    "continued": "the base model after more pretraining on the domain text",
    "scratch": "random weights and a domain tokenizer, pretrained on the domain text alone",
    "placebo": "the base model after as much more pretraining on general text: what training alone buys",
    "distilled": "a smaller student of the best teacher so far",
}
ADAPTATIONS = {
    "prompt": "prompted, nothing trained on the task",
    "probe": "frozen features: under a linear head, or as vectors to search by",
    "lora": "low-rank adapters",
    "qlora": "low-rank adapters on a 4-bit base",
    "full": "all weights",
}
TRAINABLE = ("lora", "qlora", "full")
AVAILABLE = tuple(f"{origin}+{adaptation}" for origin in ORIGINS for adaptation in ADAPTATIONS)


@dataclass(frozen=True)
class Arm:
    """One strategy, named `origin+adaptation`."""

    origin: str
    adaptation: str

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Raises: ConfigError for a name that is no known `origin+adaptation`."""
        if name not in AVAILABLE:
            raise ConfigError(
                f"unknown arm '{name}'{nearest(name, AVAILABLE)}",
                where="arms",
                fix="choose from " + ", ".join(AVAILABLE),
            )
        return cls(*name.split("+"))

    @property
    def name(self) -> str:
        return f"{self.origin}+{self.adaptation}"

    @property
    def describe(self) -> str:
        return f"{ORIGINS[self.origin]}; {ADAPTATIONS[self.adaptation]}"

    @property
    def language_job(self) -> str | None:
        """The name of the language training whose model this arm is scored on; None for the base as it is."""
        if self.origin != "generic":
            return self.origin
        return self.name if self.adaptation in TRAINABLE else None

    @property
    def origin_job(self) -> str | None:
        """The language training whose model the labelled task starts from; None for the base as it is."""
        return None if self.origin == "generic" else self.origin


def language_jobs(arms: list[Arm]) -> list[str]:
    """The language trainings that `arms` need, each once, in order; a student comes after all that may be its
    teacher."""
    jobs = dict.fromkeys(job for arm in arms if (job := arm.language_job))
    return sorted(jobs, key=lambda job: job == "distilled")


def job_adapter(job: str, continue_with: str) -> str:
    """`full`, `lora` or `qlora`: which weights a language job trains."""
    if job in ("scratch", "distilled"):
        return "full"
    return job.partition("+")[2] or continue_with
