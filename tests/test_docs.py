"""Every code block of the documentation is executed or checked; generated pages cover all of the code."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
import yaml
from doc_blocks import Page, blocks, broken_links
from source_tree import ROOT

from adaptkit.cli.app import app
from adaptkit.run_record import RunRecord
from adaptkit.study import task
from adaptkit.study.record import StudyRecord

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))


@pytest.fixture
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    """A page's own folder; kinds of task that it registers are gone afterwards."""
    monkeypatch.chdir(tmp_path)
    kinds = dict(task.KINDS)
    yield Page()
    task.KINDS.clear()
    task.KINDS.update(kinds)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_the_blocks_of_a_page_work(path: Path, page: Page) -> None:
    for block in blocks(path):
        page.run(block)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path) == []


def test_every_page_is_in_the_navigation() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def files(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        for value in entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ():
            yield from files(value)

    assert sorted(files(settings["nav"])) == [str(path.relative_to(DOCS)) for path in PAGES]


def test_the_page_of_records_names_every_field(hooks: ModuleType) -> None:
    for record in (RunRecord, StudyRecord):
        table = hooks.fields_table(record)
        assert all(f"| `{name}` |" in table for name in record.model_fields)
    assert "<br>" not in hooks.records() and "| `base` |" in hooks.records()


def test_the_page_of_commands_names_every_command(hooks: ModuleType) -> None:
    text, root = hooks.commands(), typer.main.get_command(app)
    for name, command in root.commands.items():
        for inner in getattr(command, "commands", {"": None}):
            assert f"## adaptkit {' '.join([name, inner]).strip()}\n" in text


def test_every_room_is_in_the_picture() -> None:
    picture = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = {path.stem for path in (ROOT / "adaptkit").iterdir() if not path.name.startswith(("_", "."))}
    assert not [room for room in rooms - {"py"} if f"`{room}`" not in picture]
