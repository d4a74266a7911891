"""Read what people write beside a text: several labels, tags of words (BIO), spans with labels, and pairs.

    label_set("billing; refund", "topics", ";")               ["billing", "refund"]
    spans_of_tags(["Ann", "Lee", "left"], ["B-PER", "I-PER", "O"])
    check_spans("Ann Lee left", [{"start": 0, "end": 7, "label": "PER"}], "spans")

Spans are `{"start", "end", "label"}` in characters of the text, the end not included, in order, and none
overlaps another. Rows of words and tags become texts with spans, and keep their words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from adaptkit.data.records import Fault, Record
from adaptkit.data.words import has_blankless, without_han_blanks, word_starts

SEPARATORS = ("|", ";", ",")
"""Of labels in one cell; the first that any of a file's first rows holds is that of all."""
OUTSIDE = "O"
ROUNDING = 1e-3
"""By how much each probability of a row may be off."""
_TAG = re.compile(r"([BILEUSM])[-_](.+)", re.DOTALL)
_PIECE = re.compile(r"\w+|[^\w\s]")
Span = dict[str, Any]
"""`start`, `end` and `label`."""


def separator_of(samples: Sequence[Record], column: str) -> str:
    """What separates labels in the cells of a column."""
    cells = [cell for sample in samples if isinstance(cell := sample.get(column), str)]
    return next((mark for mark in SEPARATORS if any(mark in cell for cell in cells)), SEPARATORS[-1])


def label_probabilities(value: Any, label: str, column: str) -> dict[str, float] | Fault:
    """How likely each label of a row is, from an object or its JSON text; its own label is one of them."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    fix = f'write \'{column}\' as {{"refund": 0.8, "invoice": 0.2}}, with the row\'s own label; null for none'
    if not isinstance(value, dict):
        return Fault(f"'{column}' is {type(value).__name__}, not probabilities by label", fix)
    for name, chance in value.items():
        number = isinstance(chance, (int, float)) and not isinstance(chance, bool)
        if not number or not 0 <= chance <= 1:
            return Fault(f"'{column}' gives the label '{name}' no probability between 0 and 1", fix)
    if abs(sum(value.values()) - 1) > ROUNDING * max(1, len(value)):
        return Fault(f"the probabilities in '{column}' add up to {sum(value.values()):g}", fix)
    if not value.get(label):
        return Fault(f"'{column}' says nothing of the row's own label '{label}'", fix)
    return {str(name): float(chance) for name, chance in value.items()}


def label_set(value: Any, column: str, separator: str) -> list[str] | Fault:
    """The labels of a row, sorted, each once; none of them may apply."""
    if isinstance(value, str):
        listed = _json_list(value)
        value = value.split(separator) if listed is None else listed
        value = [part for part in value if not isinstance(part, str) or part.strip()]
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, list):
        what = f"'{column}' is {_type(value)}, not a list of labels"
        return Fault(what, f"write '{column}' as a list or as text (a; b), empty where no label applies")
    names = set()
    for part in value:
        if isinstance(part, bool) or not isinstance(part, str | int) or not str(part).strip():
            fix = "write each label as text or a whole number"
            return Fault(f"'{column}' holds {_type(part)}, not a label", fix)
        names.add(str(part).strip())
    return sorted(names)


def word_list(value: Any, column: str) -> list[str] | Fault:
    """The words of a row, or their tags: a list of texts, or text with blanks between them."""
    if isinstance(value, str):
        listed = _json_list(value)
        value = value.split() if listed is None else listed
    if not isinstance(value, list):
        return Fault(f"'{column}' is {_type(value)}, not a list of words", f"write '{column}' as a list")
    if not value:
        return Fault(f"'{column}' is empty", "fill it or remove the row")
    for number, part in enumerate(value, start=1):
        if isinstance(part, int) and not isinstance(part, bool):
            what = f"'{column}' holds the number {part} in place of a name"
            return Fault(what, "write names such as B-PER and O; a data set's features list them")
        if not isinstance(part, str) or not part.strip():
            return Fault(f"'{column}' holds {_type(part)} as its word {number}", "write every word as text")
    return value


def spans_of_tags(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, list[Span]] | Fault:
    """The text of words, and the spans that their tags mean: BIO, IOB1, BILOU, BIOES, or bare labels."""
    if len(tokens) != len(tags):
        what = f"{len(tokens)} words and {len(tags)} tags"
        return Fault(what, "give every word one tag, O where it belongs to nothing")
    text, places = join_words(tokens)
    return text, spans_from_tags(places, tags)


def spans_from_tags(places: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Span]:
    """The spans of tagged words: one begins where B says so, or where the label is another than before."""
    spans: list[Span] = []
    is_open = False
    for (start, end), tag in zip(places, tags, strict=True):
        match = _TAG.fullmatch(tag)
        mark, label = match.groups() if match else ("I", tag)
        if tag == OUTSIDE:
            is_open = False
            continue
        if is_open and mark not in "BUS" and spans[-1]["label"] == label:
            spans[-1]["end"] = end
        else:
            spans.append({"start": start, "end": end, "label": label})
        is_open = mark not in "LEUS"
    return spans


def join_words(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Words as one text, and where each stands in it: blanks between them, but beside Han and kana."""
    text = ""
    places: list[tuple[int, int]] = []
    for token in tokens:
        if text and " " in without_han_blanks(f"{text[-1]} {token[0]}"):
            text += " "
        places.append((len(text), len(text) + len(token)))
        text += token
    return text, places


def check_spans(text: str, value: Any, column: str) -> list[Span] | Fault:
    """Spans in order, or what is wrong with them; each may also be written as [start, end, label]."""
    if isinstance(value, str):
        value = _json_list(value)
    if not isinstance(value, list):
        fix = 'write a list of {"start": 0, "end": 3, "label": "name"}, empty where there is none'
        return Fault(f"'{column}' is {_type(value)}, not a list of spans", fix)
    spans: list[Span] = []
    for number, entry in enumerate(value, start=1):
        if isinstance(entry, list | tuple) and len(entry) == 3:
            entry = dict(zip(("start", "end", "label"), entry, strict=True))
        span = _span(text, entry, f"span {number} of '{column}'")
        if isinstance(span, Fault):
            return span
        spans.append(span)
    spans.sort(key=lambda span: (span["start"], span["end"]))
    for first, second in pairwise(spans):
        if second["start"] < first["end"]:
            shown = " and ".join(f"{_shown(text, s)} ({s['label']})" for s in (first, second))
            return Fault(f"spans overlap: {shown}", "keep one of them: a word has one label")
    return spans


def _span(text: str, entry: Any, name: str) -> Span | Fault:
    if not isinstance(entry, dict) or not {"start", "end", "label"} <= entry.keys():
        held = ", ".join(map(str, entry)) if isinstance(entry, dict) else _type(entry)
        return Fault(f"{name} holds {held}", 'write {"start": 0, "end": 3, "label": "name"}')
    start, end, label = entry["start"], entry["end"], entry["label"]
    if not all(isinstance(place, int) and not isinstance(place, bool) for place in (start, end)):
        return Fault(f"{name}: start and end are no whole numbers", "count characters of the text from 0")
    if not 0 <= start < end <= len(text):
        what = f"{name} is {start} to {end}, and the text has {len(text)} characters"
        return Fault(what, "count characters from 0; the end is the character behind the span")
    if not isinstance(label, str) or not label.strip():
        return Fault(f"{name} has {_type(label)} as its label", "write the label as text")
    held = text[start:end]
    if not held.strip():
        return Fault(f"{name} holds nothing but blanks", "move it to the words that it means")
    start += len(held) - len(held.lstrip())
    return {"start": start, "end": start + len(held.strip()), "label": label}


def words_of(text: str, tokens: Sequence[str] | None = None) -> list[tuple[int, int]]:
    """Where the words stand that can have a tag: the row's own, or runs of letters and single marks."""
    if tokens is not None:
        return join_words(tokens)[1]
    if not has_blankless(text):
        return [match.span() for match in _PIECE.finditer(text)]
    starts = sorted({*word_starts(text), *(match.start() for match in _PIECE.finditer(text))})
    places = []
    for start, following in pairwise([*starts, len(text)]):
        places.append((start, start + len(text[start:following].rstrip())))
    return places


def tags_of(places: Sequence[tuple[int, int]], spans: Sequence[Span]) -> list[str]:
    """The BIO tag of each word: that of the span that holds any of it."""
    tags = [OUTSIDE] * len(places)
    for span in spans:
        inside = [i for i, (start, end) in enumerate(places) if start < span["end"] and end > span["start"]]
        for place, number in enumerate(number for number in inside if tags[number] == OUTSIDE):
            tags[number] = f"{'I' if place else 'B'}-{span['label']}"
    return tags


def ordered_pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    """A preference as two texts and which of them is better; which comes first is drawn by hash."""
    drawn = hashlib.sha256(f"{prompt}\0{chosen}\0{rejected}".encode()).digest()[0] % 2
    first, second = (rejected, chosen) if drawn else (chosen, rejected)
    return {"prompt": prompt, "text1": first, "text2": second, "label": "second" if drawn else "first"}


def _json_list(text: str) -> list[Any] | None:
    """A list that is written as JSON text; None for other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) else None


def _shown(text: str, span: Span) -> str:
    return repr(text[span["start"] : span["end"]][:40])


def _type(value: Any) -> str:
    if value is None:
        return "null"
    return "empty" if value in ("", [], {}) else type(value).__name__
