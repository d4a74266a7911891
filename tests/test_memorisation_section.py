"""The section on memorisation: every sentence that it can say, true and false. Home of
report.memorisation_section and compare.audited_study."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import write_study

from adaptkit.audit.record import (
    ExposureRecord,
    ExtractionRecord,
    FigureRecord,
    MemorisationRecord,
    SubjectRecord,
    write_memorisation,
)
from adaptkit.compare.audited_study import audit_study
from adaptkit.errors import DataError
from adaptkit.report.memorisation_section import lead, memorisation_section, memorisation_tables, notes
from adaptkit.report.write import write_report
from adaptkit.run import Run
from adaptkit.run_record import CanaryRecord


def figure(mean: float, around: float = 0.05) -> FigureRecord:
    return FigureRecord(mean=mean, low=mean - around, high=mean + around)


def subject(name: str, auc: float, wrote: int = 0, **fields: object) -> SubjectRecord:
    bits = [(0, 1.4, 0), (1, 2.0, 0), (16, 25.0, wrote)]
    given = {
        "describe": name,
        "num_seeds": 2,
        "params": 1000,
        "passes": 4.0,
        "membership": figure(auc),
        "beyond_control": figure(auc - 0.5),
        "exposures": tuple(
            ExposureRecord(repeats=repeats, num=4, bits=figure(mean, 1.0), num_written=num)
            for repeats, mean, num in bits
        ),
        "extraction": (ExtractionRecord(repeats="1", num=40, share=figure(0.25), num_tokens=20.0),),
    }
    return SubjectRecord.model_validate({"name": name, **given, **fields})


def audit(*subjects: SubjectRecord, **fields: object) -> MemorisationRecord:
    planted = CanaryRecord(repeats=(1, 16), each=4, seed=0, num_texts=68, num_bytes=3808, digest="d")
    given = {
        "confidence": 0.95,
        "subjects": subjects,
        "control": "generic",
        "num_train": 200,
        "num_held_out": 150,
        "train_digest": "a",
        "held_out_digest": "b",
        "blind": figure(0.51),
        "canaries": planted,
        "half": 50,
    }
    return MemorisationRecord.model_validate(given | fields)


CONTROL = subject("generic", 0.5, passes=0.0, beyond_control=None)
ARMS = (CONTROL, subject("continued", 0.8, wrote=5), subject("continued-lora", 0.6))


def test_the_lead_is_of_the_model_that_gives_most_away() -> None:
    told = (
        "By its loss under continued, a training passage is told from a held-out one in 80.0 % [75.0, 85.0]"
    )
    assert lead(audit(*ARMS)).startswith(told)
    assert lead(audit(*ARMS)).endswith("secrets that stand in the text 16 times were written out.")
    assert lead(audit(CONTROL, subject("continued-lora", 0.6))).endswith("no planted secret was written out.")
    plain = audit(subject("scratch", 0.7, exposures=()), control=None, canaries=None)
    assert lead(plain).endswith("of pairs.")
    assert lead(audit(CONTROL, subject("continued", 0.54))).startswith(
        "That continued tells training passages"
    )
    assert "under generic" not in lead(audit(subject("generic", 0.9, beyond_control=None), ARMS[1]))


def test_the_tables_stand_side_by_side() -> None:
    membership, exposure, extraction = memorisation_tables(audit(*ARMS))
    assert membership.columns == ("model", "passes over the text", "AUC", "minus generic")
    assert membership.rows[0] == ("generic", "0.0", "0.500 [0.450, 0.550]", "-")
    assert membership.rows[1] == ("continued", "4.0", "0.800 [0.750, 0.850]", "+0.300 [+0.250, +0.350]")
    assert exposure.columns == ("model", "never planted", "once", "16 times")
    assert exposure.rows[1][3] == "25.0 [24.0, 26.0]; 5 of 8 written out" and exposure.rows[2][2:] == (
        "2.0 [1.0, 3.0]",
        "25.0 [24.0, 26.0]",
    )
    assert extraction.rows[0] == ("generic", "25.0 % [20.0, 30.0] of 40")
    short = subject("scratch", 0.6, extraction=(), exposures=(), passes=None)
    alone = memorisation_tables(audit(short, control=None, canaries=None))
    assert len(alone) == 1 and alone[0].columns[-1] == "AUC" and alone[0].rows[0][1] == "-"
    mixed = memorisation_tables(audit(*ARMS, short))[2]
    assert mixed.rows[3] == ("scratch", "-")


def test_the_notes_say_what_the_figures_cannot() -> None:
    text = " ".join(notes(audit(*ARMS)))
    assert "200 training and 150 held-out passages" in text and "68 copies" in text and "3,808 bytes" in text
    assert "generic has not learnt this text here, and has 0.500 [0.450, 0.550]" in text
    assert "Passages are 100 tokens" in text and "does not prove" in text
    assert "No canaries" not in text and "differ by themselves" not in text and "No document" not in text
    off = subject("generic", 0.6, passes=0.0, beyond_control=None)
    assert "differ by themselves" in " ".join(notes(audit(off, ARMS[1])))
    alone = audit(subject("scratch", 0.6, exposures=(), extraction=()), control=None, canaries=None)
    text = " ".join(notes(alone))
    assert "No model that has not read the text" in text and "0.510 [0.460, 0.560]" in text
    assert "No canaries were planted" in text and "No document has the 100 tokens" in text
    assert "differ by themselves" not in text
    blind = alone.model_copy(update={"blind": figure(0.7)})
    assert "differ by themselves" in " ".join(notes(blind))


def test_the_section_stands_in_the_report_of_an_audited_study_only(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_documents=40, num_rows=60, tasks=("language",))
    before = write_report(study)
    assert memorisation_section(Run(study)) is None
    assert 'id="memorisation"' not in before.html.read_text(encoding="utf-8")
    write_memorisation(Run(study), audit(*ARMS))
    paths = write_report(study)
    page, text = paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")
    assert 'id="memorisation"' in page and 'href="#memorisation"' in page
    section = memorisation_section(Run(study))
    assert section is not None and section.lead in text
    assert all(f"- {note}" in text for note in section.notes)
    assert "| continued | 4.0 | 0.800 [0.750, 0.850] | +0.300 [+0.250, +0.350] |" in text


def test_a_study_whose_text_is_gone_is_refused_in_a_sentence(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_documents=10, num_rows=10, tasks=("language",), seeds=1)
    with pytest.raises(DataError, match="the text that this study learnt is no longer there"):
        audit_study(study)
