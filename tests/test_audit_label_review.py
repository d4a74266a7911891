"""Labels of a file: out-of-fold opinions, the review that people fill, and rows written anew. Home of
audit.out_of_fold."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from adaptkit.audit.label_review import COLUMNS, StudyOpinion, apply_review, check_labels_of, write_review
from adaptkit.audit.out_of_fold import _folds, out_of_fold
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError

WORDS = {
    "fruit": ["apple", "pear", "plum", "cherry", "quince"],
    "tool": ["hammer", "saw", "drill", "chisel", "plane"],
}
PLANTED = (7, 30, 52)


def texts(num: int = 80) -> list[tuple[str, str]]:
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num):
        label = ("fruit", "tool")[number % 2]
        words = rng.choice(WORDS[label], 3, replace=False).tolist()
        rows.append((f"{' '.join(words)} number {number}", label))
    return rows


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """Rows of two clear labels, three of them wrong, with a column that nothing reads."""
    other = {"fruit": "tool", "tool": "fruit"}
    lines = []
    for number, (text, label) in enumerate(texts()):
        wrong = other[label] if number in PLANTED else label
        lines.append({"id": f"r{number}", "text": text, "label": wrong, "extra": [number]})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def reviewed(path: Path, decide: dict[str, str]) -> Path:
    """Fill the column `decision` of a review, by a piece of the text."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["decision"] = next((value for piece, value in decide.items() if piece in row["text"]), "")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter=";")  # as spreadsheets of other countries write it
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_planted_labels_are_found_with_both_probabilities(rows_file: Path, tmp_path: Path) -> None:
    checked = check_labels_of(DataConfig(files=[str(rows_file)]))
    found = {int(suspect.row.text.split()[-1]) for suspect in checked.suspects}
    assert found == set(PLANTED) and checked.accuracy == pytest.approx(77 / 80)
    write_review(checked, tmp_path / "review.csv")
    with (tmp_path / "review.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and all(row["words_says"] != row["label"] and not row["decision"] for row in rows)
    assert all(float(row["words_label"]) < 0.5 < float(row["words_suggested"]) for row in rows)
    assert all(row["study_says"] == "" for row in rows)
    assert rows[0]["where"].startswith(f"{rows_file}:")


def test_decisions_go_back_into_the_rows_by_id(rows_file: Path, tmp_path: Path) -> None:
    config = DataConfig(files=[str(rows_file)])
    write_review(check_labels_of(config), tmp_path / "review.csv")
    decide = {"number 7": "tool", "number 30": "Remove", "number 52": "keep"}
    applied = apply_review(config, reviewed(tmp_path / "review.csv", decide), tmp_path / "out.jsonl")
    assert (applied.relabelled, applied.removed, applied.kept, applied.undecided) == (1, 1, 1, 0)
    before = [json.loads(line) for line in rows_file.read_text().splitlines()]
    after = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    before[7]["label"] = "tool"
    del before[30]
    assert after == before and applied.num_rows == 79


def test_rows_without_a_decision_stay_and_are_counted(rows_file: Path, tmp_path: Path) -> None:
    config = DataConfig(files=[str(rows_file)])
    write_review(check_labels_of(config), tmp_path / "review.csv")
    applied = apply_review(config, tmp_path / "review.csv", tmp_path / "out.jsonl")
    assert applied.undecided == 3 and (tmp_path / "out.jsonl").read_text() == rows_file.read_text()


def test_a_decision_that_is_no_label_and_a_changed_file_are_refused(rows_file: Path, tmp_path: Path) -> None:
    config = DataConfig(files=[str(rows_file)])
    write_review(check_labels_of(config), tmp_path / "review.csv")
    review = reviewed(tmp_path / "review.csv", {"number 7": "tol"})
    with pytest.raises(DataError, match="'tol' is no label.*did you mean 'tool'"):
        apply_review(config, review, tmp_path / "out.jsonl")
    write_review(check_labels_of(config), review)
    rows_file.write_text(rows_file.read_text().replace("number 52", "number fifty"))
    with pytest.raises(DataError, match="is not in"):
        apply_review(config, review, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no row of a review"):
        apply_review(config, rows_file, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_numbers_stay_numbers_and_formulas_are_defused(tmp_path: Path) -> None:
    lines = []
    for number, (text, label) in enumerate(texts()):
        code = int(label == "tool")
        lines.append({"text": f"=1+{text}", "label": 1 - code if number == 7 else code})
    path = tmp_path / "coded.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = DataConfig(files=[str(path)])
    write_review(check_labels_of(config), tmp_path / "review.csv")
    assert ",'=1+" in (tmp_path / "review.csv").read_text(encoding="utf-8-sig")
    apply_review(config, reviewed(tmp_path / "review.csv", {"number 7": "1"}), tmp_path / "out.jsonl")
    seventh = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[7])
    assert seventh["label"] == 1 and isinstance(seventh["label"], int)


def test_a_label_called_like_a_decision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"text": text, "label": "keep" if label == "tool" else label} for text, label in texts()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="'keep', which is a decision"):
        write_review(check_labels_of(DataConfig(files=[str(path)])), tmp_path / "review.csv")


def test_an_arm_of_a_study_may_suspect_what_word_counts_do_not(rows_file: Path, tmp_path: Path) -> None:
    dataset = read(DataConfig(files=[str(rows_file)]), "labelled")
    sure = {"fruit": 0.99, "tool": 0.01}
    chances = {
        row.text: sure if row.values["label"] == "fruit" else {"fruit": 0.01, "tool": 0.99}
        for row in dataset.rows[:40]
    }
    chances[dataset.rows[11].text] = sure
    assert dataset.rows[11].values["label"] == "tool"
    checked = check_labels_of(DataConfig(files=[str(rows_file)]), study=StudyOpinion("generic+full", chances))
    suspect = next(one for one in checked.suspects if one.row.text == dataset.rows[11].text)
    assert suspect.study is not None and suspect.study.says == "fruit" and suspect.words.says == "tool"
    assert (checked.study_arm, checked.num_seen_by_study) == ("generic+full", 40)
    unseen = next(one for one in checked.suspects if one.row.text.endswith("number 52"))
    assert unseen.study is None
    write_review(checked, tmp_path / "review.csv")
    assert ",fruit,0.0100,0.9900," in (tmp_path / "review.csv").read_text(encoding="utf-8-sig")


def test_no_row_is_judged_by_what_it_taught(rows_file: Path) -> None:
    rows = read(DataConfig(files=[str(rows_file)], columns={"group": "label"}), "labelled").rows
    assert len(set(_folds(rows[:10], 5))) <= 2, "a group is in one fold"
    twice = [*rows[:8], *rows[:8]]
    folds = _folds([row for row in twice], 4)
    assert (folds[:8] == folds[8:]).all()
    alone = read(DataConfig(files=[str(rows_file)]), "labelled").rows
    assert np.bincount(_folds(alone, 5)).tolist() == [16] * 5
    answered = out_of_fold(alone)
    assert answered.probabilities_NC.sum(axis=1) == pytest.approx(np.ones(80))
    with pytest.raises(DataError, match="too few groups for 5 folds"):
        out_of_fold(rows)
