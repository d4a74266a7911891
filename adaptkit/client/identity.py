"""What a served model is, beside its name: fields that an adaptkit server tells in `/v1/models`.

    {"id": "tickets-7", "object": "model", ..., "adaptkit": {"study": "tickets", "arm": "generic+lora",
     "origin": "generic", "adaptation": "lora", "task": "intent", "role": "finetuned", "kind": "classify"}}

The server writes them from its records and the demo reads them, so that nobody takes a name apart.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

FIELD = "adaptkit"
"""The key in a model's row; OpenAI's own fields stay as they are."""


@dataclass(frozen=True)
class ModelIdentity:
    """What a served model is; None where a field does not apply.

    Attributes:
        study: what the study's config calls it.
        arm: name of the study's arm, for people.
        origin: what the weights started from: generic, continued, mixed, scratch, placebo or
            distilled.
        adaptation: how the task was learnt: prompt, rag, probe, lora, qlora, rag-lora or full; a model of
            `rag` or `rag-lora` expects passages before each question.
        task: name of the task; `language` for a language model of a study.
        role: the part in the comparison: generic, finetuned, pretrained, distilled or other.
        kind: what the model answers with: generate, classify, tag, embed or rerank.
    """

    study: str | None = None
    arm: str | None = None
    origin: str | None = None
    adaptation: str | None = None
    task: str | None = None
    role: str | None = None
    kind: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """Write the object under `adaptkit` in a model's row."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ModelIdentity | None:
        """Read the identity in a model's row, without unknown fields; None for a server that tells none."""
        value = row.get(FIELD)
        if not isinstance(value, dict):
            return None
        names = [field.name for field in fields(cls)]
        return cls(**{name: str(value[name]) for name in names if value.get(name) is not None})
