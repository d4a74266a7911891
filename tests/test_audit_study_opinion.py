"""What an arm of a study says of rows that it did not learn from."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import edit_study, write_study

from adaptkit.audit.study_opinion import study_opinion
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError
from adaptkit.run import Run, write_jsonl
from adaptkit.study.results import Results, collect

TASK = "rct_role"


@pytest.fixture
def judged(tmp_path: Path) -> Results:
    """A study whose items carry the ids of its prepared rows; dev rows are answered by seed 0 alone."""
    study = write_study(tmp_path, num_documents=30, num_rows=60, arms=("generic+full", "scratch+full"))
    results = collect(study)
    prepared = tmp_path / "prepared"
    for part in ("dev", "test"):
        rows = [{"text": f"{part} text {number}", "label": "methods"} for number in range(60)]
        write_jsonl(prepared / f"{TASK}.{part}.jsonl", rows)
    ids = {part: _ids(prepared / f"{TASK}.{part}.jsonl") for part in ("dev", "test")}
    for cell in [cell for cell in results.cells if cell.task == TASK]:
        rows = [{**row, "id": ids["test"][number]} for number, row in enumerate(cell.rows)]
        write_jsonl(Run(cell.run).items(TASK), rows)
        if cell.seed == 0:
            dev = [{**row, "id": ids["dev"][number]} for number, row in enumerate(cell.rows)]
            write_jsonl(Run(cell.run).items(TASK, "dev"), dev)
    return collect(study)


def _ids(path: Path) -> list[str]:
    return [row.id for row in read(DataConfig(files=[str(path)]), "labelled").rows]


def test_it_is_the_mean_over_seeds_of_test_and_dev_rows(judged: Results) -> None:
    opinion = study_opinion(judged, TASK, "scratch+full")
    assert opinion.arm == "scratch+full" and len(opinion.chances) == 120
    rows = read(
        DataConfig(files=[str(judged.path.parent / "prepared" / f"{TASK}.test.jsonl")]), "labelled"
    ).rows
    of_item = {row.id: row.text for row in rows}
    cells = judged.of(TASK, "scratch+full")
    for place in (0, 17):
        row_id = cells[0].rows[place]["id"]
        expected = sum(cell.rows[place]["probabilities"]["methods"] for cell in cells) / len(cells)
        assert opinion.chances[of_item[row_id]]["methods"] == pytest.approx(expected)


def test_a_model_stands_for_a_study_that_recommends_word_counts(judged: Results) -> None:
    assert study_opinion(judged, TASK).arm in ("generic+full", "scratch+full")


def test_what_it_has_no_opinion_of_is_said(judged: Results) -> None:
    with pytest.raises(DataError, match="did you mean 'rct_role'"):
        study_opinion(judged, "rct_rule")
    with pytest.raises(DataError, match="no arm 'scratch' on rct_role"):
        study_opinion(judged, TASK, "scratch")
    with pytest.raises(DataError, match="prepared rows of the task are not there"):
        study_opinion(judged, "language", "scratch")
    edit_study(judged.path, prepared_run=None)
    with pytest.raises(DataError, match="prepared rows of the task are not there"):
        study_opinion(collect(judged.path), TASK)
