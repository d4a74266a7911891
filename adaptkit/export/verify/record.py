"""The answers that an export stores, as one sealed record beside its weights, and how it is read and written.

    record = read_answers(folder)                      # None for a folder that stores none
    record.answers[AnswerKind.VECTORS][0].values       # numbers of the first text

Numbers are what the stored weights give in float32. `noise` says how far rounding alone moves each kind of
answer of this very model, by the precision that an engine computes in: tolerances are made from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pydantic

from adaptkit.errors import DataError
from adaptkit.export.record import ANSWERS_FILE, ServedKind
from adaptkit.export.source import LABEL_SET, REGRESSION
from adaptkit.run import read_json, write_json
from adaptkit.run_record import Record
from adaptkit.seal import sealed, unsealed

Precision = Literal["float32", "float16", "bfloat16"]
"""What an engine computes in."""
UNIT_ROUNDOFF: dict[Precision, float] = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The largest relative error of rounding one number."""
ACTIVATIONS = "rounded activations"
"""Entry of `noise`: what rounding inputs of layers to 8 bits moves, as servers do with int8 and fp8."""
VERSION = 1
LEAST_CHANCE = 1e-6
"""Smaller probabilities are compared as this one: below, float32 tells nothing."""
DIGITS = 7
ENDED = -1
"""Stands behind the tokens of a text that the model itself ended."""
STOPS, GOES_ON = "stops", "goes on"
"""What a model does behind a token."""


class AnswerKind(StrEnum):
    """What is compared; its value is what people read."""

    LOADING = "loading"
    SETTINGS = "settings"
    TOKENS = "token ids"
    CHAT = "chat prompt"
    STOPS = "stop tokens"
    GREEDY = "greedy text"
    LOG_PROBABILITIES = "log-probabilities"
    BITS = "bits per byte"
    LABELS = "labels"
    PROBABILITIES = "class probabilities"
    TAGS = "tag probabilities"
    RELEVANCE = "relevance"
    VECTORS = "vectors"


NUMBERS = (
    AnswerKind.LOG_PROBABILITIES,
    AnswerKind.BITS,
    AnswerKind.PROBABILITIES,
    AnswerKind.TAGS,
    AnswerKind.RELEVANCE,
    AnswerKind.VECTORS,
)
"""Kinds that rounding moves a little; all others are equal or not."""


class Answer(Record):
    """One answer of one kind."""

    text: str
    """What was asked."""
    query: str = ""
    """Of a reranker, whose `text` is the document; of an encoder the name of the prompt that was used."""
    exact: tuple[int | str, ...] = ()
    """Token ids or words, which are equal or not."""
    values: tuple[float, ...] = ()
    """Numbers: log-probabilities in nats, log-odds of classes, relevance, a vector."""
    gaps: tuple[float, ...] = ()
    """For each entry of `exact` by how much it beat the next best; empty where nothing was chosen."""

    @property
    def key(self) -> tuple[str, str]:
        return self.text, self.query


class Questions(Record):
    """What is asked; kept with the answers, so that a later release asks the same."""

    texts: tuple[str, ...]
    long: str
    """Longer than the model reads, where that is within reach; for a generator as long as it reads."""
    openings: tuple[str, ...]
    """Prompts that a generator continues."""
    talk: tuple[tuple[str, str], ...]
    """A conversation for the chat template: (role, text) each."""
    new_tokens: int
    last_tokens: int
    """Of each text so many log-probabilities are kept, the last ones."""


Answers = dict[AnswerKind, tuple[Answer, ...]]


class AnswerRecord(Record):
    """What one exported folder answers, and how far rounding moves that."""

    version: int = VERSION
    kind: ServedKind
    stored_as: str
    """What the weights are stored in: float32, bfloat16, float16, int8, int4 or fp8."""
    problem: str = ""
    """Of a classifier: one of several classes, a yes or no for each, or a number."""
    prompts: dict[str, str] = {}
    """Of an encoder: name -> words before a text; "" is what it uses where none is named."""
    questions: Questions
    answers: Answers
    noise: dict[str, dict[AnswerKind, float]]
    """Precision (or ACTIVATIONS) -> kind -> largest change that this rounding made."""


def write_answers(folder: Path, record: AnswerRecord) -> None:
    """Write the record into its folder, sealed by the digest of its content."""
    write_json(folder / ANSWERS_FILE, sealed(record.model_dump(mode="json", exclude_defaults=True)))


def read_answers(folder: Path) -> AnswerRecord | None:
    """Read the answers that a folder stores; None where it stores none.

    Raises: DataError for a record that is damaged, or of another release's form.
    """
    path = folder / ANSWERS_FILE
    if not path.is_file():
        return None
    content = unsealed(read_json(path), path)
    try:
        record = AnswerRecord.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        what = f"the stored answers do not fit at '{'.'.join(map(str, first['loc']))}': {first['msg']}"
        raise DataError(what, where=str(path), fix="export the model again") from None
    if record.version != VERSION:
        what = f"the stored answers have form {record.version}, and this release reads {VERSION}"
        raise DataError(what, where=str(path), fix="use the release that wrote them, or export again")
    return record


def log_odds(probabilities: Sequence[float], problem: str) -> tuple[float, ...]:
    """Turn what a classifier answers into numbers in which a change counts the same near 0, 0.5 and 1."""
    if problem == REGRESSION:
        return rounded(probabilities)
    most = 1 - LEAST_CHANCE
    chances = [min(max(chance, LEAST_CHANCE), most) for chance in probabilities]
    if problem == LABEL_SET:
        return rounded([math.log(chance / (1 - chance)) for chance in chances])
    return rounded([math.log(chance) for chance in chances])


def bits_per_byte(nats: float, num_bytes: int) -> tuple[float, ...]:
    """Turn the nats that texts need into bits for each of their bytes."""
    return rounded([nats / math.log(2) / max(1, num_bytes)])


def rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Round to the digits that float32 has."""
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
