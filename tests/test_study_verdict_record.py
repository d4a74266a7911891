"""verdict.json is read as the report writes it, and a broken one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import write_study

from adaptkit.errors import DataError
from adaptkit.report.write import write_report
from adaptkit.run import read_json, write_json
from adaptkit.study.verdict_record import read_verdict


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_study(
        tmp_path_factory.mktemp("study"),
        arms=["generic+lora", "scratch+full"],
        seeds=2,
        fractions=(1.0,),
        num_documents=30,
        num_rows=60,
    )
    write_report(path)
    return path


def test_what_the_report_writes_is_read_back(study: Path) -> None:
    verdict, written = read_verdict(study), read_json(study / "report" / "verdict.json")
    assert (verdict.line, verdict.primary) == (written["line"], "language")
    answer = verdict.of("language")
    assert answer.winner == written["winner"] == "scratch+full"
    assert answer.versus_generic.difference == written["tasks"][0]["versus_generic"]["difference"]
    rows = {(row.arm, row.task): row for row in verdict.scores}
    assert rows["generic+lora", "rct_role"].num_seeds == 2
    assert len(rows) == len(written["scores"]) == 4


@pytest.mark.parametrize(
    ("outcome", "winner"), [("pretrained", "scratch+full"), ("generic", "generic+lora"), ("tie", None)]
)
def test_the_winner_follows_from_the_outcome(study: Path, outcome: str, winner: str | None) -> None:
    answer = read_verdict(study).of("language").model_copy(update={"outcome": outcome})
    assert answer.winner == winner


def test_a_verdict_that_does_not_fit_asks_for_the_report_again(study: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no report yet"):
        read_verdict(tmp_path)
    written = read_json(study / "report" / "verdict.json")
    del written["tasks"][0]["outcome"]
    write_json(tmp_path / "report" / "verdict.json", written)
    with pytest.raises(DataError, match=r"does not fit at 'tasks\.0\.outcome'") as refused:
        read_verdict(tmp_path)
    assert refused.value.fix == f"adaptkit report {tmp_path}"
