"""Nothing rots unseen: one flipped bit in what a run, a study or an index left is found before it is used."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from fake_study import write_study
from safetensors.numpy import save_file
from soak import count, soaked

from adaptkit.embed.canary_vectors import Canaries
from adaptkit.embed.index import Index
from adaptkit.embed.index_writing import build
from adaptkit.embed.stored_documents import FILE, Document, write_documents
from adaptkit.errors import AdaptkitError, DataError, ModelError
from adaptkit.export.resolve import resolve
from adaptkit.models import find
from adaptkit.run import Run, read_sealed, write_json, write_jsonl, write_sealed
from adaptkit.seal import LATER, SEAL, WRITTEN, check, digests, sealed, unsealed
from adaptkit.study.results import collect
from adaptkit.study.verdict import judge

FLIPS = soaked(150, 1000)
MODEL_FLIPS, VECTOR_FLIPS = soaked(30, 700), soaked(60, 300)


def flip(path: Path, rng: random.Random) -> bytes:
    """Flip one bit of a file in place; what it held before."""
    before = path.read_bytes()
    place = rng.randrange(len(before))
    path.write_bytes(before[:place] + bytes([before[place] ^ 1 << rng.randrange(8)]) + before[place + 1 :])
    return before


@pytest.fixture
def run(tmp_path) -> Run:
    run = Run.open(tmp_path / "runs", "pretrain", {"seed": 0})
    run.start()
    (run.model).mkdir()
    write_json(run.model / "config.json", {"model_type": "llama"})
    save_file({"weight": np.arange(64, dtype=np.float32)}, run.model / "model.safetensors")
    write_jsonl(run.items("language"), [{"id": "a", "nats": 1.5}])
    run.finish()
    return run


def test_a_run_lists_what_it_leaves_and_nothing_that_comes_later(run):
    listed = set(run.manifest()[WRITTEN])
    assert listed == {"config.yaml", "model/config.json", "model/model.safetensors", "eval/language.jsonl"}
    for later in LATER - {"manifest.json"}:
        write_json(run.path / later, {})
    (run.report).mkdir()
    write_json(run.report / "verdict.json", {})
    assert set(digests(run.path)) == listed
    check(run.path)


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "eval/language.jsonl"])
def test_a_damaged_file_names_itself_and_the_way_out(run, name):
    check(run.path)  # once found good, it is looked at again when it changes
    flip(run.path / name, random.Random(0))
    with pytest.raises(DataError, match="this file is damaged") as caught:
        check(run.path)
    assert caught.value.where == str(run.path / name)
    assert f"delete {run.path} and make it again" in str(caught.value.fix)


def test_only_what_is_read_is_looked_at(run):
    flip(run.items("language"), random.Random(0))
    check(run.model)
    with pytest.raises(DataError):
        check(run.items("language"))


def test_a_missing_file_is_found(run):
    (run.model / "model.safetensors").unlink()
    with pytest.raises(DataError, match="missing"):
        check(run.model)


def test_a_trained_model_is_checked_wherever_it_is_found(run):
    assert find(run.model) == run.model
    flip(run.model / "model.safetensors", random.Random(1))
    with pytest.raises(DataError, match="damaged"):
        find(run.model)


def test_folders_that_no_run_made_are_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "manifest.json").write_text("[1, 2]")
    check(tmp_path / "model")
    (tmp_path / "manifest.json").unlink()
    check(tmp_path / "model")
    with pytest.raises(ModelError):
        find(tmp_path / "nothing")


def test_a_seal_holds_what_it_was_put_on(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"x": "\u00e4\ud800"}}
    path = tmp_path / "record.json"
    write_sealed(path, value)
    assert read_sealed(path) == value and SEAL in json.loads(path.read_text())
    assert unsealed(value, path) is value, "what was never sealed is not refused"
    assert sealed(sealed(value)) == sealed(value)


@pytest.mark.parametrize("seed", range(30))
def test_a_flip_in_a_record_is_found_or_changes_nothing(tmp_path, seed):
    path, value = tmp_path / "record.json", {"arms": ["generic", "continued"], "margin": 0.01}
    write_sealed(path, value)
    flip(path, random.Random(seed))
    with contextlib.suppress(AdaptkitError):
        assert {name: read_sealed(path).get(name) for name in value} == value


def test_no_flip_in_a_finished_study_changes_its_verdict_unseen(tmp_path):
    study = write_study(tmp_path, num_documents=20, num_rows=60)
    for folder in tmp_path.iterdir():
        Run(folder).finish()
    line, rng, found = judge(collect(study)).line, random.Random(0), 0
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.stat().st_size]
    for _ in range(FLIPS):
        path = rng.choice(files)
        before = flip(path, rng)
        try:
            assert judge(collect(study)).line == line, path
        except AdaptkitError as error:
            found += 1
            assert path.name in f"{error.where}", (path, error.where)
        path.write_bytes(before)
    assert found > FLIPS / 4, "most files are read"
    count("flips in a study's records, scores and items", FLIPS)
    count("flips found before use; the others changed nothing", found)


def test_no_flip_in_a_trained_run_gets_past_whoever_reads_its_model(mood, tmp_path):
    """Export, serve, demo and bench find a run's model this way; training reads a base by `find`."""
    copy = Run(shutil.copytree(mood.path, tmp_path / mood.path.name, ignore=shutil.ignore_patterns("export")))
    source, rng, found = resolve(copy.path), random.Random(0), 0
    files = [path for path in sorted(copy.path.rglob("*")) if path.is_file() and path.stat().st_size]
    later = {copy.path / name for name in LATER}  # other tests may have exported it
    unlisted = {path for path in files if copy.path / "checkpoints" in path.parents} | later
    for _ in range(MODEL_FLIPS):
        path = rng.choice(files)
        before = flip(path, rng)
        try:
            assert resolve(copy.path) == source, path
            assert path in unlisted, f"unseen: {path}"
        except AdaptkitError as error:
            found += 1
            assert path.name in f"{error.where}", (path, error.where)
        path.write_bytes(before)
    count("flips in a trained run, its model among it", MODEL_FLIPS)
    count("flips found before use; the others changed nothing", found)
    assert found > MODEL_FLIPS / 3


def test_no_flip_of_vectors_or_ids_changes_a_search_unseen(tmp_path):
    class Vectors:
        folder = tmp_path / "encoding"
        info = {"model": "0" * 64, "dimensions": 8, "normalised": True, "documents": 50}

        def vectors(self):
            return np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)

    canaries = Canaries(texts=("a",), words="", vectors=((1.0,) * 8,), precision="float32", noise={})
    texts = [f"what document {i} says" for i in range(50)]
    write_documents(
        tmp_path / "encoding" / FILE,
        [Document(f"doc{i}", text, spans=((0, len(text)),)) for i, text in enumerate(texts)],
    )
    (tmp_path / "encoding" / "canaries.json").write_text(canaries.model_dump_json())
    build(Vectors(), tmp_path / "index")
    query = np.ones((1, 8), np.float32)
    hits, rng = Index.open(tmp_path / "index").nearest(query, 10), random.Random(0)
    count("flips in vectors, ids and an index", VECTOR_FLIPS)
    for number in range(VECTOR_FLIPS):
        path = sorted(path for path in (tmp_path / "index").rglob("*") if path.is_file())[number % 5]
        before = flip(path, rng)
        with contextlib.suppress(AdaptkitError):
            assert Index.open(tmp_path / "index").nearest(query, 10) == hits, path
        path.write_bytes(before)
