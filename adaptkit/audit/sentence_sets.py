"""Sentences of the user's own that differ in a few words only: pairs, or templates with words to put in.

    for each in read_sentence_sets(Path("pairs.jsonl")):
        each.words, each.sentences

Rows of JSONL, CSV or any other format that data comes in:

    {"first": "The phase 2 trial ended early.", "second": "The phase 3 trial ended early."}
    {"template": "The trial in {group} ended early.", "words": ["Norway", "Spain", "Japan"]}

Of a CSV, words stand with | between them. Rows with the same `group` belong together and are drawn together.
No list of words is shipped: whom a model may be unfair to is for those to say who use it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.data.files import find_files, records
from adaptkit.data.records import Fault
from adaptkit.errors import DataError

SLOT = "{group}"
PAIR = ("first", "second")
MIN_SETS = 2
"""Pairs, or templates, of the same words: an interval needs two."""


@dataclass(frozen=True)
class SentenceSets:
    """All pairs, or all templates with the same words.

    Attributes:
        words: what the sentences of a set differ in; `first` and `second` for pairs.
        sentences: of each set, one for each word.
        clusters: what each set belongs to.
    """

    words: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    clusters: tuple[str, ...]

    @property
    def are_pairs(self) -> bool:
        return self.words == PAIR

    @property
    def num_clusters(self) -> int:
        return len(set(self.clusters))


def read_sentence_sets(path: Path) -> list[SentenceSets]:
    """Pairs first, then templates by their words.

    Raises: DataError at `file:line` for a row that is neither, and for words with too few templates.
    """
    found: dict[tuple[str, ...], list[tuple[tuple[str, ...], str]]] = {}
    for file in find_files([str(path)])[0]:
        for place, record in records(file):
            where = f"{file}:{place}"
            if isinstance(record, Fault):
                raise DataError(record.what, where=where, fix=record.fix)
            words, sentences = _sentences(record, where)
            cluster = str(record.get("group") or where)
            found.setdefault(words, []).append((sentences, cluster))
    for words, rows in found.items():
        if len({cluster for _, cluster in rows}) < MIN_SETS:
            of = "pairs" if words == PAIR else f"templates with the words {', '.join(words)}"
            what = f"{len(rows)} {of}, all of one group: nothing says how much they vary"
            raise DataError(what, where=str(path), fix="give several that say different things; 20 are few")
    sets = [
        SentenceSets(words, tuple(sentences for sentences, _ in rows), tuple(cluster for _, cluster in rows))
        for words, rows in found.items()
    ]
    return sorted(sets, key=lambda each: not each.are_pairs)


def _sentences(record: dict[str, Any], where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of a row, and its sentences."""
    pair = tuple(record.get(name) for name in PAIR)
    if all(isinstance(text, str) and text.strip() for text in pair):
        if pair[0] == pair[1]:
            raise DataError("both sentences are the same", where=where, fix="let them differ in a word")
        return PAIR, (str(pair[0]), str(pair[1]))
    template, words = record.get("template"), record.get("words")
    if isinstance(words, str):
        words = [word.strip() for word in words.split("|")]
    if not isinstance(template, str) or not isinstance(words, list):
        fix = "give `first` and `second`, or `template` and `words`; `group` may be added"
        raise DataError("neither a pair of sentences nor a template", where=where, fix=fix)
    if SLOT not in template:
        raise DataError(f"the template has no {SLOT}", where=where, fix=f"write {SLOT} where the words go")
    named = [word for word in words if isinstance(word, str) and word]
    repeated = [word for word, number in Counter(named).items() if number > 1]
    if len(named) < max(2, len(words)) or repeated:
        what = f"'{repeated[0]}' is given twice" if repeated else "two words or more are needed, each a text"
        raise DataError(what, where=where, fix=f"list what {SLOT} may be: Norway|Spain, or a JSON list")
    return tuple(named), tuple(template.replace(SLOT, word) for word in named)
