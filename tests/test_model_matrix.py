"""Every architecture in every use is right or refused in a sentence, and the documentation says the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_matrix import PAGE, RIGHT, Lab, matrix, page, planned

from adaptkit.errors import ModelError


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("matrix"))


@pytest.fixture(scope="module")
def cells(lab: Lab) -> dict[str, dict[str, str]]:
    return matrix(lab)


def test_no_cell_is_unexpected(cells: dict[str, dict[str, str]]) -> None:
    assert not [
        f"{name}, {column}: {outcome}"
        for name, outcomes in cells.items()
        for column, outcome in outcomes.items()
        if outcome.startswith("unexpected")
    ]


def test_the_page_is_what_the_matrix_gives(cells: dict[str, dict[str, str]]) -> None:
    assert PAGE.read_text(encoding="utf-8") == page(cells)


def test_a_dry_run_leaves_out_the_arms_that_the_base_gives_no_start_to(lab: Lab) -> None:
    arms = planned(lab, "bloom")
    assert arms["generic+full"] == arms["generic+probe"] == RIGHT
    assert arms["continued"] == arms["placebo"] == RIGHT, "in rows of one document each"
    assert "no classifier form" in planned(lab, "lfm2")["generic+lora"]


@pytest.mark.parametrize(("name", "words"), [("t5", "encoder-decoder"), ("gemma2", "caps its logits")])
def test_a_dry_run_refuses_a_base_that_no_arm_can_start_from(lab: Lab, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        planned(lab, name)


def test_a_missing_cell_would_show(tmp_path: Path) -> None:
    """Reasons are numbered once, and stand below the table."""
    text = page({"llama": {"prompt": RIGHT, "sft": "cannot"}, "bert": {"prompt": "cannot", "sft": "never"}})
    assert "| llama | yes | (1) |" in text and "| bert | (1) | (2) |" in text
    assert "1. cannot\n2. never\n" in text
