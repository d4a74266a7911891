"""Encoding a corpus and searching it: resumable, exact, and never with another model's vectors. Home of
embed.encoding, embed.index and cli.embed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiny_embed

from adaptkit.cli.console import run as run_command
from adaptkit.embed import encoding
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import Encoding, encode_files
from adaptkit.embed.index import Index
from adaptkit.embed.index_writing import build
from adaptkit.errors import DataError, ModelError


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Encoder:
    return Encoder.load(tiny_embed.bert(tmp_path_factory.mktemp("corpus") / "bert"))


@pytest.fixture
def files(tmp_path) -> list[str]:
    rows = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(tiny_embed.texts(50))]
    return [str(tiny_embed.write(tmp_path / "corpus.jsonl", rows))]


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_vectors_come_with_their_ids_in_the_order_of_the_files(encoder, files, tmp_path, monkeypatch, format):
    monkeypatch.setattr(encoding, "WINDOW", 16)
    made = encode_files(encoder, files, tmp_path / "out", dimensions=16, format=format)
    assert made.ids() == [f"d{i}" for i in range(50)] and made.info["count"] == 50
    wanted = np.concatenate(
        [encoder.encode(tiny_embed.texts(50)[i : i + 16], dimensions=16) for i in range(0, 50, 16)]
    )
    assert np.array_equal(made.vectors(), wanted)
    assert (
        sorted(p.suffix for p in (tmp_path / "out").iterdir())
        == {"npy": [".json", ".json", ".jsonl", ".npy"], "parquet": [".json", ".json", ".jsonl", ".parquet"]}[
            format
        ]
    )


@pytest.mark.parametrize("when", ["between parts", "after the ids", "while joining"])
def test_a_killed_encoding_goes_on_and_ends_the_same(encoder, files, tmp_path, monkeypatch, when):
    monkeypatch.setattr(encoding, "WINDOW", 10)
    whole = encode_files(encoder, files, tmp_path / "whole").vectors().copy()
    calls, encode, replace = [], encoder.encode, os.replace

    def dying(texts, **options):
        calls.append(len(texts))
        if len(calls) == 3 and when == "between parts":
            raise KeyboardInterrupt
        return encode(texts, **options)

    def dying_replace(source, target):
        due = len(calls) == 3 if when == "after the ids" else Path(target).name == "vectors.npy"
        if str(target).endswith(".npy") and due and when != "between parts":
            raise KeyboardInterrupt
        return replace(source, target)

    with monkeypatch.context() as broken:
        broken.setattr(encoder, "encode", dying)
        broken.setattr(os, "replace", dying_replace)
        with pytest.raises(KeyboardInterrupt):
            encode_files(encoder, files, tmp_path / "cut")
    with pytest.raises(DataError, match="no finished encoding"):
        Encoding.open(tmp_path / "cut")
    (tmp_path / "cut" / ".vectors.npy.77.tmp").write_text("of a process that was killed harder")
    done = len(calls)
    monkeypatch.setattr(
        encoder, "encode", lambda texts, **options: calls.append(len(texts)) or encode(texts, **options)
    )
    assert np.array_equal(encode_files(encoder, files, tmp_path / "cut").vectors(), whole)
    names = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert names == ["canaries.json", "documents.jsonl", "encoding.json", "vectors.npy"]
    parts = sum(num == 10 for num in calls[done:])  # the other calls are of the canaries
    assert parts == {"between parts": 3, "after the ids": 3, "while joining": 0}[when], (
        "what was done is not done again"
    )


def test_a_folder_of_something_else_is_refused(encoder, files, tmp_path):
    encode_files(encoder, files, tmp_path / "out")
    with pytest.raises(DataError, match="another dimensions"):
        encode_files(encoder, files, tmp_path / "out", dimensions=8)
    Path(files[0]).write_text('{"_id": "x", "text": "new"}\n')
    with pytest.raises(DataError, match="another files"):
        encode_files(encoder, files, tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"_id": "d1", "text": "again"}', "'d1' is given twice"),
        ('{"_id": "z"}', "no column 'text'"),
        ("{", "JSON"),
    ],
)
def test_rows_that_cannot_be_encoded_are_told(encoder, files, tmp_path, line, match):
    with Path(files[0]).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=match):
        encode_files(encoder, files, tmp_path / "out")


@pytest.fixture
def index(encoder, files, tmp_path) -> Index:
    return build(encode_files(encoder, files, tmp_path / "out"), tmp_path / "index")


def test_exact_search_is_the_product_of_vectors(index, encoder):
    queries = tiny_embed.texts(50)[:7]
    found = index.search(encoder, queries, 5)
    scores = encoder.encode(queries) @ encoder.encode(tiny_embed.texts(50)).T
    for row, wanted in zip(found, scores, strict=True):
        assert [hit.score for hit in row] == pytest.approx(sorted(wanted, reverse=True)[:5], abs=1e-5)
        assert all(hit.score == pytest.approx(wanted[int(hit.id[1:])], abs=1e-5) for hit in row)
        assert all(hit.text == tiny_embed.texts(50)[int(hit.id[1:])] for hit in row)


def test_faiss_finds_what_an_exact_search_finds(index, encoder, tmp_path):
    queries = tiny_embed.texts(50)[:7]
    approximate = build(Encoding.open(tmp_path / "out"), tmp_path / "faiss", faiss="HNSW16")
    for mine, theirs in zip(
        index.search(encoder, queries, 3), approximate.search(encoder, queries, 3), strict=True
    ):
        assert mine[0][1] == pytest.approx(theirs[0][1], abs=1e-5)
    with pytest.raises(DataError, match="FAISS cannot build"):
        build(Encoding.open(tmp_path / "out"), tmp_path / "odd", faiss="NOSUCH")


def test_an_index_takes_the_place_of_an_older_one_and_of_nothing_else(index, encoder, files, tmp_path):
    encoding = Encoding.open(tmp_path / "out")
    before = index.search(encoder, ["a question"])
    assert build(encoding, tmp_path / "index", faiss="HNSW16").info["faiss"] == "HNSW16"
    assert not list((tmp_path / "index").rglob("vectors.npy")) and not index.folder.exists()
    assert index.search(encoder, ["a question"]) == before, "what is open goes on"
    with pytest.raises(DataError, match="holds documents.jsonl, which is no part of an index"):
        build(encoding, tmp_path / "out")
    assert Encoding.open(tmp_path / "out").ids() == encoding.ids()


def test_an_index_that_could_not_be_written_leaves_the_older_one(index, encoder, tmp_path):
    with pytest.raises(DataError, match="FAISS cannot build"):
        build(Encoding.open(tmp_path / "out"), tmp_path / "index", faiss="NOSUCH")
    assert index.search(encoder, ["a question"], 1) == Index.open(tmp_path / "index").search(
        encoder, ["a question"], 1
    )
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_an_index_answers_only_the_model_that_made_it(index, tmp_path):
    other = Encoder.load(tiny_embed.bert(tmp_path / "other", hidden=16))
    with pytest.raises(ModelError, match="bring it to this one"):
        index.search(other, ["a question"])


def test_the_commands_work_together(encoder, files, tmp_path, capsys):
    from adaptkit.cli.app import app

    model = str(tmp_path / "model")
    encoder.save(model)
    assert run_command(app, ["embed", "encode", model, *files, "--out", str(tmp_path / "v"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 50
    assert run_command(app, ["embed", "index", str(tmp_path / "v"), "--out", str(tmp_path / "i")]) == 0
    capsys.readouterr()
    question = tiny_embed.texts(50)[3]
    assert (
        run_command(app, ["embed", "search", str(tmp_path / "i"), model, question, "-k", "2", "--json"]) == 0
    )
    best = json.loads(capsys.readouterr().out)["results"][0]["found"][0]
    assert best["score"] == pytest.approx(1, abs=1e-5) and best["text"] == question
    folder = tiny_embed.write_set(tmp_path / "set")
    assert (
        run_command(
            app, ["embed", "evaluate", model, str(folder), "--out", str(tmp_path / "rows.jsonl"), "--json"]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert told["num_queries"] == 8 and 0 <= told["scores"]["ndcg_at_10"] <= 1
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 8
    assert run_command(app, ["embed", "evaluate", model, str(folder), "--split", "nope"]) == 2


def test_questions_and_answers_are_pairs(tmp_path):
    from adaptkit.data.readers import DataConfig
    from adaptkit.embed.examples import read_examples

    rows = [{"question": f"what is {i}?", "answer": f"it is number {i}"} for i in range(4)]
    file = tiny_embed.write(tmp_path / "faq.jsonl", rows)
    examples = read_examples(DataConfig(files=[str(file)]), "infonce")
    assert examples.rows[0].texts == ("what is 0?", "it is number 0")
