"""Reading what an encoder learns from: pairs, triplets, scored pairs, retrieval sets, or plain text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.data.readers import DataConfig, Dataset, read
from adaptkit.embed.retrieval import RetrievalSet, is_set, read_set, splits
from adaptkit.embed.rows import Example, groups_of
from adaptkit.errors import DataError

if TYPE_CHECKING:
    from adaptkit.embed.config import Loss

DEV_SHARE = 0.1
MOST_BESIDE = 1000
"""Documents that a few dev queries search beside their own answers: among those alone nearly every model
finds them."""
SCORED: tuple[str, ...] = ("cosine", "margin")
FROM_TEXT: tuple[str, ...] = ("simcse", "tsdae")
_SENTENCES = re.compile(r"\n+|(?<=[.!?])\s+")


@dataclass(frozen=True)
class Examples:
    """Examples of one split.

    Attributes:
        corpus: texts beside the examples' own that negatives may be mined from.
        facts: what a run records about them.
    """

    rows: list[Example]
    corpus: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def read_examples(config: DataConfig, loss: Loss, split: str = "train") -> Examples:
    """The examples of a split for a loss.

    Raises: DataError at `file:line` for rows that the loss cannot use.
    """
    if (folder := retrieval_folder(config)) is not None:
        if loss not in ("infonce", "symmetric"):
            fix = "set loss: infonce or symmetric, or give files"
            raise DataError(f"loss '{loss}' does not learn from a retrieval set", where=str(folder), fix=fix)
        found = read_set(folder, split, config.max_bytes)
        facts = {
            "documents": len(found.documents),
            "queries": len(found.queries),
            "unjudged": found.num_unjudged,
            "split": split,
        }
        return Examples(examples_of_set(found), list(found.documents.values()), facts)
    dataset = read(config, "text" if loss in FROM_TEXT else None)
    if loss in FROM_TEXT:
        return Examples(
            [Example((row.text, row.text), row.where) for row in dataset.rows], facts=dataset.manifest()
        )
    if dataset.kind == "text" and loss in ("infonce", "symmetric"):
        from adaptkit.embed.structure import pairs_from_text

        rows, counts = pairs_from_text(dataset)
        return Examples(rows, facts={**dataset.manifest(), "pairs_from_structure": counts})
    return Examples(_rows(dataset, loss), facts=dataset.manifest())


def in_pieces(examples: Examples, most_words: int) -> Examples:
    """Plain texts cut where sentences or lines end, so that what lies beyond an encoder's reach is learnt
    from as well."""
    rows = [
        Example((piece, piece), row.where)
        for row in examples.rows
        for piece in pieces(row.texts[0], most_words)
    ]
    return replace(examples, rows=rows)


def pieces(text: str, most_words: int) -> list[str]:
    """A text in pieces of at most `most_words` words, or of one sentence where that has more."""
    found: list[str] = []
    words = 0
    for sentence in filter(str.strip, _SENTENCES.split(text)):
        count = len(sentence.split())
        if found and words + count <= most_words:
            found[-1], words = f"{found[-1]} {sentence.strip()}", words + count
        else:
            found.append(sentence.strip())
            words = count
    return found


def retrieval_folder(config: DataConfig) -> Path | None:
    """The folder of the retrieval set that a data config names, if it names one."""
    folder = Path(config.files[0]).expanduser() if len(config.files) == 1 else None
    return folder if folder is not None and is_set(folder) else None


def examples_of_set(found: RetrievalSet) -> list[Example]:
    """A pair for every query and relevant document."""
    return [
        Example((text, found.documents[document]), found.where[query])
        for query, text in found.queries.items()
        for document, grade in found.grades[query].items()
        if grade > 0
    ]


def train_and_dev(train: DataConfig, dev: DataConfig | None, loss: Loss) -> tuple[Examples, Examples]:
    """Examples to learn from and to measure on: those named, a set's own dev split, or a share held out."""
    folder, learnt = retrieval_folder(train), read_examples(train, loss)
    if dev is not None:
        other = retrieval_folder(dev)
        return learnt, read_examples(
            dev, loss, "dev" if other is not None and "dev" in splits(other) else "test"
        )
    if folder is not None and "dev" in splits(folder):
        return learnt, read_examples(train, loss, "dev")
    rest, held = hold_out(learnt.rows, DEV_SHARE)
    return Examples(rest, learnt.corpus, learnt.facts), Examples(
        held, learnt.corpus, {"held_out_of_train": len(held)}
    )


def hold_out(rows: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(rest, about `share` of the rows): whole groups of texts that hang together, by hash.

    A group of more than twice the share (one answer to a third of all questions) is never held out: too
    little would be left.
    Raises: DataError when a side would be empty.
    """
    groups = groups_of(rows)
    first: dict[int, str] = {}
    for text in sorted(groups):
        first.setdefault(groups[text], text)
    sizes = Counter(groups[row.texts[0]] for row in rows)
    sides: tuple[list[Example], list[Example]] = ([], [])
    for row in rows:
        group = groups[row.texts[0]]
        hashed = hashlib.sha256(first[group].encode()).digest()
        small = sizes[group] <= max(1, 2 * share * len(rows))
        sides[small and int.from_bytes(hashed[:8]) / 2**64 < share].append(row)
    if not sides[0] or not sides[1]:
        raise DataError(
            f"{len(rows)} examples cannot be split", where=rows[0].where, fix="give more rows, or name `dev`"
        )
    return sides


def set_of(examples: Examples) -> RetrievalSet:
    """Examples as a retrieval set: anchors search among the examples' own texts and some of the corpus, drawn
    by hash."""
    own = list(dict.fromkeys(text for row in examples.rows for text in row.texts[1:]))
    others = sorted(set(examples.corpus) - set(own), key=_id)[:MOST_BESIDE]
    documents = {text: _id(text) for text in [*own, *others]}
    grades: dict[str, dict[str, int]] = {}
    where: dict[str, str] = {}
    for row in examples.rows:
        grades.setdefault(_id(row.texts[0]), {})[documents[row.texts[1]]] = 1
        where.setdefault(_id(row.texts[0]), row.where)
    queries = {_id(row.texts[0]): row.texts[0] for row in examples.rows}
    return RetrievalSet({name: text for text, name in documents.items()}, queries, grades, where)


def _id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _rows(dataset: Dataset, loss: Loss) -> list[Example]:
    roles = dataset.roles
    negatives = sorted(role for role in roles if role.startswith("negative"))
    if loss in SCORED:
        value = "score" if loss == "cosine" and "score" in roles else "label"
        if "text1" not in roles or value not in roles:
            fix = f"give text1, text2 and {'score' if loss == 'cosine' else 'label (0 or 1)'}, or set loss: infonce"
            raise DataError(f"loss '{loss}' needs scored pairs", where=dataset.rows[0].where, fix=fix)
        targets = [_number(row.values[value], row.where) for row in dataset.rows]
        low, high = min(targets), max(targets)
        scaled = [(target - low) / (high - low) if high > low else 1.0 for target in targets]
        pairs = zip(dataset.rows, scaled, strict=True)
        return [
            Example((row.values["text1"], row.values["text2"]), row.where, target) for row, target in pairs
        ]
    if "anchor" not in roles or (loss == "triplet" and not negatives):
        wanted = "anchor, positive and negative" if loss == "triplet" else "anchor and positive"
        raise DataError(
            f"loss '{loss}' needs {wanted}", where=dataset.rows[0].where, fix="set train.columns to name them"
        )
    names = ("anchor", "positive", *negatives)
    return [Example(tuple(row.values[name] for name in names), row.where) for row in dataset.rows]


def _number(value: Any, where: str) -> float:
    words = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
    try:
        return words[value] if value in words else float(value)
    except ValueError:
        raise DataError(
            f"'{value}' is no number", where=where, fix="write scores as numbers, labels as 0 or 1"
        ) from None
