"""Read what an encoder learns from: pairs, triplets, scored pairs, retrieval sets, or plain text."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from adaptkit.data.beir import RetrievalSet, read_set, retrieval_folder, splits
from adaptkit.data.heldout import MAX_SKIPPED, split_record
from adaptkit.data.readers import DataConfig, Dataset, read
from adaptkit.data.words import num_words
from adaptkit.embed.config import Loss
from adaptkit.embed.rows import Example, groups_of
from adaptkit.embed.scored_pairs import Scale, scored_examples
from adaptkit.embed.structure import pairs_from_text
from adaptkit.errors import DataError
from adaptkit.run import digest
from adaptkit.run_record import SplitRecord

DEV_SHARE = 0.1
MOST_BESIDE = 1000
"""Documents that a few dev queries search beside their own answers: among those alone nearly every model
finds them."""
SCORED: tuple[str, ...] = ("cosine", "margin")
FROM_TEXT: tuple[str, ...] = ("simcse", "tsdae")
RETRIEVAL, HELD_OUT = "retrieval", "held out of train"
"""Kinds of a split that is no data set of its own."""
_WITHOUT_BLANK = "\u3002\uff01\uff1f\uff0e"  # full stops of Chinese and Japanese
_SENTENCES = re.compile(
    "\\n+|(?<=[.!?])\\s+"
    f"|(?<=[{_WITHOUT_BLANK}])"
    "|(?<=[\u061f\u06d4\u0964\u104b\u17d4\u0e00-\u0eff])\\s+"  # Arabic, Urdu, Hindi, Burmese, Khmer, Thai
)


@dataclass(frozen=True)
class Examples:
    """Examples of one split.

    Attributes:
        corpus: texts beside the examples' own that negatives may be mined from.
        data: what was read to make them; None for examples that came from nowhere else.
        scale: of the scores of pairs, where they have any.
    """

    rows: list[Example]
    corpus: list[str] = field(default_factory=list)
    data: SplitRecord | None = None
    scale: Scale | None = None

    def record(self) -> SplitRecord:
        """What a run's record says of them: the data that was read, and how many examples it gave."""
        data = self.data or _record_of_texts(HELD_OUT, self.rows)
        return data.model_copy(update={"facts": {**data.facts, "examples": len(self.rows)}})


QUESTION_AND_ANSWER = ("question", "answer")
"""Columns that a language model learns to answer, and an encoder to bring together."""


def read_examples(
    config: DataConfig, loss: Loss, split: str = "train", scale: Scale | None = None
) -> Examples:
    """The examples of a split for a loss.

    Args:
        scale: the training's, by which scores of other splits become targets.
    Raises: DataError at `file:line` for rows that the loss cannot use.
    """
    if (folder := retrieval_folder(config)) is not None:
        if loss not in ("infonce", "symmetric"):
            fix = "set loss: infonce or symmetric, or give files"
            raise DataError(f"loss '{loss}' does not learn from a retrieval set", where=str(folder), fix=fix)
        return _of_set(
            read_set(folder, split, config.max_bytes, config.on_bad_row, config.columns, config.protect)
        )
    dataset = read(config, "text") if loss in FROM_TEXT else read(config)
    if (dataset.roles.get("prompt"), dataset.roles.get("completion")) == QUESTION_AND_ANSWER:
        dataset = read(config, "pairs")
    data = split_record(dataset)
    if loss in FROM_TEXT:
        return Examples([Example((row.text, row.text), row.where) for row in dataset.rows], data=data)
    if dataset.kind == "text" and loss in ("infonce", "symmetric"):
        rows, counts = pairs_from_text(dataset)
        return Examples(rows, data=data.model_copy(update={"facts": counts}))
    if loss in SCORED:
        rows, scale = scored_examples(dataset, loss, scale)
        return Examples(rows, data=data, scale=scale)
    return Examples(_rows(dataset, loss), data=data)


def _of_set(retrieval_set: RetrievalSet) -> Examples:
    rows = examples_of_set(retrieval_set)
    documents = list(retrieval_set.documents.values())
    data = _record_of_texts(RETRIEVAL, rows)
    counts = {"queries": len(retrieval_set.queries), "unjudged": retrieval_set.num_unjudged}
    num_bytes = _num_bytes([*documents, *retrieval_set.queries.values()])
    update = {
        "documents": len(documents),
        "num_bytes": num_bytes,
        "facts": counts,
        "num_skipped": len(retrieval_set.skipped),
        "skipped": retrieval_set.skipped[:MAX_SKIPPED],
    }
    return Examples(rows, documents, data.model_copy(update=update))


def _record_of_texts(kind: str, rows: Sequence[Example]) -> SplitRecord:
    return SplitRecord(
        kind=kind,
        documents=len(rows),
        num_bytes=_num_bytes(text for row in rows for text in row.texts),
        digest=digest([[*row.texts, row.target] for row in rows]),
    )


def _num_bytes(texts: Iterable[str]) -> int:
    return sum(len(text.encode("utf-8", "replace")) for text in texts)


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
    parts: list[str] = []
    size = 0
    for sentence in filter(str.strip, _SENTENCES.split(text)):
        count = num_words(sentence)
        if parts and size + count <= most_words:
            blank = "" if parts[-1][-1] in _WITHOUT_BLANK else " "
            parts[-1] = f"{parts[-1]}{blank}{sentence.strip()}"
            size += count
        else:
            parts.append(sentence.strip())
            size = count
    return parts


def examples_of_set(retrieval_set: RetrievalSet) -> list[Example]:
    """A pair for every query and relevant document."""
    return [
        Example((text, retrieval_set.documents[document]), retrieval_set.where[query])
        for query, text in retrieval_set.queries.items()
        for document, grade in retrieval_set.grades[query].items()
        if grade > 0
    ]


def train_and_dev(train: DataConfig, dev: DataConfig | None, loss: Loss) -> tuple[Examples, Examples]:
    """Examples to learn from and to measure on: those named, a set's own dev split, or a share held out."""
    folder, learnt = retrieval_folder(train), read_examples(train, loss)
    if dev is not None:
        other, split = retrieval_folder(dev), "test"
        if other is not None and "dev" in splits(other):
            split = "dev"
        return learnt, read_examples(dev, loss, split, learnt.scale)
    if folder is not None and "dev" in splits(folder):
        return learnt, read_examples(train, loss, "dev")
    rest, held = hold_out(learnt.rows, DEV_SHARE)
    return replace(learnt, rows=rest), Examples(held, learnt.corpus)


def hold_out(rows: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """(rest, about `share` of the rows): whole groups of texts that hang together, by hash.

    A group of more than twice the share (one answer to a third of all questions) is never held out: too
    little would be left.
    Raises: DataError when a side would be empty.
    """
    groups = groups_of(rows)
    first_text: dict[int, str] = {}
    for text in sorted(groups):
        first_text.setdefault(groups[text], text)
    sizes = Counter(groups[row.texts[0]] for row in rows)
    largest = max(1, 2 * share * len(rows))
    rest: list[Example] = []
    held: list[Example] = []
    for row in rows:
        group = groups[row.texts[0]]
        hashed = hashlib.sha256(first_text[group].encode()).digest()
        drawn = int.from_bytes(hashed[:8]) / 2**64 < share
        (held if drawn and sizes[group] <= largest else rest).append(row)
    if not rest or not held:
        fix = "give more rows, or name `dev`"
        raise DataError(f"{len(rows)} examples cannot be split", where=rows[0].where, fix=fix)
    return rest, held


def set_of(examples: Examples, beside: int | None = MOST_BESIDE) -> RetrievalSet:
    """Examples as a retrieval set: anchors search among the examples' own texts and some of the corpus, drawn
    by hash; all of it where `beside` is None."""
    own = list(dict.fromkeys(text for row in examples.rows for text in row.texts[1:]))
    others = sorted(set(examples.corpus) - set(own), key=_id)[:beside]
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
    negatives = sorted(role for role in dataset.roles if role.startswith("negative"))
    if "anchor" not in dataset.roles or (loss == "triplet" and not negatives):
        wanted = "anchor, positive and negative" if loss == "triplet" else "anchor and positive"
        fix = "set train.columns to name them"
        raise DataError(f"loss '{loss}' needs {wanted}", where=dataset.rows[0].where, fix=fix)
    names = ("anchor", "positive", *negatives)
    return [Example(tuple(row.values[name] for name in names), row.where) for row in dataset.rows]
