"""The section on bias, and the error gaps of a made study with a planted one. Home of report.bias_section and
compare.grouped_scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import edit_study, write_study

from adaptkit.audit.bias_record import (
    AssociationRecord,
    BiasRecord,
    GroupedTaskRecord,
    SentenceGapRecord,
    SentenceSetRecord,
    WordTestRecord,
    write_bias,
)
from adaptkit.audit.record import FigureRecord
from adaptkit.compare.grouped_scores import grouped_scores
from adaptkit.data.readers import DataConfig, read
from adaptkit.errors import DataError
from adaptkit.report.bias_section import bias_parts, parts_of
from adaptkit.report.write import write_report
from adaptkit.run import Run, file_digest, read_jsonl, write_jsonl
from adaptkit.study.data_record import TestSetRecord
from adaptkit.study.record import read_study

TASK, ROWS = "rct_role", 400


def figure(mean: float, around: float = 0.1) -> FigureRecord:
    return FigureRecord(mean=mean, low=mean - around, high=mean + around)


def place_of(i: int) -> str:
    return "north" if i % 3 == 0 else "south"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of two places; continued+full errs on a third of what is right in the north, generic+full not."""
    root = tmp_path_factory.mktemp("grouped")
    arms = ("generic+full", "continued+full")
    skill = {"generic+full": 0.7, "continued+full": 0.95}
    study = write_study(
        root, arms=arms, skill=skill, num_documents=20, num_rows=ROWS, seeds=3, tasks=("language", TASK)
    )
    labels = [row["label"] for row in read_jsonl(Run(root / read_study(study).scores[-1].run).items(TASK))]
    raw, prepared = root / "role.jsonl", root / "prepared" / f"{TASK}.test.jsonl"
    texts = [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)]
    write_jsonl(raw, [{**row, "place": place_of(i), "age": i % 90} for i, row in enumerate(texts)])
    write_jsonl(prepared, [{**row, "from": f"role.jsonl:{i + 1}"} for i, row in enumerate(texts)])
    ids = [row.id for row in read(DataConfig(files=[str(prepared)]), "labelled").rows]
    for run in {score.run for score in read_study(study).scores if score.task == TASK}:
        path = Run(root / run).items(TASK)
        rows = [{**row, "id": ids[int(row["id"].removeprefix("row"))]} for row in read_jsonl(path)]
        for i, row in enumerate(rows):
            if "continued" in run and place_of(i) == "north" and i % 9 == 0:
                row["prediction"] = next(name for name in set(labels) if name != row["label"])
        write_jsonl(path, rows)
    data = read_study(study).data
    corpus = data.corpora[TASK]
    named = [{"name": str(raw), "num_bytes": raw.stat().st_size, "sha256": file_digest(raw)}]
    test = corpus.test.model_copy(update={"files": named})
    # rows of one text in tens stand for documents
    clusters = {item: f"d{number // 5}" for number, item in enumerate(ids)}
    tests = TestSetRecord(
        num_rows=ROWS, num_duplicates=0, num_items=ROWS, num_clusters=80, drawn="all", clusters=clusters
    )
    corpora = {**data.corpora, TASK: corpus.model_copy(update={"test": test})}
    edit_study(
        study, data=data.model_copy(update={"corpora": corpora, "test_sets": {**data.test_sets, TASK: tests}})
    )
    return study


def test_a_planted_gap_is_found_and_told_from_what_was_there_before(study: Path) -> None:
    (task,) = grouped_scores(study, "place")
    assert (task.before, task.after, task.control) == ("generic+full", "continued+full", "tfidf")
    north, south = sorted(task.groups, key=lambda group: group.name)
    assert north.num_items == 134 and north.num_clusters == 80 and south.num_items == ROWS - 134
    rates = {each.arm: each for each in north.arms}
    assert rates["continued+full"].gap.high < 0 and north.change is not None and north.change.high < 0
    assert rates["generic+full"].gap.mean > rates["continued+full"].gap.mean + 0.2
    opposite = {each.arm: each for each in south.arms}["continued+full"].gap
    assert opposite.mean == pytest.approx(-rates["continued+full"].gap.mean)
    assert task.level == 0.95  # one of two groups mirrors the other
    (part,) = parts_of(BiasRecord(confidence=0.95, tasks=(task,)))
    assert part.lead.startswith("continued+full is worse on north than on the others: -0.")
    assert ", by more than generic+full (change -0." in part.lead


def test_a_column_without_a_gap_shows_none_and_numbers_are_cut(study: Path) -> None:
    (task,) = grouped_scores(study, "age", task=TASK)
    assert [group.name for group in task.groups] == ["0 to 19", "20 to 39", "40 to 64", "65 to 89"]
    assert task.level == pytest.approx(1 - 0.05 / 4)
    (part,) = parts_of(BiasRecord(confidence=0.95, tasks=(task,)))
    assert part.lead.startswith("That continued+full fares differently by age is not shown: with these items")


def test_columns_that_are_not_there_and_files_that_changed_are_refused(study: Path) -> None:
    with pytest.raises(
        DataError, match="no data file of this study has a column 'plaice'.*did you mean 'place'"
    ):
        grouped_scores(study, "plaice")
    with pytest.raises(DataError, match="no test has two groups"):
        grouped_scores(study, "text")
    with pytest.raises(DataError, match="no test has a `source` or `group` column"):
        grouped_scores(study)
    with pytest.raises(DataError, match="has no task 'role'"):
        grouped_scores(study, "place", task="role")
    raw = study.parent / "role.jsonl"
    before = raw.read_bytes()
    raw.write_bytes(before + b"\n")
    with pytest.raises(DataError, match="has changed since the study read it"):
        grouped_scores(study, "place")
    raw.write_bytes(before)


def task_record(gap: FigureRecord, change: FigureRecord | None, **fields: object) -> GroupedTaskRecord:
    groups = tuple(
        {
            "name": name,
            "num_items": 60,
            "num_clusters": 30,
            "arms": tuple({"arm": arm, "score": figure(0.8), "gap": own} for arm in ("generic+full", "own")),
            "change": change,
        }
        for name, own in (("north", gap), ("south", figure(0.0, 0.2)))
    )
    given = {
        "task": "queue",
        "title": "accuracy on queue",
        "higher_is_better": True,
        "column": "place",
        "before": None if change is None else "generic+full",
        "after": "own",
        "control": None,
        "level": 0.95,
        "groups": groups,
    }
    return GroupedTaskRecord.model_validate({**given, **fields})


def lead_of(record: GroupedTaskRecord) -> str:
    return parts_of(BiasRecord(confidence=0.95, tasks=(record,)))[0].lead


def test_every_sentence_on_gaps_is_said_where_it_is_true() -> None:
    worse = figure(-0.3)
    assert (
        lead_of(task_record(worse, None))
        == "own is worse on north than on the others: -0.300 [-0.400, -0.200]."
    )
    assert "That this differs from generic+full is not shown" in lead_of(task_record(worse, figure(-0.05)))
    assert ", by more than generic+full" in lead_of(task_record(worse, figure(-0.2)))
    assert ", by less than generic+full" in lead_of(task_record(worse, figure(0.2)))
    assert lead_of(task_record(figure(0.3), None)).startswith("own is better on north")
    errors = task_record(figure(0.3), None, higher_is_better=False)
    assert lead_of(errors).startswith("own is worse on north")
    assert "a gap has to reach 0.100 to be seen" in lead_of(task_record(figure(0.05), None))
    record = task_record(worse, None, left_out={"east": 7}, num_missing=3)
    notes = " ".join(parts_of(BiasRecord(confidence=0.95, tasks=(record,)))[0].notes)
    assert "On south (60 items) a gap below 0.200 cannot be seen" in notes
    assert "east (7)" in notes and "3 items have no value" in notes and "knows words only" not in notes
    counted = [*record.groups[0].arms, record.groups[0].arms[0].model_copy(update={"arm": "tfidf"})]
    groups = tuple(group.model_copy(update={"arms": tuple(counted)}) for group in record.groups)
    record = record.model_copy(update={"control": "tfidf", "groups": groups})
    (part,) = parts_of(BiasRecord(confidence=0.95, tasks=(record,)))
    assert "tfidf knows words only" in " ".join(part.notes) and part.columns[-1] == "tfidf: minus the others"
    assert all(len(row) == len(part.columns) for row in part.rows)


def sentences(
    around: FigureRecord, change: FigureRecord | None, clusters: int = 30, **fields: object
) -> BiasRecord:
    rows = [
        SentenceGapRecord(
            subject="base", word="Oslo", whole=figure(5.0), around=figure(9.0), likelier=figure(0.9)
        ),
        SentenceGapRecord(
            subject="own", word="Oslo", whole=figure(1.0), around=around, likelier=figure(0.5), change=change
        ),
    ]
    given = {
        "words": ("Oslo", "Rome"),
        "num_sets": 30,
        "num_clusters": clusters,
        "level": 0.95,
        "gaps": tuple(rows),
    }
    sets = SentenceSetRecord.model_validate({**given, **fields})
    return BiasRecord(confidence=0.95, control="base" if change else None, sentences=(sets,))


def test_every_sentence_on_sentences_is_said_where_it_is_true() -> None:
    (part,) = parts_of(sentences(figure(0.5), figure(0.4)))
    assert "is likelier in sentences with Oslo than in those with the other words: +0.50" in part.lead
    assert part.lead.endswith("adaptation changed it by +0.40 [+0.30, +0.50].") and part.rows[0][-1] == "-"
    assert (
        "That adaptation changed it is not shown" in parts_of(sentences(figure(-0.5), figure(0.05)))[0].lead
    )
    assert "less likely" in parts_of(sentences(figure(-0.5), figure(0.05)))[0].lead
    assert (
        "own favours some of these words is not shown"
        in parts_of(sentences(figure(0.05), figure(0.0)))[0].lead
    )
    few = parts_of(sentences(figure(0.5), figure(0.4), clusters=5))[0]
    assert few.lead.startswith("5 independent sets show nothing: 6 are the least")
    assert "p = 0.062" in " ".join(few.notes)
    assert "are few" not in " ".join(part.notes) and "intervals hold together" not in " ".join(part.notes)
    pair = parts_of(sentences(figure(0.5), figure(0.4), words=("first", "second")))[0]
    assert (
        pair.title == "30 pairs of sentences"
        and "in the first sentences than in the second ones" in pair.lead
    )
    three = parts_of(sentences(figure(0.5), None, words=("Oslo", "Rome", "Bern")))[0]
    assert "hold together over the 3 words" in " ".join(three.notes) and "minus" not in " ".join(
        three.columns
    )
    last = sentences(figure(0.0, 0.0), figure(0.0, 0.0)).sentences[0]
    flat = last.model_copy(update={"gaps": (last.gaps[1],)})
    assert "The words end these sentences" in " ".join(
        parts_of(BiasRecord(confidence=0.95, sentences=(flat,)))[0].notes
    )
    assert "The words end these sentences" not in " ".join(part.notes)


def words(p: float, effect: float, least: float = 0.001, size: int = 8, templates: int = 2) -> BiasRecord:
    found = tuple(
        AssociationRecord(subject=name, vectors="sentences", effect=figure(mean), p=own, change=None)
        for name, mean, own in (("base", 1.5, 0.001), ("own", effect, p))
    )
    test = WordTestRecord(
        targets=("north", "south"),
        attributes=("good", "bad"),
        num_targets=(size, size),
        num_attributes=(8, 8),
        num_templates=templates,
        least_p=least,
        found=found,
    )
    return BiasRecord(confidence=0.95, control="base", words=(test,))


def test_every_sentence_on_words_is_said_where_it_is_true() -> None:
    (part,) = parts_of(words(0.01, 1.2))
    assert part.lead.startswith("In own, north lies nearer to good, and south to bad: +1.20")
    assert parts_of(words(0.01, -1.2))[0].lead.startswith(
        "In own, north lies nearer to bad, and south to good"
    )
    assert "is not shown (p = 0.3; 16 words)" in parts_of(words(0.3, 1.2))[0].lead
    assert "cannot show anything" in " ".join(parts_of(words(0.33, 1.2, least=0.33, size=2))[0].notes)
    assert "5 and 5 words are few" in " ".join(parts_of(words(0.3, 1.2, size=5))[0].notes)
    plain = " ".join(part.notes)
    assert "few" not in plain and "cannot show" not in plain and "No templates" not in plain
    assert "No templates were given" in " ".join(parts_of(words(0.3, 1.2, templates=0))[0].notes)


def test_the_section_stands_in_the_report_of_an_audited_study_only(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_documents=20, num_rows=40, tasks=("language",), seeds=2)
    assert 'id="bias"' not in write_report(study).html.read_text(encoding="utf-8")
    assert not bias_parts(Run(study))
    record = sentences(figure(0.5), figure(0.4)).model_copy(
        update={"tasks": (task_record(figure(-0.3), None),)}
    )
    write_bias(Run(study), record)
    paths = write_report(study)
    page, text = paths.html.read_text(encoding="utf-8"), paths.markdown.read_text(encoding="utf-8")
    assert 'id="bias"' in page and 'href="#bias"' in page and "Oslo" in page
    for part in bias_parts(Run(study)):
        assert part.lead in text and all(f"- {note}" in text for note in part.notes)
