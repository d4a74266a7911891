"""What stands between a change and the main branch: linters, types, documentation, tests."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from source_tree import MODULES, ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_module_has_its_types_checked() -> None:
    settings = SETTINGS["tool"]["mypy"]
    lenient = {"ignore_errors", "exclude"}
    assert not [part for part in [settings, *settings["overrides"]] if lenient & part.keys()]
    followed = [o["module"] for o in settings["overrides"] if o.get("follow_imports") == "skip"]
    assert not [name for names in followed for name in names if name.startswith("adaptkit")]
    first_lines = {name: path.read_text(encoding="utf-8")[:2000] for name, path in MODULES.items()}
    assert not [name for name, text in first_lines.items() if "# mypy: ignore-errors" in text]


def test_types_are_checked_with_the_plugin_of_the_configs() -> None:
    settings = SETTINGS["tool"]["mypy"]
    assert settings["plugins"] == ["pydantic.mypy"] and settings["packages"] == ["adaptkit"]
    assert settings["disallow_untyped_defs"] and settings["warn_unused_ignores"]


@pytest.mark.parametrize("extra", ["lint", "docs"])
def test_tools_are_pinned_by_a_range(extra: str) -> None:
    for requirement in SETTINGS["project"]["optional-dependencies"][extra]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+,<[\d.]+", requirement), requirement


def test_lint_checks_style_format_types_and_architecture() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    for tool in ("ruff check .", "ruff format --check .", "bin/mypy", "pytest"):
        assert tool in recipe
    tests = re.search(r"^HOUSE_TESTS := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert tests is not None and all((ROOT / name).is_file() for name in tests[1].split())


def test_ci_runs_all_of_it_from_a_clean_clone() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    steps = [line for line in script.read_text().splitlines() if line.startswith("make ")]
    assert steps == ["make lint", "make docs", "make test"]


def test_the_longest_groups_of_tests_begin_first(pytestconfig: pytest.Config) -> None:
    """Otherwise the other processes wait at the end for one that takes minutes."""
    conftest = pytestconfig.pluginmanager.get_plugin(str(ROOT / "tests" / "conftest.py"))
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(conftest._LONGEST) - {"server"} <= there
    assert "--dist loadgroup --no-loadscope-reorder" in (ROOT / "Makefile").read_text()

    names = ["test_cli", "test_models", "test_study", "test_screen"]
    marks: dict[str, str] = {}
    items = [
        SimpleNamespace(
            path=Path(f"{name}.py"),
            fixturenames=["served"] if name == "test_screen" else [],
            add_marker=lambda mark, name=name: marks.update({name: mark.args[0]}),
        )
        for name in names
    ]
    xdist = SimpleNamespace(pluginmanager=SimpleNamespace(hasplugin=lambda name: name == "xdist"))
    conftest.pytest_collection_modifyitems(xdist, items)
    assert [item.path.stem for item in items] == ["test_screen", "test_study", "test_cli", "test_models"]
    assert marks == {**{name: name for name in names}, "test_screen": "server"}


def test_the_hooks_before_a_commit_download_nothing() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    entries = [hook["entry"].split()[:2] for hook in repositories[0]["hooks"]]
    assert entries == [["ruff", "check"], ["ruff", "format"], ["mypy"]]
