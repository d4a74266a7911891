"""What a run keeps of its data: held-out rows to test an export on, training rows to calibrate GPTQ on.

    heldout.jsonl       a head line, then passages (id, text) and items (whole rows), at most so many of each
    calibration.jsonl   a head line, then the first training rows, as many as a calibration reads

The recipe writes both when it ends; whoever reads them needs neither the recipe's config nor its data files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError
from adaptkit.run import FORMAT, Run, digest, read_jsonl, write_jsonl
from adaptkit.run_record import AGAIN, OLDER, SplitRecord
from adaptkit.seal import check

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_PASSAGES, MAX_PASSAGE_CHARS = 60, 1024
MAX_ITEMS, MAX_ANSWERS = 200, 32
"""Items to classify, and items whose answer has to be written."""
WRITTEN_KINDS = ("sft", "messages", "prompts")
CALIBRATION_ROWS, CALIBRATION_TOKENS = 64, 512
"""Rows that GPTQ reads, and tokens of each at most."""
MAX_SKIPPED = 100


@dataclass(frozen=True)
class HeldOut:
    """Held-out data of a run.

    Attributes:
        passages: (id, text) of held-out documents, each cut to a passage.
        digest: sha256 of the whole set that the passages were taken from.
        items: rows with a label or an answer that the model was not trained on; None without a task.
        items_split: which split those are of.
    """

    passages: list[tuple[str, str]]
    digest: str
    items: Dataset | None = None
    items_split: Literal["test", "dev"] | None = None


@dataclass(frozen=True)
class Calibration:
    """The first training rows of a run, and the sha256 of all its training rows."""

    rows: Dataset
    digest: str


def split_record(dataset: Dataset) -> SplitRecord:
    """What a run's record says of one part of its data."""
    facts = {**dataset.manifest(), "skipped": dataset.skipped[:MAX_SKIPPED]}
    return SplitRecord(**{**facts, "num_sampled_from": dataset.num_sampled_from or None})


def held_out(splits: Mapping[str, Dataset], *, with_items: bool) -> HeldOut:
    """Passages of the dev split; with items, also rows of test, or of dev where there is no test."""
    dev = splits["dev"]
    passages = [(row.id, row.text[:MAX_PASSAGE_CHARS]) for row in dev.rows[:MAX_PASSAGES]]
    if not with_items:
        return HeldOut(passages, dev.digest)
    split: Literal["test", "dev"] = "test" if "test" in splits else "dev"
    items = splits[split]
    limit = MAX_ANSWERS if items.kind in WRITTEN_KINDS else MAX_ITEMS
    return HeldOut(passages, dev.digest, items.with_rows(items.rows[:limit]), split)


def held_out_texts(texts: Iterable[str]) -> HeldOut:
    """Passages of texts that have no rows of their own, such as the sides of pairs; equal ones count once."""
    distinct = list(dict.fromkeys(text[:MAX_PASSAGE_CHARS] for text in texts))[:MAX_PASSAGES]
    passages = [(f"held-out-{number}", text) for number, text in enumerate(distinct)]
    return HeldOut(passages, digest(distinct))


def calibration_rows(train: Dataset, tokenizer: PreTrainedTokenizerBase) -> Calibration:
    """As many of the first training rows as hold the tokens that a calibration reads."""
    num_tokens, num_rows = 0, 0
    while num_rows < len(train.rows) and num_tokens < CALIBRATION_ROWS * CALIBRATION_TOKENS:
        encoded = tokenizer(train.rows[num_rows].text, add_special_tokens=False, verbose=False)
        num_tokens += len(encoded["input_ids"])
        num_rows += 1
    return Calibration(train.with_rows(train.rows[:num_rows]), train.digest)


def write_held_out(run: Run, held: HeldOut) -> None:
    """Write heldout.jsonl of a run."""
    head: dict[str, Any] = {"format": FORMAT, "digest": held.digest, "items": None}
    lines = [{"passage": {"id": name, "text": text}} for name, text in held.passages]
    if held.items is not None:
        head["items"] = {"split": held.items_split, **_described(held.items)}
        lines += [{"item": _plain(row)} for row in held.items.rows]
    write_jsonl(run.heldout_path, [head, *lines])


def read_held_out(run: Run) -> HeldOut | None:
    """What `write_held_out` wrote, or None for a run that holds none.

    Raises: DataError for a file of another format.
    """
    if not run.heldout_path.is_file():
        return None
    head, lines = _opened(run.heldout_path)
    passages: list[tuple[str, str]] = []
    rows: list[Row] = []
    for line in lines:
        if "passage" in line:
            passages.append((line["passage"]["id"], line["passage"]["text"]))
        else:
            rows.append(Row(**line["item"]))
    if head["items"] is None:
        return HeldOut(passages, head["digest"])
    items = Dataset(rows, head["items"]["kind"], head["items"]["roles"])
    return HeldOut(passages, head["digest"], items, head["items"]["split"])


def write_calibration(run: Run, calibration: Calibration) -> None:
    """Write calibration.jsonl of a run."""
    head = {"format": FORMAT, "digest": calibration.digest, **_described(calibration.rows)}
    write_jsonl(run.calibration_path, [head, *(_plain(row) for row in calibration.rows.rows)])


def read_calibration(run: Run) -> Calibration | None:
    """What `write_calibration` wrote, or None for a run that holds none.

    Raises: DataError for a file of another format.
    """
    if not run.calibration_path.is_file():
        return None
    head, lines = _opened(run.calibration_path)
    rows = Dataset([Row(**line) for line in lines], head["kind"], head["roles"])
    return Calibration(rows, head["digest"])


def _opened(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The head line and the lines behind it."""
    check(path)
    lines = read_jsonl(path)
    head = next(lines, {})
    if head.get("format") != FORMAT:
        raise DataError(OLDER, where=str(path), fix=AGAIN)
    return head, lines


def _described(dataset: Dataset) -> dict[str, Any]:
    return {"kind": dataset.kind, "roles": dataset.roles}


def _plain(row: Row) -> dict[str, Any]:
    return {"id": row.id, "where": row.where, "values": row.values}
