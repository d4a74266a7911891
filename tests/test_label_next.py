"""Rows to label: what can be chosen, the table that people fill, and their labels put behind the texts.
Home of labelling.next_rows and cli.labelling."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import EXIT_USER, ConfigError, DataError
from adaptkit.labelling.next_rows import add_labels, choose_next, write_sheet

FRUIT, TOOL = ("apple pear", "pear plum", "plum apple"), ("saw drill", "drill chisel", "chisel saw")
UNSURE = "apple saw"


def write(path: Path, rows: list[dict[str, object]]) -> DataConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(files=[str(path)])


@pytest.fixture
def known(tmp_path: Path) -> DataConfig:
    """Labelled rows, with numbers for labels and a column that nothing reads."""
    rows = [
        {"text": f"{text} {i}", "label": label, "extra": i}
        for label, texts in ((0, FRUIT), (1, TOOL))
        for i, text in enumerate(texts)
    ]
    return write(tmp_path / "known.jsonl", rows)


@pytest.fixture
def pool(tmp_path: Path) -> DataConfig:
    """Clear rows, one unsure row that stands twice, and one that is labelled already."""
    texts = [
        *(f"{text} again {i}" for i in range(4) for text in (*FRUIT, *TOOL)),
        UNSURE,
        UNSURE,
        "apple pear 0",
    ]
    return write(tmp_path / "pool.jsonl", [{"text": text, "extra": [n]} for n, text in enumerate(texts)])


def fill(path: Path, labels: dict[str, str]) -> Path:
    """Fill the column `label` by the text, as a spreadsheet would write it."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        comma = ";" if ";" in file.readline() else ","
        file.seek(0)
        rows = list(csv.DictReader(file, delimiter=comma))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows({**row, "label": labels.get(row["text"], "")} for row in rows)
    return path


def test_the_unsure_row_comes_first_and_known_and_repeated_ones_not_at_all(
    pool: DataConfig, known: DataConfig
) -> None:
    chosen = choose_next(pool, known, strategy="uncertainty", count=3)
    assert chosen.rows[0].text == UNSURE and chosen.margins is not None and chosen.median_margin is not None
    assert chosen.margins[0] == min(chosen.margins) < 0.1 < chosen.median_margin
    assert (chosen.num_unlabelled, chosen.num_repeated, chosen.num_known) == (25, 1, 1)
    everything = choose_next(pool, known, strategy="random", count=99)
    assert len({row.text for row in everything.rows}) == 25 == len(everything.rows)


def test_the_order_of_the_file_does_not_matter(pool: DataConfig, known: DataConfig, tmp_path: Path) -> None:
    lines = Path(pool.files[0]).read_text().splitlines()
    turned = write(tmp_path / "turned.jsonl", [json.loads(line) for line in reversed(lines)])
    for strategy in ("both", "diversity", "random", "uncertainty"):
        first, second = (choose_next(c, known, strategy=strategy, count=6) for c in (pool, turned))
        assert [row.text for row in first.rows] == [row.text for row in second.rows]


def test_another_judge_is_asked_in_place_of_word_counts(pool: DataConfig, known: DataConfig) -> None:
    def judge(texts: list[str]) -> np.ndarray:
        sure = np.array([0.5 if text == "plum apple again 2" else 0.9 for text in texts])
        return np.stack([sure, 1 - sure], axis=1)

    chosen = choose_next(pool, known, strategy="uncertainty", count=1, judge=judge)
    assert chosen.rows[0].text == "plum apple again 2" and chosen.median_margin == pytest.approx(0.8)


def test_labels_go_behind_the_labelled_rows_in_their_spelling(
    pool: DataConfig, known: DataConfig, tmp_path: Path
) -> None:
    write_sheet(choose_next(pool, known, strategy="uncertainty", count=3), tmp_path / "sheet.csv")
    sheet = fill(tmp_path / "sheet.csv", {UNSURE: " 1 "})
    added = add_labels(pool, sheet, known, tmp_path / "out.jsonl")
    assert (added.added, added.empty, added.num_rows) == (1, 2, 7)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in Path(known.files[0]).read_text().splitlines()]
    assert rows == [*before, {"text": UNSURE, "extra": [24], "label": 1}]
    both = read(DataConfig(files=[str(tmp_path / "out.jsonl")]), "labelled")
    assert len(both.rows) == 7 and both.labels == ["0", "1"]


def test_the_very_first_rows_need_no_labels(pool: DataConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row is labelled"):
        choose_next(pool, None, strategy="both", count=3)
    chosen = choose_next(pool, None, strategy="diversity", count=3)
    assert chosen.margins is None and chosen.num_known == 0
    write_sheet(chosen, tmp_path / "sheet.csv")
    fill(tmp_path / "sheet.csv", {chosen.rows[1].text: "anything"})
    added = add_labels(pool, tmp_path / "sheet.csv", None, tmp_path / "out.jsonl")
    assert (added.added, added.num_rows) == (1, 1)


def test_what_does_not_fit_is_refused(pool: DataConfig, known: DataConfig, tmp_path: Path) -> None:
    chosen, sheet = choose_next(pool, known, strategy="uncertainty", count=2), tmp_path / "sheet.csv"
    write_sheet(chosen, sheet)
    with pytest.raises(DataError, match="no row has a label"):
        add_labels(pool, sheet, known, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no row of --labelled has the label '11'"):
        add_labels(pool, fill(sheet, {UNSURE: "11"}), known, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no row of a table to label"):
        add_labels(pool, Path(pool.files[0]), known, tmp_path / "out.jsonl")
    fill(sheet, {UNSURE: "1"})
    other = write(tmp_path / "other.jsonl", [{"text": "something else"}])
    with pytest.raises(DataError, match="is not in .*other.jsonl"):
        add_labels(other, sheet, known, tmp_path / "out.jsonl")
    renamed = write(tmp_path / "renamed.jsonl", [{"body": "something else"}])
    renamed = renamed.model_copy(update={"columns": {"text": "body"}})
    with pytest.raises(DataError, match="the text stands in 'body', and in 'text' of --labelled"):
        add_labels(renamed, sheet, known, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="are labelled already"):
        choose_next(known, known, strategy="random", count=1)
    one = write(
        tmp_path / "one.jsonl", [{"text": "apple", "label": "fruit"}, {"text": "pear", "label": "fruit"}]
    )
    with pytest.raises(DataError, match="all 2 labelled rows have the label 'fruit'"):
        choose_next(pool, one, strategy="uncertainty", count=1)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_commands_choose_and_add(
    pool: DataConfig,
    known: DataConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    choose = ["labels", "next", "pool.jsonl", "--labelled", "known.jsonl", "--count", "2"]
    assert run_command(app, choose) == 0
    shown = capsys.readouterr().out
    assert "to_label.csv: 2 of 25 rows to label, by uncertainty" in shown and "no fair sample" in shown
    assert "left out: 1 whose text is labelled already, 1 that repeat one" in shown
    assert "next: adaptkit labels add pool.jsonl to_label.csv --labelled known.jsonl" in shown
    assert run_command(app, choose) == EXIT_USER and "is there already" in capsys.readouterr().err
    fill(tmp_path / "to_label.csv", {UNSURE: "0"})
    add = ["labels", "add", "pool.jsonl", "to_label.csv", "--labelled", "known.jsonl", "--json"]
    assert run_command(app, add) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"file": "pool.jsonl.labelled.jsonl", "added": 1, "empty": 1, "num_rows": 7}
    assert run_command(app, [*choose, "--out", "b.csv", "--arm", "generic+full"]) == EXIT_USER
    assert "add --study" in capsys.readouterr().err
    assert run_command(app, [*choose, "--out", "c.csv", "--by", "random", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["by"] == "random" and said["judge"] == "word counts" and said["num_chosen"] == 2
