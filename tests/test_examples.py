"""The five examples run in their small form, and their text says that it is made."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from doc_blocks import FENCE
from source_tree import ROOT

NAMES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/__main__.py"))


def test_there_are_five_and_each_is_described() -> None:
    assert NAMES == ["code", "contracts", "log_lines", "medical_search", "tickets"]
    index = (ROOT / "examples/README.md").read_text()
    for name in NAMES:
        assert f"python -m examples.{name}" in index
        page = (ROOT / f"examples/{name}/README.md").read_text()
        assert [block[3].strip() for block in FENCE.finditer(page)] == [f"python -m examples.{name}"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"examples.{name}.__main__")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, "--small", "--out", str(tmp_path / "work")])
    module.main(module.start(module.__file__))
    shown = capsys.readouterr().out
    assert (
        shown.splitlines()[0].endswith("no real person, company or case") and "$ adaptkit data check" in shown
    )
    for path in (tmp_path / "work").glob("*.jsonl"):
        assert all(json.loads(line)["source"] == "made" for line in path.open()) or name == "code"
