"""Make pairs to learn retrieval from out of the structure that text already has.

A title and the text below it, a heading and its first paragraph, a docstring and the code it describes are
pairs of a short and a long text about the same thing, which is what retrieval is.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from adaptkit.data.readers import Dataset
from adaptkit.data.words import num_words
from adaptkit.embed.rows import Example
from adaptkit.errors import DataError

MIN_WORDS = 3
"""A shorter heading ("Results") says nothing about what is under it."""
MAX_WORDS = 40
"""A longer first line is no title."""
_HEADING = re.compile(r"^#{1,6}\s+(.+)$", re.MULTILINE)


def pairs_from_text(dataset: Dataset) -> tuple[list[Example], dict[str, int]]:
    """(examples, how many of each kind) from documents of plain text.

    Raises: DataError where no document has any structure.
    """
    examples, counts = [], Counter[str]()
    for row in dataset.rows:
        for kind, short, long in _pairs(row.text):
            examples.append(Example((short, long), row.where))
            counts[kind] += 1
    if not examples:
        what = "no document has a title, headings or docstrings to learn from"
        fix = "give pairs with anchor and positive, or set loss: tsdae or simcse"
        raise DataError(what, where=dataset.rows[0].where, fix=fix)
    return examples, dict(counts)


def _pairs(text: str) -> Iterator[tuple[str, str, str]]:
    if "def " in text and (code := list(_docstrings(text))):
        yield from code
        return
    headings = list(_HEADING.finditer(text))
    opening = text
    if headings:
        opening = text[: headings[0].start()]
    first, _, rest = opening.partition("\n")
    if MIN_WORDS <= num_words(first) <= MAX_WORDS and num_words(rest) > num_words(first):
        yield "title to body", first.strip(), rest.strip()
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=False):
        paragraph = _first_paragraph(text[heading.end() : end])
        title = heading.group(1).strip()
        if num_words(title) >= MIN_WORDS and num_words(paragraph) > num_words(title):
            yield "heading to paragraph", title, paragraph


def _first_paragraph(text: str) -> str:
    return next((part.strip() for part in re.split(r"\n\s*\n|\n", text) if part.strip()), "")


def _docstrings(source: str) -> Iterator[tuple[str, str, str]]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            words = ast.get_docstring(node) or ""
            if len(node.body) > 1 and num_words(words) >= MIN_WORDS:
                yield "docstring to code", words.strip(), _without_docstring(node)


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    plain: Any = ast.FunctionDef
    fields = {**dict(ast.iter_fields(node)), "body": node.body[1:]}
    return ast.unparse(ast.copy_location(plain(**fields), node))
