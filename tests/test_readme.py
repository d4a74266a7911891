"""Every fenced block of README.md is executed or checked, so that what a newcomer types is what works."""

from __future__ import annotations

import re

import pytest
from doc_blocks import Block, Page, blocks, broken_links
from source_tree import ROOT

README = ROOT / "README.md"
MAX_WORDS = 900
NUMBER = r"[-+][0-9.]+"
INTERVAL = rf"{NUMBER} \[{NUMBER}, {NUMBER}\]"
VERDICT = re.compile(rf"^VERDICT: .* on .+(: {INTERVAL}| \([^()]*{INTERVAL}\))", re.MULTILINE)


def test_the_readme_is_there_and_short() -> None:
    words = README.read_text(encoding="utf-8").split()
    assert 150 < len(words) < MAX_WORDS


def test_the_two_commands_are_in_it() -> None:
    commands = "\n".join(block.text for block in blocks(README) if block.language == "bash")
    assert "make quickstart" in commands and "make test" in commands


@pytest.mark.parametrize("block", blocks(README), ids=str)
def test_a_block_works(block: Block, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if block.language == "text":  # what `compare` prints, which ends in a verdict
        assert VERDICT.search(block.text)
    Page().run(block)


def test_links_into_the_repository_lead_somewhere() -> None:
    assert broken_links(README) == []
