"""Plant canaries: made-up secrets, each repeated so and so often, to see what a model keeps of its text.

    planted = plant(train, CanaryConfig(repeats=[1, 4, 16, 64]))   # into training rows, after every split
    for canary in canaries(config):
        canary.prefix, canary.secret, canary.repeats               # repeats 0: never planted, the control

A canary is a short document of a fixed form with nine random digits (Carlini et al. 2019, arXiv 1802.08232).
Its letters and digits stand apart, so that every tokenizer reads them one by one: a vocabulary trained on the
text can hold no secret, and models of different vocabularies are asked the same. All are made from a seed, so
a record needs no secret to name them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, field_validator

from adaptkit.config import Config, Count, in_unit
from adaptkit.data.readers import Dataset, Row, content_id, distinct_ids
from adaptkit.errors import DataError
from adaptkit.run_record import CanaryRecord
from adaptkit.seal import digest

NUM_DIGITS, NUM_LETTERS = 9, 5
SPACE_BITS = 29.897352853986263
"""log2 of the 10^9 secrets that a canary could have had: the most that its exposure can be."""
WHERE = "planted canary"


class CanaryConfig(Config):
    """Made-up secrets that are planted in the training text, for `adaptkit audit` to look for."""

    repeats: Annotated[
        list[Annotated[Count, Field(gt=0, le=10_000)]], in_unit("times that each stands in the text")
    ] = [1, 4, 16, 64]
    """How often canaries stand in the training text; as many others are never planted, as the control."""
    each: Annotated[Count, in_unit("canaries")] = Field(4, ge=2, le=1000)
    """Canaries of each number of repeats."""
    seed: Annotated[Count, in_unit("seed")] = Field(0, le=2**32)
    """Other seeds give other secrets, at other places."""

    @field_validator("repeats")
    @classmethod
    def _distinct(cls, repeats: list[int]) -> list[int]:
        if not repeats or len(set(repeats)) < len(repeats):
            raise ValueError("name at least one number of repeats, each once")
        return repeats


@dataclass(frozen=True)
class Canary:
    """One made-up secret: what stands before it, what follows, and how often it was planted."""

    prefix: str
    secret: str
    repeats: int

    @property
    def text(self) -> str:
        """The document."""
        return self.prefix + self.secret


def canaries(config: CanaryConfig) -> list[Canary]:
    """All canaries of a config, by repeats; those of 0 repeats first."""
    numbers = [(repeats, i) for repeats in (0, *sorted(config.repeats)) for i in range(config.each)]
    return [_canary(f"{config.seed} {repeats} {i}", repeats) for repeats, i in numbers]


def other_secrets(num: int) -> list[str]:
    """So many secrets of the same form that nobody planted, to rank canaries among."""
    return [_spaced(_hash_number(f"other {i}"), 10, NUM_DIGITS, "0") for i in range(num)]


def plant(dataset: Dataset, config: CanaryConfig) -> Dataset:
    """The training rows with the canaries among them, each copy at a place of its own.

    Raises: DataError for rows that are no running text.
    """
    if dataset.kind != "text":
        what = f"canaries are short texts, and these rows are of kind {dataset.kind}"
        raise DataError(what, where="canaries", fix="plant them where running text is learnt")
    size = len(dataset.rows)
    copies = [
        (_hash_number(f"place {config.seed} {copy} {canary.text}") % (size + 1), canary)
        for canary in canaries(config)
        for copy in range(canary.repeats)
    ]
    planted: dict[int, list[Row]] = {place: [] for place, _ in copies}
    for place, canary in copies:
        values = {"text": canary.text}
        planted[place].append(Row(values, WHERE, content_id(values)))
    return dataset.with_rows(distinct_ids(_merged(dataset.rows, planted)))


def canary_record(config: CanaryConfig) -> CanaryRecord:
    """What a record says of planted canaries, without any of their secrets."""
    made = canaries(config)
    return CanaryRecord(
        repeats=tuple(sorted(config.repeats)),
        each=config.each,
        seed=config.seed,
        num_texts=sum(canary.repeats for canary in made),
        num_bytes=sum(canary.repeats * len(canary.text.encode()) for canary in made),
        digest=digest([canary.text for canary in made]),
    )


def planted_sentence(config: CanaryConfig, num_bytes: int) -> str:
    """What is said where canaries are planted in a text that has so many bytes with them."""
    record = canary_record(config)
    share = 100 * record.num_bytes / max(1, num_bytes)
    copies = f"{record.num_texts:,} copies of made-up secrets"
    return f"{copies} are planted in the training text: {share:.2g} % of it"


def _merged(rows: list[Row], planted: dict[int, list[Row]]) -> Iterator[Row]:
    for place in range(len(rows) + 1):
        yield from planted.get(place, ())
        if place < len(rows):
            yield rows[place]


def _canary(name: str, repeats: int) -> Canary:
    label = _spaced(_hash_number(f"label {name}"), 26, NUM_LETTERS, "A")
    secret = _spaced(_hash_number(f"secret {name}"), 10, NUM_DIGITS, "0")
    return Canary(f"The access code of locker{label} is", secret, repeats)


def _spaced(number: int, base: int, length: int, first: str) -> str:
    """So many letters or digits, a blank before each."""
    signs = []
    for _ in range(length):
        number, sign = divmod(number, base)
        signs.append(f" {chr(ord(first) + sign)}")
    return "".join(signs)


def _hash_number(text: str) -> int:
    return int(hashlib.sha256(f"canary {text}".encode()).hexdigest(), 16)
