"""What arms that look things up found, and what they made of it: support, and a few hits and misses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adaptkit.data.words import first_words
from adaptkit.study.record import TaskRecord
from adaptkit.study.results import ItemRow, Results, task_title
from adaptkit.study.scores import score_table

LOOKS_UP = ("rag", "rag-lora")
SHOWN = 3
"""Hits, and misses."""
MOST_WORDS = 60
"""Of a question, an answer or a reference."""


@dataclass(frozen=True)
class ShownItem:
    """One item with what was found for it.

    Attributes:
        support: share of the answer's content words that stand in the passages.
        found: the same of the reference: what was there to be found.
    """

    question: str
    passages: tuple[str, ...]
    answer: str
    reference: str
    score: float
    support: float
    found: float


@dataclass(frozen=True)
class LookedUp:
    """One arm on one task of free text.

    Attributes:
        hits, misses: the items with the best and the worst scores.
    """

    arm: str
    title: str
    support: float
    found: float
    hits: tuple[ShownItem, ...]
    misses: tuple[ShownItem, ...]

    @property
    def sentence(self) -> str:
        """How far the passages carry the answers."""
        answers = f"{self.arm}: {self.support:.0%} of the content words of its answers stand in its passages"
        return f"{answers}, and {self.found:.0%} of the words of the references do."


def looked_up(results: Results) -> list[LookedUp]:
    """Every arm whose item rows say what was looked up."""
    return [row for task in results.tasks for row in _on_task(results, task)]


def _on_task(results: Results, task: TaskRecord) -> Iterator[LookedUp]:
    for arm in results.scored_arms(task.name):
        if arm.adaptation not in LOOKS_UP:
            continue
        seeds = [cell.rows for cell in results.of(task.name, arm.name)]
        rows = [row for of in seeds for row in of if "support" in row]
        if not rows:
            continue
        items = _shown(task, [row for row in seeds[0] if "passages" in row])
        yield LookedUp(
            arm=arm.name,
            title=task_title(task),
            support=sum(row["support"] for row in rows) / len(rows),
            found=sum(row["found"] for row in rows) / len(rows),
            hits=tuple(items[:SHOWN]),
            misses=tuple(reversed(items[SHOWN:][-SHOWN:])),
        )


def _shown(task: TaskRecord, rows: Sequence[ItemRow]) -> list[ShownItem]:
    """Items as they are shown, the best first."""
    if not rows:
        return []
    scores = score_table(task.metric, rows).sums[:, 0]
    items = [_item(row, float(score)) for row, score in zip(rows, scores, strict=True)]
    return sorted(items, key=lambda item: -item.score)


def _item(row: ItemRow, score: float) -> ShownItem:
    texts = [first_words(str(row[name]), MOST_WORDS) for name in ("question", "prediction", "reference")]
    question, answer, reference = texts
    return ShownItem(
        question=question,
        passages=tuple(map(str, row["passages"])),
        answer=answer,
        reference=reference,
        score=score,
        support=float(row["support"]),
        found=float(row["found"]),
    )
