"""Arms: what is compared. An arm of the text ledger is a model; one of the jobs ledger is a pipeline.

    Arm(Origin.CONTINUED)                       `continued`: scored on held-out text, in bits per byte
    Arm(Origin.CONTINUED, Adaptation.FULL)      `continued+full`: scored on a labelled task

The two are never mixed: a text arm says which way of learning the text models it best, a job arm which
pipeline does the job. A job arm starts from the model of the text arm of its origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from adaptkit.errors import ConfigError, nearest

Ledger = Literal["text", "jobs"]


class Origin(StrEnum):
    """What the weights of an arm start from."""

    GENERIC = "generic"
    CONTINUED = "continued"
    CONTINUED_LORA = "continued-lora"
    CONTINUED_VOCABULARY = "continued-vocabulary"
    MIXED = "mixed"
    SCRATCH = "scratch"
    TAPT = "tapt"
    PLACEBO = "placebo"
    DISTILLED = "distilled"
    API = "api"

    @property
    def learns_text(self) -> bool:
        """Whether a training on text makes it."""
        return self not in (Origin.GENERIC, Origin.API)

    @property
    def has_weights(self) -> bool:
        """Whether its weights are here, to be scored on text and adapted."""
        return self is not Origin.API

    @property
    def learns_domain(self) -> bool:
        """Whether it is trained on the domain text."""
        return self.learns_text and self not in (Origin.PLACEBO, Origin.TAPT)

    @property
    def has_law(self) -> bool:
        """Whether it is forecast: its score follows from the domain text that it reads alone."""
        return self.learns_domain and self is not Origin.DISTILLED

    @property
    def per_task(self) -> bool:
        """Whether each task has a training on text of its own, on the text of its rows."""
        return self is Origin.TAPT

    @property
    def has_text_arm(self) -> bool:
        """Whether it is an arm of the text ledger."""
        return self.has_weights and not self.per_task

    @property
    def starts_random(self) -> bool:
        """Whether it starts from random weights and a vocabulary of its own."""
        return self in (Origin.MIXED, Origin.SCRATCH)

    @property
    def replays(self) -> bool:
        """Whether it is the base on domain text, with general text mixed in against forgetting."""
        return self in (Origin.CONTINUED, Origin.CONTINUED_LORA, Origin.CONTINUED_VOCABULARY)

    @property
    def keeps_training(self) -> bool:
        """Whether it is the base after more training."""
        return self.replays or self in (Origin.TAPT, Origin.PLACEBO)

    @property
    def own_vocabulary(self) -> bool:
        """Whether its tokens are others than the base's."""
        return self.starts_random or self is Origin.CONTINUED_VOCABULARY

    @property
    def describe(self) -> str:
        return ORIGIN_WORDS[self]


class Adaptation(StrEnum):
    """How an arm learns a task."""

    PROMPT = "prompt"
    RAG = "rag"
    PROBE = "probe"
    HYBRID = "hybrid"
    LORA = "lora"
    QLORA = "qlora"
    RAG_LORA = "rag-lora"
    FULL = "full"
    RERANK = "rerank"

    @property
    def trains(self) -> bool:
        """Whether weights of the model move."""
        return self not in (Adaptation.PROMPT, Adaptation.RAG, Adaptation.PROBE, Adaptation.HYBRID)

    @property
    def looks_up(self) -> bool:
        """Whether passages that are looked up for each item stand in its prompts."""
        return self in (Adaptation.RAG, Adaptation.RAG_LORA)

    @property
    def is_prompted(self) -> bool:
        """Whether a model is asked in words, and nothing is trained on the task."""
        return self in (Adaptation.PROMPT, Adaptation.RAG)

    @property
    def is_a_model(self) -> bool:
        """Whether what answers can be served: a probe is a regression on another model's features, a hybrid
        searches by words as well."""
        return self not in (Adaptation.PROBE, Adaptation.HYBRID)

    @property
    def describe(self) -> str:
        return ADAPTATION_WORDS[self]


ORIGIN_WORDS = {
    Origin.GENERIC: "the base model as it is",
    Origin.CONTINUED: "the base model after more pretraining, all weights, on domain text and replay",
    Origin.CONTINUED_LORA: "the base model after more pretraining, by adapters, on domain text and replay",
    Origin.CONTINUED_VOCABULARY: "the base model with tokens of the domain added, after the same pretraining",
    Origin.MIXED: "random weights and a domain tokenizer, pretrained on domain text mixed into general text",
    Origin.SCRATCH: "random weights and a domain tokenizer, pretrained on the domain text alone",
    Origin.TAPT: "the base model after more pretraining on the text of the task's own training rows",
    Origin.PLACEBO: "the base model after as much more pretraining on general text: what training alone buys",
    Origin.DISTILLED: "a smaller student of the best teacher so far",
    Origin.API: "a model behind an API, paid by the token",
}
ADAPTATION_WORDS = {
    Adaptation.PROMPT: "prompted, nothing trained on the task",
    Adaptation.RAG: "prompted with passages that are looked up for each item, nothing trained on the task",
    Adaptation.PROBE: "frozen features: under a linear head, or as vectors to search by",
    Adaptation.HYBRID: "frozen vectors and shared words (BM25), fused in the way that is best on development",
    Adaptation.LORA: "low-rank adapters",
    Adaptation.QLORA: "low-rank adapters on a 4-bit base",
    Adaptation.RAG_LORA: "low-rank adapters, learnt and asked with passages that are looked up for each item",
    Adaptation.FULL: "all weights",
    Adaptation.RERANK: "all weights, as a reranker: it reads again what words, or words and vectors, find",
}


@dataclass(frozen=True)
class Arm:
    """One strategy: an origin, and for labelled tasks how they are learnt from there.

    Attributes:
        adaptation: None for an arm of the text ledger.
    """

    origin: Origin
    adaptation: Adaptation | None = None

    @classmethod
    def parse(cls, name: str, where: str = "arms") -> Arm:
        """The arm that a config names.

        Raises: ConfigError for a name that is neither an origin nor `origin+adaptation`.
        """
        if name == Origin.TAPT:
            what = "'tapt' learns the text of a task's rows, so it is an arm of tasks only"
            raise ConfigError(what, where=where, fix="name tapt+full, or tapt+lora")
        if name not in ARMS:
            fix = "choose from " + ", ".join(ARMS)
            raise ConfigError(f"unknown arm '{name}'{nearest(name, tuple(ARMS))}", where=where, fix=fix)
        return ARMS[name]

    @property
    def name(self) -> str:
        return self.origin.value if self.adaptation is None else f"{self.origin}+{self.adaptation}"

    @property
    def ledger(self) -> Ledger:
        return "text" if self.adaptation is None else "jobs"

    def text_of(self, task: str) -> str | None:
        """The task on whose text its origin is trained, where that is none of the study's texts."""
        return task if self.origin.per_task else None

    @property
    def trains_on_task(self) -> bool:
        """Whether weights move for a labelled task."""
        return self.adaptation is not None and self.adaptation.trains

    @property
    def learns_labels(self) -> bool:
        """Whether it learns from a task's labels alone, and more from more of them."""
        learning = (Adaptation.PROBE, Adaptation.LORA, Adaptation.QLORA, Adaptation.FULL)
        return self.adaptation in learning

    @property
    def looks_up(self) -> bool:
        """Whether passages that are looked up stand in its prompts."""
        return self.adaptation is not None and self.adaptation.looks_up

    @property
    def is_fixed(self) -> bool:
        """Whether nothing of it is random: every seed answers alike."""
        frozen = self.adaptation in (Adaptation.PROBE, Adaptation.HYBRID)
        return frozen and self.origin is Origin.GENERIC

    @property
    def describe(self) -> str:
        if self.adaptation is None:
            return self.origin.describe
        return f"{self.origin.describe}; {self.adaptation.describe}"


IN_WORDS = frozenset({Adaptation.PROMPT, Adaptation.RAG, Adaptation.RAG_LORA})
"""Adaptations whose answers are read as text."""
SEARCHING = frozenset({Adaptation.HYBRID, Adaptation.RERANK})
"""Adaptations that rank documents, and do nothing else."""
ASKED = (Adaptation.PROMPT, Adaptation.RAG)
"""What can be done with a model whose weights are not here."""
ARMS = {
    arm.name: arm
    for arm in (
        *(Arm(origin) for origin in Origin if origin.has_text_arm),
        *(
            Arm(origin, adaptation)
            for origin in Origin
            for adaptation in Adaptation
            if origin.has_weights or adaptation in ASKED
        ),
    )
}
"""Every arm by its name, those of the text ledger first."""


def text_trainings(arms: Iterable[Arm]) -> list[Origin]:
    """The trainings on text that arms need, each once, in order; a student comes after its teachers."""
    origins = dict.fromkeys(arm.origin for arm in arms if arm.origin.learns_text)
    return sorted(origins, key=lambda origin: origin is Origin.DISTILLED)


def with_text_arms(arms: Iterable[Arm]) -> list[Arm]:
    """The arms of both ledgers: the base as it is, every origin that an arm starts from, then the job
    arms."""
    arms = list(arms)
    origins = [Origin.GENERIC, *(arm.origin for arm in arms)]
    texts = [Arm(origin) for origin in dict.fromkeys(origins) if origin.has_text_arm]
    return [*texts, *(arm for arm in arms if arm.ledger == "jobs")]
