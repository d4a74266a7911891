"""A retrieval set in which words find the right place and only reading tells the right document."""

from __future__ import annotations

from pathlib import Path

import tiny_embed
from tiny_embed import DOINGS, THINGS

PER_QUERY = 4
"""Documents that share a query's words; one of them is right, and says so."""


def rows(num: int) -> list[tuple[str, list[str]]]:
    """Questions with their documents, the right one first."""
    pairs = [(one, other) for one in THINGS for other in THINGS if one < other][:num]
    return [
        (
            f"tell of {one} and {other}",
            [
                f"the {one} {DOINGS[(number + at) % len(DOINGS)]} the {other} {'wrong' if at else 'right'}"
                for at in range(PER_QUERY)
            ],
        )
        for number, (one, other) in enumerate(pairs)
    ]


def write_set(folder: Path, num: int = 40) -> Path:
    """In BEIR's layout with the splits train, dev and test; of equal scores the right document comes last."""
    made = rows(num)
    tiny_embed.write(
        folder / "corpus.jsonl",
        [
            {"_id": f"d{i}-{at}", "text": text}
            for i, (_, texts) in enumerate(made)
            for at, text in enumerate(texts)
        ],
    )
    tiny_embed.write(
        folder / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, (text, _) in enumerate(made)]
    )
    (folder / "qrels").mkdir(exist_ok=True)
    parts = {"train": range(num - 16), "dev": range(num - 16, num - 8), "test": range(num - 8, num)}
    for name, ids in parts.items():
        lines = "".join(f"q{i}\td{i}-0\t1\n" for i in ids)
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def bert(folder: Path) -> Path:
    """A random one-layer BERT that knows the words."""
    corpus = [text for question, documents in rows(40) for text in (question, *documents)]
    return tiny_embed.bert(folder, corpus=corpus)
