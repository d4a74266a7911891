"""The five examples run in their small form, and their text says that it is made."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from doc_blocks import FENCE
from source_tree import ROOT

from examples import notebooks
from examples.steps import start

NAMES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/__main__.py"))


def test_there_are_five_and_each_is_described() -> None:
    assert sorted(notebooks.NAMES) == NAMES
    assert NAMES == ["code", "contracts", "log_lines", "medical_search", "tickets"]
    index = (ROOT / "examples/README.md").read_text()
    for name in NAMES:
        assert f"python -m examples.{name}" in index
        page = (ROOT / f"examples/{name}/README.md").read_text()
        assert [block[3].strip() for block in FENCE.finditer(page)] == [f"python -m examples.{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_script(name: str) -> None:
    assert notebooks.path_of(name).read_text() == notebooks.notebook(name), "run python -m examples.notebooks"
    script = ast.parse((ROOT / f"examples/{name}/__main__.py").read_text())
    main = next(node for node in script.body if getattr(node, "name", "") == "main")
    functions = [node for node in script.body[1:] if node is not main and not isinstance(node, ast.If)]
    statements = [ast.unparse(node) for node in [*functions, *main.body[1:]]]
    _, *cells = notebooks.code_cells(notebooks.notebook(name))
    assert [ast.unparse(node) for cell in cells for node in ast.parse(cell).body] == statements
    assert len(cells) > 3, "a cell for each command"


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell by cell, as its notebook does; what the script does beside is to read its command line."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("EXAMPLES_SMALL", "1")
    monkeypatch.chdir(tmp_path)
    started, *cells = notebooks.code_cells(notebooks.path_of(name).read_text())
    namespace: dict[str, object] = {"__name__": "__main__"}
    exec("from examples.steps import begin\n" + started[started.index("example =") :], namespace)
    for cell in cells:
        exec(compile(cell, f"{name}.ipynb", "exec"), namespace)
    shown = capsys.readouterr().out
    assert (
        shown.splitlines()[0].endswith("no real person, company or case") and "$ adaptkit data check" in shown
    )
    for path in (tmp_path / f"example-{name}").glob("*.jsonl"):
        assert all(json.loads(line)["source"] == "made" for line in path.open()) or name == "code"


def test_a_script_reads_its_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tickets", "--small", "--out", str(tmp_path / "work")])
    example = start(str(ROOT / "examples/tickets/__main__.py"))
    assert example.small and Path.cwd() == tmp_path / "work" and example.here.name == "tickets"


def test_a_notebook_finds_the_checkout_from_any_folder_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples/tickets")
    namespace: dict[str, object] = {}
    cell = notebooks.code_cells(notebooks.notebook("tickets"))[0]
    exec(cell[: cell.index("sys.path")], namespace)
    assert namespace["checkout"] == ROOT
