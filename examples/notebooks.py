"""Write each example as a notebook beside its script: the same statements, a cell for each command.

    python -m examples.notebooks       # after a script was changed; a test holds both equal

Needs nothing but Python: a notebook is JSON. Open one with Jupyter from anywhere in the checkout.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).resolve().parent
NAMES = ("tickets", "contracts", "medical_search", "code", "log_lines")
START = """\
import sys
from pathlib import Path

folders = [Path.cwd(), *Path.cwd().parents]
checkout = next(folder for folder in folders if (folder / "examples/steps.py").is_file())
sys.path.insert(0, str(checkout))

from examples.steps import begin

example = begin("{name}")"""
COMMANDS = ("example.adaptkit(", "example.train(")


def notebook(name: str) -> str:
    """The text of an example's notebook."""
    script = (EXAMPLES / name / "__main__.py").read_text(encoding="utf-8")
    tree, lines = ast.parse(script), script.splitlines()
    heading, *rest = (ast.get_docstring(tree) or "").splitlines()
    about = "\n".join(line for line in rest if not line.startswith("python -m")).strip()
    parts = [_markdown(f"# {heading}\n\n{about}".strip()), _code(START.format(name=name))]
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    before = [node for node in tree.body[1:] if node is not main and not isinstance(node, ast.If)]
    parts.append(_code(_source(before, lines)))
    docstring, *statements = main.body
    parts.append(_markdown(ast.get_docstring(main) or ""))
    parts += [_code(_source(group, lines)) for group in _by_command(statements, lines)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": parts, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(content, indent=1) + "\n"


def code_cells(text: str) -> list[str]:
    """The code of a notebook, cell by cell."""
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


def path_of(name: str) -> Path:
    """Where an example's notebook lies."""
    return EXAMPLES / name / f"{name}.ipynb"


def _by_command(statements: list[ast.stmt], lines: list[str]) -> list[list[ast.stmt]]:
    """Statements in groups that each end with a command."""
    groups: list[list[ast.stmt]] = [[]]
    for statement in statements:
        groups[-1].append(statement)
        if _source([statement], lines).startswith(COMMANDS):
            groups.append([])
    return [group for group in groups if group]


def _source(nodes: list[ast.stmt], lines: list[str]) -> str:
    """Statements as they are written, without the indentation of the first."""
    parts = []
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            parts += ["", ""]
        parts.append("\n".join(line[node.col_offset :] for line in lines[node.lineno - 1 : node.end_lineno]))
        if isinstance(node, ast.ImportFrom | ast.Import):
            parts.append("")
    return "\n".join(parts).strip("\n")


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(text: str) -> dict[str, Any]:
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {**cell, "source": text.splitlines(keepends=True)}


if __name__ == "__main__":
    for each in NAMES:
        path_of(each).write_text(notebook(each), encoding="utf-8")
        print(path_of(each))
