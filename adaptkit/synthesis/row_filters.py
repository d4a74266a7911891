"""Which synthetic rows are left out for what else there is: tests that they overlap, rows that they repeat.

reasons = leaked(candidates, RealRows(test_rows))       # a reason for each row, empty for those that stay
reasons = repeated(candidates, training_texts)
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.data.dedup import near_duplicates
from adaptkit.data.overlap import overlap
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.words import words
from adaptkit.synthesis.synthetic_rows import Candidate

LEAKED = "overlap with a test row"
REPEAT_REAL, REPEAT_OTHER = "repeat a training row", "repeat another synthetic row"
FEWEST_WORDS = 3
"""Of a part of a row, for it to be looked for alone: any text may hold fewer."""


class RealRows:
    """Texts of rows that people wrote: whole, and by their parts (a question without its answer)."""

    def __init__(self, rows: Sequence[Row]):
        self.texts = list(dict.fromkeys(text for row in rows for text in _parts(row)))

    def overlapping(self, texts: Sequence[str]) -> set[int]:
        """Numbers of the texts that alone hold a tenth of a row, by runs of 13 words, as `data.overlap`
        measures it; of rows of few words, those that equal one."""
        if not self.texts:
            return set()
        items = [Row({"text": text}, "", f"real-{place}") for place, text in enumerate(self.texts)]
        asked = [Row({"text": text}, "", str(number)) for number, text in enumerate(texts)]
        return {int(number) for number in overlap(asked, Dataset(items, "text", {})).train_ids}


def _parts(row: Row) -> list[str]:
    values = (value for role, value in row.values.items() if isinstance(value, str) and role != "label")
    return [row.text, *(value for value in values if len(words(value)) >= FEWEST_WORDS)]


def leaked(candidates: Sequence[Candidate], held_out: RealRows) -> list[str]:
    """Why each row may not stand beside the tests; empty where it may."""
    texts: list[str] = []
    owners: list[int] = []
    for number, row in enumerate(candidates):
        parts = [row.compared, *(value for role, value in row.values.items() if role != "label")]
        texts += parts
        owners += [number] * len(parts)
    found = {owners[place] for place in held_out.overlapping(texts)}
    twins = near_duplicates([*held_out.texts, *(row.compared for row in candidates)])
    first = len(held_out.texts)
    found |= {twin - first for twin, original in twins.items() if twin >= first > original}
    return [LEAKED if number in found else "" for number in range(len(candidates))]


def repeated(candidates: Sequence[Candidate], real_texts: Sequence[str]) -> list[str]:
    """Why each row says nothing new: it equals a training row or an earlier row, or nearly; else empty."""
    twins = near_duplicates([*real_texts, *(row.compared for row in candidates)])
    reasons = []
    for number in range(len(candidates)):
        original = twins.get(len(real_texts) + number)
        if original is None:
            reasons.append("")
        else:
            reasons.append(REPEAT_REAL if original < len(real_texts) else REPEAT_OTHER)
    return reasons
