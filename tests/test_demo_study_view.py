"""Without a study the page says so; the real view and the made-up one offer what the page needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
from demo_study import FakeStudy

from adaptkit.demo.study_view import NoStudy, Study
from adaptkit.report.demo_view import StudyView

MEMBERS = [name for name in vars(Study) if not name.startswith("_")]


def test_nothing_was_compared_in_a_folder_with_one_model(tmp_path: Path) -> None:
    none = NoStudy(tmp_path / "tiny")
    assert none.name == "tiny" and "Nothing was compared yet" in none.verdict()
    assert not (none.dials() or none.tasks or none.documents() or none.items("dev", "x") or none.labels("x"))
    assert (none.evidence(), none.about(), none.weigh(a=1.0), none.calibrate([], [])) == ("", "", "", None)


@pytest.mark.parametrize("kind", [StudyView, NoStudy, FakeStudy])
def test_everyone_offers_what_the_page_asks_for(kind: type) -> None:
    for name in MEMBERS:
        wanted = vars(Study)[name]
        if inspect.isfunction(wanted):
            assert _parameters(getattr(kind, name)) == _parameters(wanted)


def _parameters(function: Callable[..., object]) -> list[object]:
    return [parameter.kind for parameter in inspect.signature(function).parameters.values()]
