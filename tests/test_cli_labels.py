"""`adaptkit labels check` and `apply`: what they write, say and refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from test_audit_label_review import texts

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.errors import EXIT_USER


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two clear labels, of which one is wrong."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["body", "queue"])
        for number, (text, label) in enumerate(texts()):
            writer.writerow([text, "fruit" if number == 7 else label])
    return tmp_path / "rows.csv"


ROLES = ["--column", "text=body", "--column", "label=queue"]


def test_labels_are_checked_reviewed_and_applied(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["labels", "check", "rows.csv", *ROLES]) == 0
    shown = capsys.readouterr().out
    assert "rows.csv.review.csv: 1 of 80 rows are suspect (1.2%)" in shown
    assert "next: adaptkit labels apply rows.csv rows.csv.review.csv --column text=body" in shown
    assert "A suspect is a row for people to look at" in shown
    review = Path("rows.csv.review.csv")
    review.write_text(review.read_text(encoding="utf-8-sig").replace(",fruit,,", ",fruit,tool,"))
    assert run_command(app, ["labels", "apply", "rows.csv", str(review), *ROLES, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "rows.csv.reviewed.jsonl",
        "relabelled": 1,
        "removed": 0,
        "kept": 0,
        "undecided": 0,
        "num_rows": 80,
    }
    seventh = json.loads(Path("rows.csv.reviewed.jsonl").read_text().splitlines()[7])
    assert seventh == {"body": texts()[7][0], "queue": "tool"}


def test_nothing_is_written_over(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["labels", "check", "rows.csv", *ROLES, "--out", "rows.csv"]) == EXIT_USER
    assert "the file that is checked" in capsys.readouterr().err
    before = table.read_bytes()
    assert (
        run_command(app, ["labels", "apply", "rows.csv", "rows.csv", *ROLES, "--out", "rows.csv"])
        == EXIT_USER
    )
    assert "is there already" in capsys.readouterr().err and table.read_bytes() == before


def test_options_of_a_study_need_one(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(app, ["labels", "check", "rows.csv", *ROLES, "--arm", "generic+full"]) == EXIT_USER
    assert "add --study" in capsys.readouterr().err
