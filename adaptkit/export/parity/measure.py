"""Measure a written export against the model it was made from: the content of parity.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptkit.export.parity.answers import Answers, ask
from adaptkit.export.parity.evaluation_data import EvaluationData
from adaptkit.export.parity.gate import Check, merge_checks
from adaptkit.export.record import Method
from adaptkit.export.source import Source
from adaptkit.export.weights import load_unmerged

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Tell = Callable[[str], None]
"""Called with a sentence whenever something that takes time begins."""


@dataclass(frozen=True)
class ParityReport:
    """parity.json: every figure of an export's comparison with its source.

    Attributes:
        merge: what the merged weights were compared with, or why that was not done again, in words.
    """

    format: str
    method: Method | None
    data: EvaluationData
    merge: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "format": self.format,
            "method": self.method,
            "passed": self.passed,
            "text": {
                "origin": self.data.origin,
                "texts": len(self.data.passages),
                "digest": self.data.digest or None,
                "tokens_per_window": self.data.seq_len,
            },
            "items": {"origin": self.data.items_origin, "items": self.data.num_items},
            "merge": self.merge,
            "checks": [check.as_json() for check in self.checks],
        }


def compare_merge(
    source: Source, tokenizer: PreTrainedTokenizerFast, data: EvaluationData, merged: Answers, tell: Tell
) -> tuple[str, list[Check]]:
    """Compare the merged model with base and adapter as trained: what was done in words, and the checks."""
    if source.adapter is None:
        return "no adapter: the exported weights are the trained ones", []
    model = load_unmerged(source, len(tokenizer))
    if isinstance(model, str):
        return model, []
    tell("asking base and adapter as trained")
    unmerged = ask(source, model, tokenizer, data)
    return "base and adapter as trained against the merged model", merge_checks(unmerged, merged)
