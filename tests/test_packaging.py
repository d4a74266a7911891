"""What is installed: two packages and their files; `kernels/` is never taken for Hugging Face's library."""

from __future__ import annotations

import fnmatch
import re
import tomllib

import pytest
import yaml
from doc_blocks import broken_links
from source_tree import PACKAGE, ROOT, SOURCES, fresh_python, module_of, name_of, room_of

from adaptkit.version import __version__


def test_the_kernels_folder_is_never_a_package() -> None:
    for folder in (ROOT / "kernels", ROOT / "kernels" / "torch-ext"):
        assert not (folder / "__init__.py").exists()
    assert not [path for path in (ROOT / "tests").rglob("kernels") if path.is_dir()]
    assert not (ROOT / "tests" / "__init__.py").exists()
    assert "graft kernels" in (ROOT / "MANIFEST.in").read_text()


def test_the_distribution_holds_two_packages_and_their_files() -> None:
    setuptools = pytest.importorskip("setuptools")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    where, include = settings["packages"]["find"]["where"], settings["packages"]["find"]["include"]
    found = {
        package
        for folder in where
        for package in setuptools.find_namespace_packages(str(ROOT / folder), include=include)
    }
    assert {package.split(".")[0] for package in found} == {"adaptkit", "adaptkit_kernels"}
    assert all(
        ".".join(path.relative_to(ROOT).parts[:-1]) in found
        for path in SOURCES
        if room_of(module_of(path)) != "adaptkit_kernels"
    )
    patterns = [pattern.removeprefix("**/") for pattern in settings["package-data"]["adaptkit"]]
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns), (
                f"{name_of(path)} would not be installed"
            )


def test_transformers_finds_no_kernels_library_of_ours() -> None:
    assert (
        fresh_python("import transformers.integrations.hub_kernels as h; print(h.__name__)")
        .strip()
        .endswith("hub_kernels")
    )


def test_the_changelog_and_the_citation_name_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\S+)(?: - (\d{4}-\d\d-\d\d))?$", changelog, re.MULTILINE)
    assert headings[0] == ("Unreleased", "") and headings[1][0] == __version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["date-released"]) == headings[1]


def test_templates_and_links_of_the_front_pages_are_whole() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        template = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= template.keys()
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        assert broken_links(ROOT / name) == []
