"""Take Python source apart: the prose of its docstrings, code without comments, single functions."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

_DOCSTRING = re.compile(r'(?:\A|:[ \t]*(?:#[^\n]*)?\n)\s*[rRuU]?"""(.*?)"""', re.DOTALL)
_BEFORE_COMMENT = re.compile(r"""((?:[^#"']|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')*+)\#.*""")
_PARAGRAPH = re.compile(r"\n\s*\n")
_COMMON = re.compile(
    r"\b(?:the|of|and|to|is|in|that|for|with|are|this|be|as|by|or|it|if|from)\b", re.IGNORECASE
)
_CODE_LIKE = re.compile(r">>>|::|```|\|\s|==|->|\bdef \b|[{}<>\\]|^\s*[-=~*]{3,}|^\s*:\w+", re.MULTILINE)
_SECTION = re.compile(
    r"\s*(?:Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Attributes|References|Usage)\b"
)
Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


def docstrings(source: str) -> list[str]:
    """The triple-quoted strings after a `def`, a `class` or the top of the file; nothing is parsed."""
    return _DOCSTRING.findall(source)


def prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that read as English sentences, each on one line."""
    for paragraph in _PARAGRAPH.split(text):
        if len(paragraph) < 60 or _SECTION.match(paragraph) or _CODE_LIKE.search(paragraph):
            continue
        line = " ".join(paragraph.split())
        blanks = line.count(" ")
        words, letters = blanks + 1, blanks + sum(map(str.isalpha, line))
        if letters >= 0.88 * len(line) and len(_COMMON.findall(line)) >= 0.15 * words and words >= 10:
            yield line


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None for what this Python cannot parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return None


def strip(source: str, tree: ast.Module) -> list[str]:
    """The lines of `source`, docstrings and comments blanked; line numbers stay those of `tree`."""
    lines = source.split("\n")
    for node in _definitions(tree):
        if ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            lines[text.lineno - 1 : text.end_lineno] = [""] * (
                (text.end_lineno or text.lineno) - text.lineno + 1
            )
    inside = (
        _string_lines(tree) if any(quotes in line for line in lines for quotes in ('"""', "'''")) else set()
    )
    for number, line in enumerate(lines, start=1):
        if "#" in line and number not in inside and (match := _BEFORE_COMMENT.fullmatch(line)):
            lines[number - 1] = (match[1] or "").rstrip()
    return lines


def _definitions(tree: ast.Module) -> Iterator[Defined]:
    """All modules, classes and functions; walks statements only, several times faster than `ast.walk`."""
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, Defined):
            yield node
        for name in ("body", "orelse", "finalbody", "handlers"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                pending += block


def _string_lines(tree: ast.Module) -> set[int]:
    """The lines covered by strings of several lines: a `#` there is text."""
    covered: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant | ast.JoinedStr)
            and node.end_lineno
            and node.end_lineno > node.lineno
        ):
            covered.update(range(node.lineno, node.end_lineno + 1))
    return covered


def functions(tree: ast.Module, lines: list[str]) -> Iterator[str]:
    """The source of each function and method, without decorators, from `strip`ped lines.

    A nested function comes with the one around it.
    """
    pending: list[ast.stmt] = list(tree.body)
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.ClassDef):
            pending = [*node.body, *pending]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            body = (line for line in lines[node.lineno - 1 : node.end_lineno] if line.strip())
            yield textwrap.dedent("\n".join(body))
