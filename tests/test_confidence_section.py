"""The report's section on confidence: every sentence that it can say, true and false. Home of
report.charts_confidence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from fake_study import write_study
from test_audit_selective import made_rows

from adaptkit.audit.confidence import HALVES, ArmConfidence, audit_rows
from adaptkit.report.confidence_section import confidence_cells, confidence_sections, lead, notes
from adaptkit.report.write import write_report
from adaptkit.study.results import collect
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict import judge


@pytest.fixture(scope="module")
def audit() -> ArmConfidence:
    return audit_rows("full", "queue", [(made_rows(400, 2.0, 1), made_rows(400, 2.0, 2))], None)


def test_the_lead_says_what_handing_over_gains_with_its_intervals(audit: ArmConfidence) -> None:
    wanted = audit.wanted
    assert wanted is not None
    sentence = lead(audit)
    assert sentence.startswith(f"Hand {100 * wanted.share.mean:.1f} % [{100 * wanted.share.low:.1f}, ")
    assert f"of the rest full gets {100 * wanted.accuracy.mean:.1f} % [" in sentence
    assert f"({100 * audit.wanted_accuracy:.1f} % was aimed at" in sentence


def test_the_lead_says_where_nothing_is_reached_and_where_everything_is(audit: ArmConfidence) -> None:
    assert lead(replace(audit, wanted=None)).startswith("No threshold makes ")
    none = replace(audit.handed[0], share=Interval(0.0, 0.0, 0.0))
    assert lead(replace(audit, wanted=none)).startswith("full may answer every item")


def test_the_notes_say_what_the_figures_cannot(audit: ArmConfidence) -> None:
    text = " ".join(notes(audit))
    assert "fitted on 400 development items, and judged on 400 test items" in text
    for absent in ("kept no answers", "is not shown", "handed over", "still too sure"):
        assert absent not in text
    halves = " ".join(notes(replace(audit, fitted_on=HALVES)))
    assert "fitted on each half of the 400 test items" in halves and "kept no answers" in halves
    flat = replace(audit.handed[0], gain=Interval(0.01, -0.02, 0.04))
    assert "is not shown" in " ".join(notes(replace(audit, wanted=flat)))
    assert "is not shown" in " ".join(notes(replace(audit, wanted=None, handed=(flat,))))
    assert "is not shown" not in " ".join(notes(replace(audit, wanted=None)))
    off = replace(audit.handed[1], share=Interval(0.3, 0.2, 0.4))
    assert "A threshold for 10 % handed over 30.0 % [20.0, 40.0]" in " ".join(
        notes(replace(audit, handed=(off,)))
    )
    sure = replace(audit, excess_after=Interval(0.05, 0.01, 0.09))
    assert "full is still too sure" in " ".join(notes(sure))


def test_cells_are_in_the_order_of_the_headings(audit: ArmConfidence) -> None:
    cells = confidence_cells(audit)
    assert cells[0] == f"{audit.temperature:.2f}" and cells[1].startswith("+0.") and len(cells) == 9
    assert cells[3].startswith(f"{100 * audit.accuracy.mean:.1f} % [")
    assert cells[-1].startswith(f"{100 * audit.handed[-1].accuracy.mean:.1f} % [")


def test_the_section_stands_in_the_report_of_a_labelled_study_only(tmp_path: Path) -> None:
    labelled = write_study(tmp_path / "a", num_documents=40, num_rows=120, primary="rct_role")
    results = collect(labelled)
    verdict = judge(results)
    (section,) = confidence_sections(results, verdict)
    arms = [row.arm for row in section.rows]
    assert "tfidf" in arms and verdict.main.recommended in arms and len(arms) == len(set(arms)) < 9
    assert verdict.main.recommended in section.lead
    paths = write_report(labelled)
    page, text = paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")
    assert 'id="confidence"' in page and 'href="#confidence"' in page
    assert section.lead in text and all(f"- {note}" in text for note in section.notes)
    assert re.search(r"\| tfidf \| \d\.\d\d \| [+-]0", text)
    unlabelled = write_study(tmp_path / "b", num_documents=40, num_rows=60, tasks=("language",))
    assert 'id="confidence"' not in write_report(unlabelled).html.read_text(encoding="utf-8")
