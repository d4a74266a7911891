"""Retrieval metrics against trec_eval itself (ir-measures over pytrec_eval), ties and odd queries included.
Home of data.beir, embed.retrieval, embed.retrieval_metrics and study.tasks.retrieval_sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import ir_measures
import numpy as np
import pytest
import tiny_embed
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, R, nDCG
from tiny_embed import bert

from adaptkit.data.beir import read_set, scored_split, splits
from adaptkit.data.check import check
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import encode_files
from adaptkit.embed.examples import MOST_BESIDE, Examples, set_of
from adaptkit.embed.retrieval_metrics import PER_QUERY, ranked, retrieval_row, retrieval_scores
from adaptkit.embed.rows import Example
from adaptkit.errors import ConfigError, DataError
from adaptkit.study import scores
from adaptkit.study.task import TaskConfig
from adaptkit.study.tasks.retrieval_sets import bm25_rows

MEASURES = {
    "ndcg_at_10": nDCG @ 10,
    "mrr_at_10": RR,
    "map": AP,
    "recall_at_10": R @ 10,
    "recall_at_100": R @ 100,
}
CUT = {"mrr_at_10": 0.1}  # trec_eval knows no cut reciprocal rank: below a tenth it comes after rank 10


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 150), st.integers(1, 4))
def test_every_metric_of_every_query_is_trec_evals(seed, num_documents, highest):
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(num_documents)]
    coarse = (
        rng.integers(0, max(2, num_documents // 3), (4, num_documents)).astype(np.float32) / 8
    )  # many equal scores
    grades = {
        f"q{q}": {name: int(rng.integers(-1, highest + 1)) for name in rng.permutation(names)[:20]}
        for q in range(4)
    }
    rows = [retrieval_row(query, ranked(coarse[q], names), grades[query]) for q, query in enumerate(grades)]
    run = [
        ir_measures.ScoredDoc(f"q{q}", name, float(s))
        for q in range(4)
        for name, s in zip(names, coarse[q], strict=True)
    ]
    judged = [
        ir_measures.Qrel(query, name, grade) for query, of in grades.items() for name, grade in of.items()
    ]
    found = {
        (m.query_id, m.measure): m.value for m in ir_measures.iter_calc(list(MEASURES.values()), judged, run)
    }
    for row in rows:
        for name, measure in MEASURES.items():
            value = found[row["id"], measure]
            wanted = value if value > CUT.get(name, 0.0) - 1e-9 else 0.0
            assert PER_QUERY[name](row) == pytest.approx(wanted, abs=1e-6), (name, row)
    means = ir_measures.calc_aggregate(list(MEASURES.values()), judged, run)
    of_all = {name: means[measure] for name, measure in MEASURES.items() if name not in CUT}
    assert {name: retrieval_scores(rows)[name] for name in of_all} == pytest.approx(of_all, abs=1e-6)


def test_a_cut_ranking_keeps_the_right_ones_of_equal_scores():
    names = ["a", "c", "b", "d", "e"]
    assert ranked(np.array([1.0, 1.0, 1.0, 2.0, 0.0]), names, 3) == ["d", "c", "b"]
    assert ranked(np.array([1.0, 1.0]), ["a", "b"], 9) == ["b", "a"]


def test_a_query_without_relevant_documents_scores_nothing():
    row = retrieval_row("q", ["a", "b"], {"a": 0, "b": -1})
    assert {name: score(row) for name, score in PER_QUERY.items()} == dict.fromkeys(PER_QUERY, 0.0)


def test_documents_beyond_the_depth_are_not_found():
    ranking = [f"d{i}" for i in range(1500)]
    row = retrieval_row("q", ranking, {"d3": 2, "d1200": 1})
    assert row["hits"] == [4] and row["relevant"] == [2, 1] and PER_QUERY["map"](row) == pytest.approx(1 / 8)


@pytest.mark.parametrize("name", list(PER_QUERY))
def test_a_study_reads_them_as_tables(name):
    rows = [retrieval_row("q1", ["a", "b"], {"b": 1}), retrieval_row("q2", ["a", "b"], {"a": 2, "c": 1})]
    table = scores.score_table(name, rows)
    assert table.value == pytest.approx(retrieval_scores(rows)[name])
    assert table.finish(np.array([2.0, 0.0]) @ table.sums) == pytest.approx(PER_QUERY[name](rows[0]))


@pytest.fixture
def folder(tmp_path) -> Path:
    import tiny_embed

    return tiny_embed.write_set(tmp_path / "set")


def test_a_set_is_read_by_split(folder):
    assert splits(folder) == ["dev", "test", "train"] and scored_split(folder) == "test"
    found = read_set(folder, "dev")
    assert (
        len(found.documents) == 40
        and len(found.queries) == 8
        and all(len(of) == 1 for of in found.grades.values())
    )
    cut = read_set(folder, "train", max_bytes=600)
    assert 0 < len(cut.documents) < 40 and set(cut.queries) < set(read_set(folder, "train").queries)
    assert cut.num_unjudged and sum(len(text.encode()) for text in cut.documents.values()) <= 600
    few = read_set(folder, "test", max_bytes=900)
    assert len(few.queries) == 8 and len(few.documents) > 8, (
        "the answers come first, then whatever else there is room for"
    )


@pytest.mark.parametrize(
    ("name", "line", "match"),
    [
        ("qrels/dev.tsv", "q1\td999\t1\n", "'d999' is not in the set"),
        ("qrels/dev.tsv", "q1\td1\tmany\n", "no whole number"),
        ("corpus.jsonl", '{"text": "no id"}\n', "needs _id and text"),
    ],
)
def test_what_is_wrong_in_a_set_is_told_with_its_line(folder, name, line, match):
    with (folder / name).open("a") as file:
        file.write(line)
    with pytest.raises(DataError, match=match) as caught:
        read_set(folder, "dev")
    assert caught.value.where.rpartition(":")[2].isdigit()


def test_what_is_wrong_in_a_set_can_be_left_out_and_is_listed(folder):
    before = read_set(folder, "dev")
    with (folder / "qrels" / "dev.tsv").open("a") as file:
        file.write("q1\td999\t1\nnobody\td1\t1\nq1\td1\tmany\n")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"text": "no id"}\n')
    found = read_set(folder, "dev", on_bad_row="skip")
    assert (found.queries, found.grades, found.documents) == (before.queries, before.grades, before.documents)
    assert [line.partition(": ")[2] for line in found.skipped] == [
        "a row needs _id and text",
        "'d999' is not in the set",
        "'nobody' is not in the set",
        "grade 'many' is no whole number",
    ]
    with pytest.raises(DataError) as caught:
        read_set(folder, "dev")
    assert "on_bad_row: skip" in caught.value.fix


def test_bm25_finds_rare_words(folder):
    rows, seconds = bm25_rows(folder)
    assert seconds > 0
    assert {row["id"] for row in rows} == set(read_set(folder, "test").queries)
    assert retrieval_scores(rows)["ndcg_at_10"] > 0.9


def test_dev_queries_search_beside_their_own_answers():
    rows = [Example(("what of it", "this is it"), "a:1"), Example(("and that", "that is that"), "a:2")]
    alone = set_of(Examples(rows))
    assert sorted(alone.documents.values()) == ["that is that", "this is it"]
    many = [f"something else {i}" for i in range(MOST_BESIDE + 50)]
    beside = set_of(Examples(rows, corpus=[*many, "this is it"]))
    assert len(beside.documents) == MOST_BESIDE + 2 and beside.grades == alone.grades
    assert beside.documents == set_of(Examples(rows, corpus=many[::-1])).documents, (
        "whatever order the corpus is in"
    )


@pytest.mark.parametrize(
    ("name", "line", "id"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "another text"}\n', "d1"),
        ("corpus.jsonl", '{"_id": "new", "text": "one"}\n{"_id": "new", "text": "one"}\n', "new"),
        ("queries.jsonl", '{"_id": "q1", "text": "another question"}\n', "q1"),
        ("queries.more.jsonl", '{"_id": "q1", "text": "another question"}\n', "q1"),
        ("corpus.more.jsonl", '{"_id": "d1", "text": "another text"}\n', "d1"),
    ],
)
def test_an_id_that_is_given_twice_is_refused_at_its_line(folder, name, line, id):
    before = read_set(folder, "dev")
    with (folder / name).open("a") as file:
        file.write(line)
    with pytest.raises(DataError, match=rf"the id '{id}' is given twice, first at .*jsonl:\d+") as caught:
        read_set(folder, "dev")
    assert Path(caught.value.where.rpartition(":")[0]).name == name
    left = read_set(folder, "dev", on_bad_row="skip")
    assert len(left.skipped) == 1 and left.queries == before.queries
    assert {key: text for key, text in left.documents.items() if key != "new"} == before.documents
    if name == "corpus.jsonl":
        with pytest.raises(DataError, match=f"the id '{id}' is given twice") as encoded:
            encode_files(Encoder.load(bert(folder / "model")), [str(folder / name)], folder / "out")
        assert encoded.value.where == caught.value.where


def test_a_query_may_be_listed_again_with_its_text(folder):
    before = read_set(folder, "dev")
    shutil.copy(folder / "queries.jsonl", folder / "queries.copy.jsonl")
    assert read_set(folder, "dev").queries == before.queries


HEADER = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("q1\td1\t1\nq2\td2\t1\n", "columns query-id, corpus-id and score are missing: this is judgements"),
        (
            "q1 0 d1 1\nq2 0 d2 1\n",
            "columns query-id, corpus-id and score are missing: this is TREC's format",
        ),
        ("q1\t0\td1\t1\nq2\t0\td2\t1\n", "are missing: this is TREC's format"),
        ("qid\tdocid\tscore\nq1\td1\t1\n", "the columns query-id and corpus-id are missing\n"),
        ("query-id\tcorpus-id\tgrade\nq1\td1\t1\n", "the column score is missing\n"),
        (HEADER, "no query has a relevant document"),
        (f"{HEADER}q1\td1\t0\n", "no query has a relevant document"),
        (f"{HEADER}q1\td1\t1\nq1\td1\t2\n", "'d1' has another grade for 'q1' above"),
        (f"{HEADER}q1\td1\t1.5\n", "no whole number"),
    ],
)
def test_judgements_that_cannot_be_read_are_named(folder, text, match):
    (folder / "qrels" / "dev.tsv").write_text(text)
    with pytest.raises(DataError, match=match):
        read_set(folder, "dev")
    if "missing" in match:
        with pytest.raises(DataError, match=match):
            read_set(folder, "dev", on_bad_row="skip")
        with pytest.raises(DataError, match=match):
            check([str(folder)])


def test_numbers_serve_as_ids_and_whole_grades_as_grades(folder):
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": 77, "text": "seventy-seven"}\n')
    (folder / "qrels" / "dev.tsv").write_text(f"{HEADER}q1\t77\t2.0\nq1\td1\t-1\n")
    assert read_set(folder, "dev").grades == {"q1": {"77": 2, "d1": -1}}


def test_the_group_of_a_query_is_given_up_or_named(tmp_path: Path) -> None:
    folder = tiny_embed.write_set(tmp_path / "set")
    [file] = folder.glob("queries*.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    marked = [{**row, "group": "control", "author": f"a{i % 3}"} for i, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in marked))

    def clusters(**columns: str) -> set[str]:
        train = {"files": [str(folder)], "columns": columns}
        task = TaskConfig.model_validate({"name": "find", "kind": "retrieve", "train": train})
        return {row.cluster for row in task.task_kind.read(task).test.rows}

    assert clusters() == {"control"}
    assert clusters(group="author") == {"a0", "a1", "a2"}
    assert len(clusters(group="none")) == 8, "each is for itself"
    with pytest.raises(ConfigError, match="no role 'text'"):
        clusters(text="body")
