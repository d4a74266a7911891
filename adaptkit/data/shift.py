"""Say before anything trains how a domain's text differs from general text, and what to expect of it.

    shift = measure_shift(["corpus/"], ["general/"], base="models/smollm2")
    shift.expectation.says, shift.expectation.reason

The expectation is a rule of two comparisons, fixed before any domain was looked at:

- Do the texts differ? Pairs of words are further apart than the same documents are when they are dealt to
  both sides at random (95 % of 200 deals).
- Does the base read the domain worse? Its bits per byte on the domain, less those on general text, with the
  whole 95 % interval above what two random halves of the general text differ by.

Both: pretraining is likely to gain. Texts that do not differ, read alike: unlikely. Everything else: cannot
say. That a base reads a domain as well as general text is no sign that there is nothing to learn where the
texts differ: some text, such as code, is easy to predict by nature.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from adaptkit.data.base_shift import PASSAGE_BYTES, Base, Reading, bits, compare_states, halves_noise
from adaptkit.data.text_shift import Distance, Estimate, Passages, compare_words, draw_side, estimate, ratio
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import ConfigError
from adaptkit.models.control_tokens import encode
from adaptkit.notices import tell

TEXT_PASSAGES = 1000
"""Of each side, for what needs no model."""
MIN_DOCUMENTS = 20
"""On either side; below, nothing is expected."""
ENOUGH_DOCUMENTS = 200
MIN_OF_SOURCE = 5
VOCAB_SIZE = 8192
Says = Literal["likely", "unlikely", "cannot say"]


@dataclass(frozen=True)
class Expectation:
    """Whether pretraining on the domain is expected to gain, and why."""

    says: Says
    reason: str


@dataclass(frozen=True)
class SideReport:
    """What was measured of one side.

    Attributes:
        sampled: what of it was looked at, a sentence.
        bits_per_byte: of the base; None without a base that predicts text.
        by_source: the same for each source with at least MIN_OF_SOURCE passages.
    """

    sampled: str
    num_documents: int
    tokens_per_byte: Estimate
    bits_per_byte: Estimate | None
    by_source: dict[str, Estimate]


@dataclass(frozen=True)
class DomainShift:
    """How a domain differs from general text.

    Attributes:
        tokenizer: whose tokens are counted.
        base: empty without one.
        vocabulary: share of the 1000 most frequent words that are not the other side's.
        word_pairs: Jensen-Shannon divergence in bits.
        states: distance of the mean hidden states of the base.
        gap: bits per byte on the domain less those on general text.
        noise: what two random halves of the general text differ by, 95 % of the time.
    """

    domain: SideReport
    general: SideReport | None
    tokenizer: str
    base: str
    vocabulary: Distance | None
    word_pairs: Distance | None
    states: Distance | None
    gap: Estimate | None
    noise: float | None
    expectation: Expectation
    seconds: float


def measure_shift(
    domain: Sequence[str], general: Sequence[str] = (), *, base: str | Path = "", num_passages: int = 120
) -> DomainShift:
    """Measure, and say what to expect.

    Args:
        domain, general: files, folders or globs.
        base: a folder or hub id.
        num_passages: of each side that the base reads.
    Raises: DataError for files that cannot be read, ModelError for a base that cannot.
    """
    if num_passages < MIN_DOCUMENTS:
        what = f"{num_passages} passages are too few to compare"
        raise ConfigError(what, where="--passages", fix=f"use {MIN_DOCUMENTS} or more")
    begun = time.monotonic()
    sides = [draw_side(files, TEXT_PASSAGES) for files in (domain, general) if files]
    size = _passages_of_each(sides)
    sides = [side.first(size) for side in sides]
    tell(f"{' and '.join(f'{side.num_rows:,}' for side in sides)} rows read")
    readings, tokens, tokenizer = _read_all(sides, base, min(size, num_passages))
    reports = [_report(side, *of) for side, of in zip(sides, zip(readings, tokens, strict=True), strict=True)]
    vocabulary = word_pairs = states = gap = noise = None
    if len(sides) == 2:
        vocabulary, word_pairs = compare_words(sides[0], sides[1])
        read = [side.first(min(size, num_passages)) for side in sides]
        states, gap, noise = _of_base(readings, read)
    expectation = expect(word_pairs, gap, noise, [side.num_documents for side in sides])
    return DomainShift(
        domain=reports[0],
        general=reports[1] if len(reports) == 2 else None,
        tokenizer=tokenizer,
        base=str(base),
        vocabulary=vocabulary,
        word_pairs=word_pairs,
        states=states,
        gap=gap,
        noise=noise,
        expectation=expectation,
        seconds=time.monotonic() - begun,
    )


def _passages_of_each(sides: Sequence[Passages]) -> int:
    """As many of each side; one of a document where that is enough, so that documents weigh alike."""
    size = min(side.num_documents for side in sides)
    return size if size >= ENOUGH_DOCUMENTS else min(len(side.texts) for side in sides)


def expect(
    word_pairs: Distance | None, gap: Estimate | None, noise: float | None, num_documents: Sequence[int]
) -> Expectation:
    """The rule; see the module."""
    if word_pairs is None:
        return Expectation("cannot say", "no general text was given to compare with")
    if min(num_documents) < MIN_DOCUMENTS:
        what = f"{min(num_documents)} documents on one side are too few: {MIN_DOCUMENTS} are needed"
        return Expectation("cannot say", what)
    if gap is None or noise is None:
        return Expectation("cannot say", "no base was given that predicts text")
    numbers = f"{gap.value:+.3f} bits per byte [{gap.low:+.3f}, {gap.high:+.3f}], noise {noise:.3f}"
    worse = gap.low > noise
    if word_pairs.beyond and worse:
        return Expectation("likely", f"the texts differ, and the base reads the domain worse ({numbers})")
    if not word_pairs.beyond and not worse:
        why = "the texts differ no more than chance, and the base reads both alike"
        return Expectation("unlikely", f"{why} ({numbers})")
    why = "the texts differ, and it is not shown that the base reads the domain worse"
    if worse:
        why = "the base reads the domain worse, and the words differ no more than chance"
    return Expectation("cannot say", f"{why} ({numbers})")


def _read_all(
    sides: list[Passages], base: str | Path, size: int
) -> tuple[list[Reading | None], list[np.ndarray], str]:
    """What the base reads of each side, the tokens of all passages, and whose they are."""
    if base:
        reader = Base(base, size * len(sides))
        readings: list[Reading | None] = [reader.read(side.first(size)) for side in sides]
        return readings, [_tokens(reader.tokenizer, side.texts) for side in sides], str(base)
    whose = "general" if len(sides) == 2 else "domain"
    tokenizer = train_tokenizer(sides[-1].texts[1::2], "bpe", VOCAB_SIZE)
    label = f"BPE {VOCAB_SIZE}, trained on every other passage of the {whose} text, counted on the others"
    return [None] * len(sides), [_tokens(tokenizer, side.texts) for side in sides], label


def _tokens(tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Of every other passage: a tokenizer made on the spot has not seen these."""
    texts = texts[::2]
    return np.array([len(ids) for ids in encode(tokenizer, texts, special=False)], float)


def _report(side: Passages, reading: Reading | None, tokens: np.ndarray) -> SideReport:
    sizes = np.array([len(text.encode()) for text in side.texts], float)
    of_all = f"{side.num_rows:,} rows" + (", of which 32 MB were drawn by hash" if side.sampled else "")
    sampled = f"{len(side.texts):,} passages of {side.num_documents:,} documents, from {of_all}"
    bits_per_byte, by_source = None, dict[str, Estimate]()
    if reading is not None:
        size = len(reading.num_bytes)
        sampled += f"; the base read the first {PASSAGE_BYTES} bytes of {size}"
        if reading.nats is not None:
            documents = side.documents[:size]
            bits_per_byte = ratio(bits(reading), reading.num_bytes, documents)[0]
            by_source = _by_source(reading, documents, side.sources[:size])
    per_byte = ratio(tokens, sizes[::2], side.documents[::2])[0]
    return SideReport(sampled, side.num_documents, per_byte, bits_per_byte, by_source)


def _by_source(reading: Reading, documents: np.ndarray, sources: list[str]) -> dict[str, Estimate]:
    values = {}
    for source, number in Counter(sources).most_common():
        if number < MIN_OF_SOURCE:
            continue
        chosen = np.array([name == source for name in sources])
        _, numbers = np.unique(documents[chosen], return_inverse=True)
        values[source] = ratio(bits(reading)[chosen], reading.num_bytes[chosen], numbers)[0]
    return values


def _of_base(
    readings: list[Reading | None], sides: list[Passages]
) -> tuple[Distance | None, Estimate | None, float | None]:
    """Distance of states, the gap in bits per byte, and the noise of the general side."""
    domain, general = readings
    if domain is None or general is None:
        return None, None, None
    states = compare_states(domain, general, (sides[0], sides[1]))
    if domain.nats is None or general.nats is None:
        return states, None, None
    first, first_drawn = ratio(bits(domain), domain.num_bytes, sides[0].documents, seed=1)
    second, second_drawn = ratio(bits(general), general.num_bytes, sides[1].documents, seed=2)
    gap = estimate(first.value - second.value, first_drawn - second_drawn)
    return states, gap, halves_noise(general, sides[1].documents)
