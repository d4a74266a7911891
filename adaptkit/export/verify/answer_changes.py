"""Compare answers, kind by kind: same, changed, or cannot tell, with the smallest failing example.

A number may move by its tolerance, which is made of the model's own measured rounding noise. A token or label
may be another one where the choice was closer than that. Where the tolerance is as wide as the answers to
different texts are apart, the answers would hide a change, and nothing is said. Loads no torch.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from adaptkit.export.verify.record import (
    ACTIVATIONS,
    NUMBERS,
    Answer,
    AnswerKind,
    AnswerRecord,
    Answers,
    Precision,
)

TIMES_NOISE = 8.0
"""A tolerance's multiple of the noise that was measured: few texts and draws do not show the largest."""
TIMES_ROUNDED = 2.5
"""Of what rounding inputs to 8 bits moves: that is an error already, and another server's is independent."""
FLOOR = 2e-6
"""Log-odds, nats and shares of a vector: what seven digits and float32 kernels differ by at least."""
BLIND = 0.5
"""Tolerance, as a share of the distance between answers to different texts, from which nothing is seen."""
FEWEST_COMPARED = 0.25
"""Of the greedy tokens: where texts part earlier, at near ties, too few are left to compare."""
SHOWN_CHARS, SHOWN_NUMBERS, SHOWN_AROUND = 100, 4, 3


class Verdict(StrEnum):
    """What is said of one kind of answer, or of all."""

    SAME = "same"
    CHANGED = "changed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Given:
    """What an engine answered.

    Attributes:
        engine: its name and what it computes in, in words.
        missing: kind -> why the engine gives no such answers.
        precision: what it computes in.
        rounds_activations: whether it rounds the inputs of layers to 8 bits.
    """

    engine: str
    answers: Answers
    missing: Mapping[AnswerKind, str] = field(default_factory=dict)
    precision: Precision = "float32"
    rounds_activations: bool = False


@dataclass(frozen=True)
class Example:
    """The smallest answer that changed: the shortest text, and where the two first differ."""

    text: str
    expected: str
    got: str


@dataclass(frozen=True)
class KindResult:
    """What one kind of answer says.

    Attributes:
        compared, changed: answers.
        largest: the largest change of a number; None for what is equal or not.
        tolerance: the most that it may be.
        note: what a reader must know: why nothing can be told, how many choices were near ties.
    """

    kind: AnswerKind
    verdict: Verdict
    compared: int = 0
    changed: int = 0
    largest: float | None = None
    tolerance: float | None = None
    note: str = ""
    example: Example | None = None


@dataclass(frozen=True)
class Tolerances:
    """How far numbers may move, by kind, and from what that follows, in words."""

    by_kind: Mapping[AnswerKind, float]
    why: str

    def of(self, kind: AnswerKind) -> float:
        """The tolerance of a kind of number; that of its own numbers for tokens and labels."""
        numbers = {
            AnswerKind.GREEDY: AnswerKind.LOG_PROBABILITIES,
            AnswerKind.LABELS: AnswerKind.PROBABILITIES,
        }
        return self.by_kind.get(numbers.get(kind, kind), FLOOR)


def tolerances(
    record: AnswerRecord, given: Given, rounding: Mapping[AnswerKind, float] | None = None, stored: str = ""
) -> Tolerances:
    """Derive how far an engine's numbers may be from the stored ones.

    Args:
        rounding: kind -> what storing the weights more coarsely moves, where another folder is compared.
        stored: what the other folder stores its weights in, for the reason in words.
    """
    noise = record.noise.get(given.precision, {})
    by_kind = {}
    for kind in NUMBERS:
        tolerance = FLOOR + TIMES_NOISE * noise.get(kind, 0.0)
        if given.rounds_activations:
            tolerance += TIMES_ROUNDED * record.noise.get(ACTIVATIONS, {}).get(kind, 0.0)
        by_kind[kind] = tolerance + (rounding or {}).get(kind, 0.0)
    parts = [f"{TIMES_NOISE:g} times what rounding to {given.precision} moved this model's answers at export"]
    if given.rounds_activations:
        parts.append(f"{TIMES_ROUNDED:g} times what 8-bit inputs of layers moved them")
    if rounding:
        parts.append(f"what storing its weights in {stored} explains")
    return Tolerances(by_kind, ", and ".join(parts))


def compare_answers(record: AnswerRecord, given: Given, allowed: Tolerances) -> list[KindResult]:
    """Compare every kind of answer that the record holds."""
    results = []
    for kind, stored in record.answers.items():
        if kind in given.missing:
            results.append(KindResult(kind, Verdict.CANNOT_TELL, note=given.missing[kind]))
        elif kind in NUMBERS:
            results.append(_compare_numbers(kind, stored, given.answers.get(kind, ()), allowed.of(kind)))
        else:
            results.append(_compare_choices(kind, stored, given.answers.get(kind, ()), allowed.of(kind)))
    return results


def overall(results: Sequence[KindResult]) -> Verdict:
    """Say one thing of all kinds: changed if one is, and same only where numbers were compared and held."""
    if any(result.verdict is Verdict.CHANGED for result in results):
        return Verdict.CHANGED
    if any(result.verdict is Verdict.SAME for result in results if result.kind in NUMBERS):
        return Verdict.SAME
    return Verdict.CANNOT_TELL


def distance(kind: AnswerKind, expected: Sequence[float], got: Sequence[float]) -> float:
    """Measure how far two answers are apart; infinite where one has more numbers, or none that is a number.

    Vectors: the length of their difference, as a share of the expected one's. Everything else: the root of
    the mean square.
    """
    if len(expected) != len(got) or not expected:
        return math.inf
    total = sum((a - b) ** 2 for a, b in zip(expected, got, strict=True))
    if not math.isfinite(total):
        return math.inf
    if kind is AnswerKind.VECTORS:
        return math.sqrt(total / max(sum(a * a for a in expected), 1e-30))
    return math.sqrt(total / len(expected))


def _paired(stored: Sequence[Answer], given: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Pair answers to the same question."""
    by_key = {answer.key: answer for answer in given}
    return [(answer, by_key[answer.key]) for answer in stored if answer.key in by_key]


def _compare_numbers(
    kind: AnswerKind, stored: Sequence[Answer], given: Sequence[Answer], tolerance: float
) -> KindResult:
    pairs = _paired(stored, given)
    if not pairs:
        return KindResult(kind, Verdict.CANNOT_TELL, note="no question was answered")
    distances = [distance(kind, before.values, after.values) for before, after in pairs]
    failing = [pair for pair, apart in zip(pairs, distances, strict=True) if not apart <= tolerance]
    largest = max(distances)
    spread = _spread(kind, stored)
    note = ""
    verdict = Verdict.SAME
    if failing:
        verdict = Verdict.CHANGED
    elif spread is not None and tolerance > BLIND * spread:
        verdict = Verdict.CANNOT_TELL
        note = f"rounding may move an answer by {tolerance:.2g}, and different texts are {spread:.2g} apart"
    example = None
    if failing:
        before, after = min(failing, key=lambda pair: len(pair[0].text))
        example = _numbers_example(kind, before, after)
    return KindResult(kind, verdict, len(pairs), len(failing), largest, tolerance, note, example)


def _spread(kind: AnswerKind, stored: Sequence[Answer]) -> float | None:
    """Measure how far answers to different texts are apart; None where that cannot be measured."""
    if kind is AnswerKind.BITS:
        return None
    if kind in (AnswerKind.LOG_PROBABILITIES, AnswerKind.TAGS):
        values = [value for answer in stored for value in answer.values]
        return statistics.pstdev(values) if len(values) > 1 else None
    pairs = itertools.combinations([answer for answer in stored if answer.values], 2)
    apart = [distance(kind, one.values, other.values) for one, other in pairs]
    return statistics.median(apart) if apart else None


def _compare_choices(
    kind: AnswerKind, stored: Sequence[Answer], given: Sequence[Answer], tolerance: float
) -> KindResult:
    """Compare tokens or words, which are equal or not; a choice closer than the tolerance is a tie."""
    pairs = _paired(stored, given)
    if not pairs:
        return KindResult(kind, Verdict.CANNOT_TELL, note="no question was answered")
    failing, ties, compared, total = [], 0, 0, 0
    for before, after in pairs:
        place = _first_difference(before, after)
        total += len(before.exact)
        compared += len(before.exact) if place is None else place
        if place is None:
            continue
        if place < len(before.gaps) and before.gaps[place] <= 2 * tolerance:
            ties += 1
        else:
            failing.append((before, after))
    note = ""
    if ties:
        note = f"{ties} of {len(pairs)} chose another of two that were closer than the tolerance"
    verdict, example = Verdict.SAME, None
    if failing:
        verdict = Verdict.CHANGED
        example = _choice_example(*min(failing, key=lambda pair: len(pair[0].text)))
    elif compared < FEWEST_COMPARED * total:
        verdict = Verdict.CANNOT_TELL
    return KindResult(kind, verdict, len(pairs), len(failing), note=note, example=example)


def _first_difference(before: Answer, after: Answer) -> int | None:
    """Find the first place in which two answers differ, one of them ending included; None where none does."""
    for place, (one, other) in enumerate(itertools.zip_longest(before.exact, after.exact)):
        if one != other:
            return place
    return None


def _numbers_example(kind: AnswerKind, before: Answer, after: Answer) -> Example:
    apart = distance(kind, before.values, after.values)
    if len(before.values) != len(after.values):
        return Example(shown(before.text), f"{len(before.values)} numbers", f"{len(after.values)} numbers")
    changes = [abs(a - b) for a, b in zip(before.values, after.values, strict=True)]
    start = 0
    if kind is not AnswerKind.VECTORS:
        start = max(0, changes.index(max(changes)) - SHOWN_NUMBERS + 1)
    places = slice(start, start + SHOWN_NUMBERS)
    expected, got = _listed(before.values[places]), _listed(after.values[places])
    return Example(shown(before.text), expected, f"{got} (apart by {apart:.3g})")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.5g}" for value in values)


def _choice_example(before: Answer, after: Answer) -> Example:
    place = _first_difference(before, after) or 0
    start = max(0, place - SHOWN_AROUND)

    def around(answer: Answer) -> str:
        part = answer.exact[start : place + SHOWN_AROUND + 1]
        words = " ".join(str(entry) for entry in part) or "nothing"
        left = "... " if start else ""
        right = " ..." if place + SHOWN_AROUND + 1 < len(answer.exact) else ""
        return shown(f"{left}{words}{right}")

    return Example(shown(before.text), around(before), around(after))


def shown(text: str) -> str:
    """Shorten a text to one line."""
    line = repr(text)[1:-1]
    if len(line) > SHOWN_CHARS:
        return f"{line[: SHOWN_CHARS - 3]}..."
    return line
