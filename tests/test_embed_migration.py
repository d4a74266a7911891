"""An index changes its model while it answers, and never mixes two. Home of cli.index_change,
embed.canary_noise, embed.canary_vectors, embed.index_folder, embed.migration, embed.searcher,
embed.served_encoder and models.jitter."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
import tiny_embed
import torch
from source_tree import ROOT

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.client.openai import Client
from adaptkit.embed import encoding
from adaptkit.embed.canary_noise import make_canaries
from adaptkit.embed.canary_vectors import TEXTS, Canaries, distances, tolerance
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import encode_files
from adaptkit.embed.index import Index
from adaptkit.embed.index_folder import current, drop_others, switch, versions
from adaptkit.embed.index_update import plan_update
from adaptkit.embed.index_writing import build, encoder_of
from adaptkit.embed.migration import check_overlap, overlap_of, overlap_on, prepare
from adaptkit.embed.searcher import Searcher
from adaptkit.embed.served_encoder import ServedEncoder
from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.models.jitter import jittered
from adaptkit.run import Run, read_sealed, write_sealed
from adaptkit.run_lock import lock_path, release

QUERIES = tiny_embed.texts(75)[50:]
MANY = tiny_embed.texts(100)[50:]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    """Two encoders, the second one with smaller vectors."""
    root = tmp_path_factory.mktemp("models")
    for name, hidden in (("old", 32), ("new", 16)):
        Encoder.load(tiny_embed.bert(root / f"{name}-base", hidden=hidden)).save(root / name)
    return root / "old", root / "new"


@pytest.fixture(scope="module")
def old(models) -> Encoder:
    return Encoder.load(models[0])


@pytest.fixture(scope="module")
def new(models) -> Encoder:
    return Encoder.load(models[1])


@pytest.fixture
def folder(old, tmp_path) -> Path:
    """An index of 50 documents by the old model."""
    rows = [{"_id": f"d{i}", "text": text} for i, text in enumerate(tiny_embed.texts(50))]
    files = [str(tiny_embed.write(tmp_path / "corpus.jsonl", rows))]
    return build(encode_files(old, files, tmp_path / "vectors"), tmp_path / "index").folder.parent


def names_of(index: Index, embedder, queries=QUERIES) -> list[list[str]]:
    return [[hit.id for hit in hits] for hits in index.search(embedder, queries, 3)]


def moved_weights(folder: Path, model: Path, by: float) -> Encoder:
    """The same model, each weight moved by about `by` of itself, as by a little training."""
    encoder = Encoder.load(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in encoder.model.parameters():
            weight.mul_(1 + by * torch.randn_like(weight))
    encoder.save(folder)
    return Encoder.load(folder)


def test_rounding_moves_numbers_and_leaves_the_model_as_it_was(old):
    before = old.encode(TEXTS)
    with jittered(old.model, 2.0**-8, seed=0):
        moved = old.encode(TEXTS)
    apart = distances(before, moved)
    assert (apart > 1e-4).all() and (apart < 0.1).all()
    assert np.array_equal(old.encode(TEXTS), before)


def test_a_model_repeats_its_canaries_in_either_precision_and_another_does_not(folder, models, tmp_path):
    index = Index.open(folder)
    for dtype in ("float32", "bfloat16"):
        index.check(Encoder.load(models[0], dtype=dtype))
    canaries = index.canaries
    assert canaries.noise["float32"] < canaries.noise["bfloat16"] / 1000
    assert tolerance(canaries, "float32") < tolerance(canaries, "bfloat16") < 0.5
    other = moved_weights(tmp_path / "moved", models[0], 0.3)
    other.digest = index.info["model"]  # a folder whose libraries compute otherwise
    with pytest.raises(ModelError, match=f"of {len(TEXTS)} kept texts {len(TEXTS)} moved"):
        Index.open(folder).check(other)


def test_a_tolerance_never_lets_another_text_pass():
    rows = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
    noise = {"float32": 0.0, "bfloat16": 9.0}
    canaries = Canaries(texts=("a", "b", "c"), words="", vectors=rows, precision="float32", noise=noise)
    assert tolerance(canaries, "bfloat16") == pytest.approx(0.5)  # half the median: 1, the one from a to c
    assert tolerance(canaries, "float32") == pytest.approx(2e-6)


class Server:
    """Speaks `/v1/embeddings` with an encoder behind it, which may be another one by the next request."""

    def __init__(self, encoder: Encoder):
        self.encoder, self.requests = encoder, []

    def client(self) -> Client:
        return Client("http://vectors", transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "vectors", "max_model_len": 64}]})
        body = json.loads(request.content)
        self.requests.append(body)
        vectors = self.encoder.encode(body["input"], prompt="")
        rows = [{"index": i, "embedding": row.tolist()} for i, row in enumerate(vectors)]
        return httpx.Response(200, json={"data": rows})


def test_a_server_is_known_by_its_canaries_with_every_request(folder, models, tmp_path):
    index, server = Index.open(folder), Server(Encoder.load(models[0], dtype="bfloat16"))
    served = ServedEncoder.of(server.client(), "", words=index.canaries.words, normalised=True)
    found = index.search(served, QUERIES, 3)
    wanted = index.search(Encoder.load(models[0]), QUERIES, 3)
    assert sum(a[0][0] == b[0][0] for a, b in zip(found, wanted, strict=True)) >= 20
    assert server.requests[-1]["input"] == [TEXTS[1], *QUERIES]
    server.encoder = moved_weights(tmp_path / "moved", models[0], 0.3)
    with pytest.raises(ModelError, match="'vectors' at http://vectors does not give the vectors") as refused:
        index.search(served, QUERIES, 3)
    assert "adaptkit embed migrate" in refused.value.fix
    server.encoder = Encoder.load(models[1])
    with pytest.raises(ModelError, match="gives vectors of 16 numbers, and these have 32"):
        index.search(served, QUERIES, 3)


def test_queries_of_a_server_carry_the_words_and_the_size_of_the_index(old, tmp_path):
    old.layout.prompts["query"] = "ask: "
    try:
        canaries = make_canaries(old, 16)
        served = ServedEncoder(Server(old).client(), "vectors", canaries.words, normalised=True)
        assert np.allclose(served.encode_queries(TEXTS, 16), np.array(canaries.vectors), atol=1e-5)
        assert canaries.words == "ask: "
    finally:
        del old.layout.prompts["query"]


def test_a_migration_goes_on_after_a_kill_and_the_old_version_answers_meanwhile(
    folder, old, new, monkeypatch, capsys
):
    monkeypatch.setattr(encoding, "WINDOW", 10)
    before, encode, calls = names_of(Index.open(folder), old), new.encode, []

    def dying(texts, **options):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(texts, **options)

    monkeypatch.setattr(new, "encode", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder, new)
    assert names_of(Index.open(folder), old) == before
    calls.append(0)
    prepared = prepare(folder, new)
    assert calls.count(10) == 2 + 1 + 3, "what was encoded is not encoded again"
    assert '"of": 50' in capsys.readouterr().err
    assert current(folder) == prepared.old.folder and names_of(Index.open(folder), old) == before
    assert prepared.num_encoded == 50 and prepared.new.ids == prepared.old.ids
    assert np.allclose(prepared.new.vectors, encode(tiny_embed.texts(50)), atol=1e-5)
    monkeypatch.setattr(new, "encode", encode)
    assert prepare(folder, new).num_encoded == 0
    switch(prepared.folder, prepared.new.folder)
    with pytest.raises(ModelError, match=r"are of model \w+ \(.*new\), the queries' model is"):
        Index.open(folder).search(old, QUERIES)
    assert names_of(prepared.old, old) == before, "whoever holds the old version goes on with it"
    back = prepare(folder, old)
    assert back.num_encoded == 0 and back.new.folder == prepared.old.folder
    assert not list(folder.glob("next-*"))


def test_the_old_version_goes_when_it_is_dropped_and_not_from_under_a_reader(folder, old, new):
    prepared = prepare(folder, new)
    before = names_of(prepared.old, old)
    switch(folder, prepared.new.folder)
    assert drop_others(folder) == 1 and versions(folder) == [prepared.new.folder]
    assert names_of(prepared.old, old) == before
    assert sorted(path.name for path in folder.iterdir()) == ["current.json", prepared.new.folder.name]


def test_an_index_of_an_earlier_release_is_searched_and_no_more(folder, old, new):
    before, version = names_of(Index.open(folder), old), current(folder)
    ids = [json.loads(line)["id"] for line in (version / "documents.jsonl").read_text().splitlines()]
    info = read_sealed(version / "index.json")
    listed = {"vectors.npy": info["files_written"]["vectors.npy"]}
    (folder / "ids.jsonl").write_text("".join(json.dumps({"id": name}) + "\n" for name in ids))
    shutil.move(version / "vectors.npy", folder)
    shutil.rmtree(version)
    (folder / "current.json").unlink()
    told = {key: info[key] for key in ("model", "dimensions", "normalised", "count", "faiss")}
    write_sealed(folder / "index.json", {**told, "files_written": listed})
    assert names_of(Index.open(folder), old) == before
    for refused in (lambda: prepare(folder, new), lambda: plan_update(Index.open(folder), delete=["d1"])):
        with pytest.raises(DataError, match="holds no documents: an earlier release made it"):
            refused()


def test_overlap_is_what_both_find_of_the_ten_best(folder, old, new, models, tmp_path):
    index = Index.open(folder)
    same = overlap_of(index, index)
    assert same.mean == 1 and same.depth == 10 and len(same.shares) == 50
    prepared = prepare(folder, new)
    found = overlap_of(prepared.old, prepared.new)
    mine, theirs = (version.vectors @ version.vectors.T for version in (prepared.old, prepared.new))
    tens = [
        [set(np.argsort(-np.where(np.arange(50) == i, -9, row))[:10]) for i, row in enumerate(scores)]
        for scores in (mine, theirs)
    ]
    by_hand = [len(a & b) / 10 for a, b in zip(*tens, strict=True)]
    assert found.mean == pytest.approx(np.mean(by_hand), abs=0.005)  # equal scores may be ordered otherwise
    assert found.by_chance == pytest.approx(10 / 49)
    assert found.beyond_chance == pytest.approx((found.mean - 10 / 49) / (39 / 49))
    low, high = found.interval()
    assert low < found.mean < high and found.least(1)[0][1] == min(found.shares)
    asked = tiny_embed.write(tmp_path / "asked.jsonl", [{"text": text} for text in QUERIES])
    on = overlap_on(prepared.old, old, prepared.new, new, [str(asked)])
    both = zip(names_of(prepared.old, old), names_of(prepared.new, new), strict=True)
    assert on.asked == "25 questions" and 0 < on.mean < 1
    assert all(share > 0 for share, (a, b) in zip(on.shares, both, strict=True) if set(a) & set(b))
    check_overlap(found, found.beyond_chance, folder)
    with pytest.raises(ModelError, match="and chance 20%.*the old one goes on answering"):
        check_overlap(found, found.beyond_chance + 0.01, folder)


def test_10000_queries_under_load_never_meet_vectors_of_two_models(folder, old, new, tmp_path):
    prepared = prepare(folder, new)
    right = {
        model.digest: {"vectors": model.encode_queries(MANY).tolist(), "ids": names_of(version, model, MANY)}
        for version, model in ((prepared.old, old), (prepared.new, new))
    }
    assert right[old.digest]["ids"] != right[new.digest]["ids"]
    (tmp_path / "expected.json").write_text(json.dumps(right))
    wholly = {digest: answer["ids"] for digest, answer in right.items()}
    command = [sys.executable, str(ROOT / "tests" / "index_reader.py")]
    command += [str(folder), str(tmp_path / "expected.json"), "5000"]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=child_environment())
    searcher, answers, mixed, failed = Searcher(folder, encoder_of), dict.fromkeys(wholly, 0), [], []

    def ask() -> None:
        try:
            while sum(answers.values()) < 5000 or not all(answers.values()):
                found = [[hit.id for hit in hits] for hits in searcher.search(MANY, 3)]
                whole = [digest for digest, ids in wholly.items() if ids == found]
                mixed.extend(found if not whole else [])
                for digest in whole:
                    answers[digest] += len(found)
        except AdaptkitError as error:
            failed.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    place, switches = [prepared.old.folder, prepared.new.folder], 0
    while (other.poll() is None or any(thread.is_alive() for thread in threads)) and not failed:
        switches += 1
        switch(folder, place[switches % 2])
        threading.Event().wait(0.1)
    told = json.loads(other.communicate()[0].splitlines()[-1])
    assert not failed and not mixed and told["mixed"] == 0
    assert told["answers"] + sum(answers.values()) >= 10_000 and told["models"] == 2 and switches > 2


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels' / 'torch-ext'}"}


def test_a_searcher_goes_on_with_the_old_version_where_the_new_model_is_gone(folder, old, new, capsys):
    prepared = prepare(folder, new)
    opened = []

    def embedder_of(index: Index) -> Encoder:
        opened.append(index.info["model"])
        if index.info["model"] == new.digest:
            raise ModelError("is not there", where="new")
        return old

    searcher = Searcher(folder, embedder_of)
    before = searcher.search(QUERIES, 3)
    switch(folder, prepared.new.folder)
    for _ in range(3):
        assert searcher.search(QUERIES, 3) == before
        while searcher._opening.locked():
            threading.Event().wait(0.01)
    assert opened == [old.digest, new.digest], "it is not tried again at every query"
    assert "cannot be used; the old one goes on: new: is not there" in capsys.readouterr().err
    assert searcher.index.info["model"] == old.digest


def test_the_command_migrates_goes_back_and_refuses_too_little_in_common(folder, models, capsys, tmp_path):
    def run(*words: str) -> tuple[int, str, str]:
        code = run_command(app, ["embed", "migrate", str(folder), *words])
        shown = capsys.readouterr()
        release()
        return code, shown.out, shown.err

    lock = lock_path(Run(folder))
    lock.parent.mkdir()
    with lock.open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = run(str(models[1]))
    assert code == 2 and "already running" in err
    code, _, err = run(str(models[1]), "--overlap", "1")
    assert code == 2 and "least in common:" in err and "less than --overlap 1, and the old one goes on" in err
    assert Index.open(folder).info["dimensions"] == 32
    code, out, _ = run(str(models[1]), "--overlap", "0")
    assert code == 0 and "the vectors of" in out and "of 50 documents, each asking by its own vector" in out
    assert Index.open(folder).info["dimensions"] == 16
    code, out, _ = run(str(models[1]))
    assert code == 0 and "already: nothing was encoded" in out
    asked = tiny_embed.write(tmp_path / "asked.jsonl", [{"text": text} for text in QUERIES])
    code, out, _ = run(str(models[0]), "--overlap", "0", "--queries", str(asked), "--drop-old", "--json")
    told = json.loads(out)
    assert told["encoded"] == 0 and told["dropped"] == 1 and told["overlap"]["asked"] == "25 questions"
    assert len(versions(folder)) == 1 and Index.open(folder).info["dimensions"] == 32
