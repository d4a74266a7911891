"""Rows with passages in place, for an arm that is trained with them: what it learns from, and is asked with.

Training, development and test rows each get the passages that are found for their own question. A passage
that holds a tenth of a row is that row itself, or a copy, and not found for it: no answer is read off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from adaptkit.config import Config, Count, Tokens
from adaptkit.data.drawing import PASSAGE_BYTES
from adaptkit.data.readers import Dataset, Row
from adaptkit.run import Run, read_jsonl, read_sealed, write_jsonl, write_sealed
from adaptkit.run_lock import release
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study.task import Assignment, TaskFiles
from adaptkit.study.task_size import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from adaptkit.finetune.prompt_passages import Lookup

PASSAGE_TOKENS = math.ceil(PASSAGE_BYTES / BYTES_PER_TOKEN)
"""Room for one passage, beside a text of a task's own length."""
SPLITS = ("train", "dev", "test")


def beside(split: str) -> str:
    """The item file that holds what was looked up for the rows of a split."""
    return f"{split}-passages"


class PromptedKind(Protocol):
    """A kind of task whose models learn from prompts."""

    longest_answer: ClassVar[int]

    def parts(self, files: TaskFiles) -> dict[str, Dataset]:
        """The prepared rows by split."""

    def prompted_row(self, row: Row, label: str) -> Row:
        """A row as a language model is taught it, with some label in place of its own if it has one."""


class PassagesConfig(Config):
    """What rows with passages in place depend on, beside the prepared data."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"base", "encoder"})

    task: str
    """The task whose rows they are."""
    kind: str
    """Its kind."""
    base: str
    """The model whose tokenizer says what fits."""
    collection: str
    """The prepared text that is searched."""
    encoder: str
    """The encoder it is searched by; empty for BM25."""
    retriever: str
    """bm25, encoder or fused."""
    passages: Count
    """Passages at most."""
    max_length: Tokens
    """Tokens of an example."""


@dataclass(frozen=True)
class LookedUpRows:
    """Rows with passages in place.

    Attributes:
        work: the assignment, with these rows, and with room for the passages in its length.
        flops: what looking up took.
        facts: for records, cards and costs: how passages were found, how many rows have some, and how many
            tokens a mean item of the test has with them, its answer included.
        original: split -> the rows as other arms read them, in the same order.
    """

    work: Assignment
    flops: float
    facts: dict[str, Any]
    original: dict[str, Dataset]
    run: Run

    def complete(self, split: str, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Item rows under the ids that other arms have, with what was looked up for each."""
        from adaptkit.finetune.prompt_passages import passage_facts

        completed = []
        shown = read_jsonl(self.run.items(beside(split)))
        for row, item, asked in zip(self.original[split].rows, items, shown, strict=True):
            facts: dict[str, Any] = {}
            if "reference" in item:
                facts = passage_facts(
                    asked["question"], asked["passages"], item["reference"], item["prediction"]
                )
            completed.append({**item, "id": row.id, **facts})
        return completed


def look_up_rows(kind: PromptedKind, work: Assignment) -> LookedUpRows:
    """The rows of a task with passages in place; made once for all trainings that read the same.

    Raises: DataError for a collection without text.
    """
    from adaptkit.finetune.prompt_passages import first_lookup
    from adaptkit.finetune.prompt_template import LONGEST_CONTEXT
    from adaptkit.models.folder import saved_shape
    from adaptkit.models.positions import fitting_length
    from adaptkit.study.tasks.passage_finder import PassageFinder

    library, original = work.library, kind.parts(work.files)
    assert library is not None
    finder = PassageFinder(library) if work.lookup is None else None
    lookup = first_lookup(finder) if finder is not None else work.lookup
    assert lookup is not None
    wanted = work.task.max_length + lookup.passages * PASSAGE_TOKENS
    length = fitting_length(min(wanted, LONGEST_CONTEXT), saved_shape(work.origin))
    settings = PassagesConfig(
        task=work.task.name,
        kind=work.task.kind,
        base=str(work.origin),
        collection=library.collection.name,
        encoder=str(library.encoder or ""),
        retriever=lookup.retriever,
        passages=lookup.passages,
        max_length=length,
    )
    run = work.open(f"{work.task.name}-passages", settings)
    if not run.finished:
        finder = finder or PassageFinder(library)
        _write(run, original, finder, lookup, _Reader(kind, work, original, length))
        run.finish(record=RunRecord(recipe=RecipeKind.PREPARE).model_dump(mode="json"))
        release()  # others that train on these rows need not wait for the end of this training
    cost = read_sealed(run.cost_path)
    files = TaskFiles(run.path, *(run.items(split) for split in SPLITS))
    task = work.task.model_copy(update={"max_length": length})
    facts = {
        "looked_up": {
            "retriever": lookup.retriever,
            "passages": lookup.passages,
            "collection": library.collection.name,
            "rows_with_passages": cost["rows_with_passages"],
            "tokens_per_item": cost["tokens_per_item"],
        }
    }
    return LookedUpRows(replace(work, files=files, task=task), cost["flops"], facts, original, run)


def _write(run: Run, original: dict[str, Dataset], finder: Any, lookup: Lookup, reader: _Reader) -> None:
    """Write the rows of each split, and beside them what was looked up for each."""
    from adaptkit.finetune.rows_with_passages import row_with_fitting, searched_for

    shares: dict[str, float] = {}
    tokens: dict[str, float] = {}
    for split, dataset in original.items():
        questions = [searched_for(row) for row in dataset.rows]
        found = finder.find(questions, dataset.rows, lookup)
        pairs = zip(dataset.rows, found, strict=True)
        fitted = [row_with_fitting(row, passages, reader.fits) for row, passages in pairs]
        write_jsonl(run.items(split), (row.values for row, _ in fitted))
        asked = zip(questions, fitted, strict=True)
        shown = ({"question": question, "passages": list(used)} for question, (_, used) in asked)
        write_jsonl(run.items(beside(split)), shown)
        shares[split] = sum(bool(used) for _, used in fitted) / len(fitted)
        tokens[split] = round(sum(reader.num_tokens(row) for row, _ in fitted) / len(fitted), 1)
    cost = {"flops": finder.flops, "rows_with_passages": shares, "tokens_per_item": tokens["test"]}
    write_sealed(run.cost_path, cost)


class _Reader:
    """Counts the tokens of a row as the arm's model reads it, and says whether it is read whole."""

    def __init__(self, kind: PromptedKind, work: Assignment, original: dict[str, Dataset], length: int):
        from adaptkit import models
        from adaptkit.data.tokenizers import with_chat_template

        self.kind, self.length = kind, length
        tokenizer: PreTrainedTokenizerFast = models.load_tokenizer(work.origin)
        chat = original["train"].kind == "messages"
        self.tokenizer = with_chat_template(tokenizer) if chat else tokenizer
        self.longest_label = max(original["train"].labels, key=len, default="")

    def fits(self, row: Row) -> bool:
        """Whether it is learnt from and asked whole, with the longest label, or room for a written answer."""
        from adaptkit.data.supervised import prompt_ids

        asked = self.kind.prompted_row(row, self.longest_label)
        if len(prompt_ids(asked, self.tokenizer)) + self.kind.longest_answer > self.length:
            return False
        return self.num_tokens(row) <= self.length

    def num_tokens(self, row: Row) -> int:
        """Tokens of the row with its answer, or the longest label."""
        from adaptkit.data.supervised import build_examples

        asked = self.kind.prompted_row(row, self.longest_label)
        return max(len(example.ids) for example in build_examples(asked, self.tokenizer))
