"""Pairs that plain text holds already: titles, headings, docstrings. Home of embed.structure."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_embed

from adaptkit.data.readers import DataConfig, read
from adaptkit.embed.structure import pairs_from_text
from adaptkit.errors import DataError

TITLED = "How rivers find their way\nWater runs down where the ground is lowest, and digs as it runs."
HEADED = (
    "# The age of old trees\n\nRings in the wood count the years of a tree.\n\nMore of it.\n\n"
    "## Results\n\nToo short a heading has no pair.\n\n## What a long root does\nshort\n"
)
CODE = '''def area(width, height):
    """The area of a rectangle."""
    return width * height


def bare(x):
    """Says something about itself."""
'''


def pairs(tmp_path: Path, *texts: str) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    examples, counts = pairs_from_text(read(DataConfig(files=[str(path)]), "text"))
    assert all(example.where.startswith(f"{path}:") for example in examples)
    return [example.texts for example in examples], counts


def test_a_first_line_shorter_than_the_rest_is_a_title(tmp_path: Path) -> None:
    title, body = TITLED.split("\n")
    assert pairs(tmp_path, TITLED) == ([(title, body)], {"title to body": 1})


def test_a_heading_stands_for_its_first_paragraph(tmp_path: Path) -> None:
    expected = ("The age of old trees", "Rings in the wood count the years of a tree.")
    assert pairs(tmp_path, HEADED) == ([expected], {"heading to paragraph": 1})


def test_a_docstring_stands_for_the_code_below_it(tmp_path: Path) -> None:
    code = "def area(width, height):\n    return width * height"
    assert pairs(tmp_path, CODE) == ([("The area of a rectangle.", code)], {"docstring to code": 1})


def test_kinds_are_counted_and_text_without_structure_adds_nothing(tmp_path: Path) -> None:
    _, counts = pairs(tmp_path, TITLED, HEADED, CODE, "one line of text")
    assert counts == {"title to body": 1, "heading to paragraph": 1, "docstring to code": 1}


def test_documents_without_any_structure_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no document has a title, headings or docstrings"):
        pairs(tmp_path, "one line of text", "another one")
