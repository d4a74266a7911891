"""A teacher behind a real `adaptkit serve` over vLLM says what the same teacher says here, and its students
learn the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from real_server import KEY, LENGTH, Served, tokenizer_of

from adaptkit import models
from adaptkit.client.openai import Client
from adaptkit.distill import start
from adaptkit.distill.answer_store import SignalStore
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.http_teacher import TOP_K, ServedTeacher
from adaptkit.distill.recipe import DistillResult, distill
from adaptkit.distill.rows import Rows
from adaptkit.distill.start import read_data
from adaptkit.distill.teacher import OnlineTeacher, local_scorer
from adaptkit.errors import ServerError
from adaptkit.run import Run, read_jsonl
from adaptkit.run_record import read_record as record_of
from adaptkit.serve.address import free_port

SEQ_LEN = 48


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> Iterator[Served]:
    """A generator `teacher` with random weights, without an adapter, beside which no log-probabilities of
    prompts are given."""
    pytest.importorskip("vllm", reason="vLLM is not installed: `make serve-cpu`")
    from transformers import LlamaConfig

    folder, port = tmp_path_factory.mktemp("served"), free_port()
    tokenizer = tokenizer_of(tiny_text)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {
        "vocab_size": len(tokenizer),
        "bos_token_id": 0,
        "eos_token_id": 1,
        "max_position_embeddings": LENGTH,
    }
    models.save(
        models.build(LlamaConfig(**sizes, **ids, initializer_range=0.2), "causal", seed=0),
        tokenizer,
        folder / "teacher",
    )
    (folder / "key").write_text(KEY)
    (folder / "key").chmod(0o600)
    command = [sys.executable, "-m", "adaptkit", "serve", "teacher", "--port", str(port), "--key-file", "key"]
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(folder / "state"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    with Client(f"http://127.0.0.1:{port}", KEY) as client, httpx.Client(timeout=120) as http:
        try:
            made = Served(process, folder, client, http)
            made.wait_healthy()
            yield made
        finally:
            process.terminate()
            process.wait(120)


@pytest.fixture
def address(served: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return f"{served.url}/v1/models/teacher"


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> Path:
    path = tmp_path_factory.mktemp("served-teacher") / "text.jsonl"
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in tiny_text[:60]))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, served: Served) -> Path:
    """A student of one block with random weights and the teacher's tokenizer."""
    folder = tmp_path_factory.mktemp("student") / "small"
    shape = models.load(served.folder / "teacher", "causal").config
    shape.num_hidden_layers = 1
    models.save(
        models.build(shape, "causal", seed=3), models.load_tokenizer(served.folder / "teacher"), folder
    )
    return folder


def config(teacher: str, text: Path, small: Path, signal: str) -> DistillConfig:
    trainer = {"num_steps": 8, "global_batch_size": 8, "threads": 1, "log_every": 1, "learning_rate": 2e-3}
    fields = {
        "student": {"start": str(small)},
        "size": {"seq_len": SEQ_LEN},
        "signal": signal,
        "trainer": trainer,
    }
    return DistillConfig.model_validate({"teacher": teacher, "data": {"files": [str(text)]}, **fields})


def done(config: DistillConfig, root: Path) -> tuple[DistillResult, Run]:
    run = Run.open(root, config.name, config.model_dump(mode="json"))
    return distill(config, run), run


def test_the_served_signal_is_the_teachers_own(served, address, text, small, tmp_path):
    settings = config(str(served.folder / "teacher"), text, small, "offline")
    teacher, tokenizer = (
        models.load(settings.teacher, "causal").eval(),
        models.load_tokenizer(settings.teacher),
    )
    source = Rows(settings, Run(tmp_path), "causal", tokenizer, None).of(
        {"dev": read_data(settings, "causal")["dev"]}, [teacher]
    )
    batch = source["dev"].collate(list(range(len(source["dev"]))), seed=0, epoch=0)
    labelled = torch.nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100) != -100
    ids, logprobs = ServedTeacher(address).score(batch)
    wanted = local_scorer(OnlineTeacher(teacher, "causal"), len(tokenizer), 1.0, TOP_K)(batch)
    torch.testing.assert_close(logprobs[labelled], wanted[1][labelled], rtol=0, atol=1e-3)
    assert (
        labelled.sum() > 100 and (ids[labelled] == wanted[0][labelled]).float().mean() > 0.99
    )  # near ties, either way


def test_a_student_of_the_served_teacher_learns_what_a_student_of_the_stored_one_does(
    served, address, text, small, tmp_path, monkeypatch
):
    """The local store keeps more tokens, so here it is asked for as many as a server gives."""
    monkeypatch.setattr(start, "TOP_K", TOP_K)
    found = {}
    for name, told in (("served", address), ("here", str(served.folder / "teacher"))):
        result, run = done(config(told, text, small, "offline"), tmp_path / name)
        found[name] = [row["loss"] for row in run.metrics() if "loss" in row]
        stores = [
            SignalStore.open(path.parent) for path in (tmp_path / name / "shards").glob("*/part-00000.bin")
        ]
        assert len(stores) == 2 and {store.layout.top_k for store in stores} == {TOP_K}
    assert (
        found["served"] == pytest.approx(found["here"], rel=1e-3) and found["served"][-1] < found["served"][0]
    )
    assert record_of(run).facts["student"] == {"start": "folder"} and result.teacher


def test_a_student_learns_the_text_that_the_served_teacher_writes(served, address, text, small, tmp_path):
    settings = config(address, text, small, "text")
    _, run = done(settings, tmp_path)
    written = [row["text"] for row in read_jsonl(run.path / "teacher.jsonl")]
    originals = [row.text for row in read_data(settings, "causal")["train"].rows]
    assert len(written) == len(originals) and all(
        a[:20] == b[:20] for a, b in zip(written, originals, strict=True)
    )
    assert len(set(written)) > 0.9 * len(written) and any(
        a != b for a, b in zip(written, originals, strict=True)
    )
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert losses[-1] < losses[0] and record_of(run).facts["student"]["teacher"] == "teacher"


def test_what_a_server_cannot_do_is_said_before_anything_is_written(
    served, address, text, small, tmp_path, monkeypatch
):
    with pytest.raises(ServerError, match="no model 'vectors' that writes text"):
        done(config(f"{served.url}/v1/models/vectors", text, small, "offline"), tmp_path)
    assert ServedTeacher(address).window == LENGTH
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ServerError, match="401.*\n  fix: .*OPENAI_API_KEY"):
        done(config(address, text, small, "offline"), tmp_path)
