"""verdict.json is read as the report writes it, and a broken one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import TEXTS, write_study

from adaptkit.errors import DataError
from adaptkit.report.write import write_report
from adaptkit.run import read_json, read_sealed, write_json, write_text
from adaptkit.study.verdict_record import read_verdict


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(
        tmp_path_factory.mktemp("study"),
        arms=["generic+lora", "scratch+full"],
        seeds=2,
        num_documents=30,
        num_rows=60,
    )
    write_report(path)
    return path


def test_what_the_report_writes_is_read_back(study: Path) -> None:
    verdict, written = read_verdict(study), read_json(study / "report" / "verdict.json")
    assert (verdict.line, verdict.primary) == (written["line"], "language")
    answer = verdict.of("language")
    assert answer.recommended == verdict.recommended == written["recommended"] == "scratch"
    assert (answer.ledger, answer.outcome, answer.rival) == ("text", "gain", "continued")
    assert answer.contenders == ("scratch",) and answer.best == "scratch" and answer.settled
    assert answer.line == verdict.line and verdict.exit_code == written["exit_code"] == 0
    assert answer.pair is not None
    assert answer.pair.difference == written["tasks"][0]["pair"]["difference"]
    assert verdict.of("rct_role").ledger == "jobs" and verdict.of("rct_role").line != verdict.line
    rows = {(row.arm, row.task): row for row in verdict.scores}
    assert rows["generic+lora", "rct_role"].num_seeds == 2 and rows["tfidf", "rct_role"].num_seeds == 1
    assert set(rows) == {
        *((arm, "language") for arm in TEXTS),
        *((arm, "rct_role") for arm in ("generic+lora", "scratch+full", "tfidf")),
    }


def test_a_verdict_of_the_first_release_asks_for_the_report_again(study: Path, tmp_path: Path) -> None:
    written = read_sealed(study / "report" / "verdict.json")
    del written["recommended"]
    write_json(tmp_path / "report" / "verdict.json", {**written, "winner": "scratch+full"})
    with pytest.raises(DataError, match="does not fit at 'recommended'"):
        read_verdict(tmp_path)


def test_a_verdict_that_does_not_fit_asks_for_the_report_again(study: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no report yet"):
        read_verdict(tmp_path)
    written = read_sealed(study / "report" / "verdict.json")
    del written["tasks"][0]["outcome"]
    write_json(tmp_path / "report" / "verdict.json", written)
    with pytest.raises(DataError, match=r"does not fit at 'tasks\.0\.outcome'") as refused:
        read_verdict(tmp_path)
    assert refused.value.fix == f"adaptkit report {tmp_path}"


def test_a_verdict_with_a_flipped_word_is_damaged(study: Path, tmp_path: Path) -> None:
    text = (study / "report" / "verdict.json").read_text()
    write_text(
        tmp_path / "report" / "verdict.json",
        text.replace('"recommended": "scratch"', '"recommended": "generic"'),
    )
    with pytest.raises(DataError, match="this record is damaged"):
        read_verdict(tmp_path)
