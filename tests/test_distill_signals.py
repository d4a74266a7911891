"""Where a teacher's word comes from: beside the student, a store written once, a server, or its text. Home of
distill.answer_store, distill.http_teacher, distill.rows, distill.sequence_level and distill.teacher."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny_teachers
import torch
from test_distill_recipe import done
from torch import nn

from adaptkit import models
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.distill import answer_store, http_teacher
from adaptkit.distill.answer_store import SignalStore, StoreLayout, WithTeacher, write_store
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.rows import Rows
from adaptkit.distill.sequence_level import teacher_texts
from adaptkit.distill.start import read_data
from adaptkit.distill.teacher import OnlineTeacher, StoredTeacher, local_scorer
from adaptkit.errors import ConfigError, DataError, ModelError, ServerError
from adaptkit.run import Run, read_json, read_jsonl, write_json
from adaptkit.run_record import read_record as record_of
from adaptkit.trainer.distillation import Distillation


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    tiny_teachers.write_files(folder)
    return folder


@pytest.fixture(scope="module")
def llama(world: Path) -> Path:
    return tiny_teachers.causal_teacher(world)


def rows_of(world: Path, llama: Path, folder: Path) -> tuple[Any, nn.Module, Any]:
    config, tokenizer = tiny_teachers.config(world, llama), models.load_tokenizer(llama)
    teacher = models.load(llama, "causal").eval()
    rows = Rows(config, Run(folder / "run"), "causal", tokenizer, None)
    return rows.of({"dev": read_data(config, "causal")["dev"]}, [teacher])["dev"], teacher, tokenizer


def test_a_full_store_says_what_the_teacher_says(world, llama, tmp_path):
    source, teacher, tokenizer = rows_of(world, llama, tmp_path)
    online, size = OnlineTeacher(teacher, "causal"), len(tokenizer)
    layout = StoreLayout(len(source), 32, size - 1, size)
    stored = WithTeacher(
        source,
        write_store(source, local_scorer(online, size, 2.0, size - 1), tmp_path / "s", layout, {"a": 1}),
    )
    student = models.load(llama, "causal")
    torch.manual_seed(0)
    for weight in student.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    for name in ("forward_kl", "reverse_kl", "jsd"):
        losses = [
            Distillation(signal, {name: 1.0}, "causal", temperature=2.0, vocab_size=size)
            .loss(student, data.collate([0, 1], seed=0, epoch=0))
            .total.item()
            for signal, data in ((online, source), (StoredTeacher(), stored))
        ]
        assert losses[1] == pytest.approx(losses[0], rel=2e-2), name


def test_a_store_states_its_size_resumes_and_is_bound_to_what_it_was_made_from(
    world, llama, tmp_path, monkeypatch
):
    source, teacher, tokenizer = rows_of(world, llama, tmp_path)
    monkeypatch.setattr(answer_store, "ROWS_PER_PART", 8)
    layout, asked = StoreLayout(len(source), 32, 16, len(tokenizer)), []
    score = local_scorer(OnlineTeacher(teacher, "causal"), len(tokenizer), 1.0, 16)

    def dying(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(len(batch["input_ids"]))
        return score(batch)

    with pytest.raises(KeyboardInterrupt):
        write_store(source, dying, tmp_path / "s", layout, {"teacher": "x"})
    assert sum(asked) == 16
    rest: list[int] = []
    counted = lambda batch: rest.append(len(batch["input_ids"])) or score(batch)  # noqa: E731
    written = write_store(source, counted, tmp_path / "s", layout, {"teacher": "x"})
    assert sum(rest) == len(source) - 16
    index = read_json(tmp_path / "s" / "index.json")
    size = sum(path.stat().st_size for path in (tmp_path / "s").glob("*.bin"))
    assert index["bytes_per_token"] == 16 * 4 and size == index["bytes_per_token"] * 32 * len(source)
    ids, logprobs = written.read([0, len(source) - 1])
    expected = score(source.collate([0, len(source) - 1], seed=0, epoch=0))
    assert torch.equal(ids, expected[0]) and torch.allclose(logprobs, expected[1], atol=2e-3, rtol=2e-3)
    assert write_store(source, dying, tmp_path / "s", layout, {"teacher": "x"}).layout == layout
    with pytest.raises(DataError, match="another teacher or text"):
        write_store(source, score, tmp_path / "s", layout, {"teacher": "y"})
    part = tmp_path / "s" / "part-00001.bin"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="differs from its sha256"):
        SignalStore.open(tmp_path / "s")


def test_offline_distillation_learns_and_asks_once(world, llama, tmp_path):
    config = tiny_teachers.config(world, llama, {"num_steps": 20}, signal="offline", temperature=1.5)
    result, run = done(config, tmp_path)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert losses[-1] < losses[0] and 0 < result.cost["teacher_flops"] < result.cost["flops"]
    stores = [path for path in (tmp_path / "shards").iterdir() if (path / "part-00000.bin").exists()]
    before = {path: path.stat().st_mtime_ns for path in stores}
    again = config.model_copy(update={"trainer": config.trainer.model_copy(update={"seed": 1})})
    done(again, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before and len(before) == 2


@pytest.mark.parametrize(
    ("signal", "losses"), [("nf4", {"forward_kl": 1.0, "attention": 1.0}), ("int8", {"forward_kl": 1.0})]
)
def test_a_teacher_of_few_bits_speaks_beside_its_student(world, llama, tmp_path, signal, losses):
    result, run = done(tiny_teachers.config(world, llama, signal=signal, losses=losses), tmp_path)
    told = [row["loss"] for row in run.metrics() if "loss" in row]
    assert told[-1] < told[0] * 1.1 and result.scores["bits_per_byte"] < 2


class Server(BaseHTTPRequestHandler):
    """As much of vLLM's API as a teacher needs, over a tiny model."""

    model: nn.Module
    tokenizer: Any
    most = 20
    busy = 0
    """How many requests more are told to come again."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        rows = [
            {"id": "vectors", "kind": "embed"},
            {"id": "writer", "kind": "generate", "max_model_len": 64},
            {"id": "other"},
        ]
        self._answer({"data": rows})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions" and asked["model"] == "writer"
        if Server.busy:
            Server.busy -= 1
            self._answer({"error": "busy"}, 429 if Server.busy % 2 else 503)
            return
        if "prompt_logprobs" not in asked:
            assert (asked["truncate_prompt_tokens"], asked["truncation_side"]) == (
                64 - asked["max_tokens"],
                "left",
            )
            texts = [{"index": i, "text": " and so on"} for i in range(len(asked["prompt"]))]
            self._answer({"choices": texts[::-1]})
            return
        told = [self._entries(prompt, asked["prompt_logprobs"]) for prompt in asked["prompt"]]
        choices = [{"index": i, "text": "x", "prompt_logprobs": entries} for i, entries in enumerate(told)]
        self._answer({"choices": choices[::-1]})

    def _entries(self, prompt: Any, asked: int) -> list[Any]:
        ids = prompt if isinstance(prompt, list) else self.tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            logprobs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        count, entries = min(asked, self.most), [None]
        for row, follows in zip(logprobs, ids[1:], strict=False):
            wanted = [follows, *row.topk(count).indices.tolist()] if count else [follows]
            entries.append({str(token): {"logprob": float(row[token])} for token in wanted})
        return entries

    def _answer(self, value: Any, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("retry-after", "0")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())


@pytest.fixture
def server(llama: Path) -> Iterator[str]:
    Server.model, Server.tokenizer, Server.most = (
        models.load(llama, "causal").eval(),
        models.load_tokenizer(llama),
        20,
    )
    http = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()


@pytest.fixture(scope="module")
def small(world: Path, llama: Path) -> Path:
    """An untrained student with the teacher's tokenizer."""
    shape = models.load(llama, "causal").config
    shape.num_hidden_layers = 1
    models.save(models.build(shape, "causal", seed=3), models.load_tokenizer(llama), world / "small")
    return world / "small"


def test_a_served_teacher_is_asked_for_each_document_alone(world, llama, server, tmp_path, monkeypatch):
    monkeypatch.setattr(
        http_teacher, "TOKENS_AT_ONCE", 100
    )  # three documents of a row of 32 tokens in each request
    Server.busy = 4
    source, teacher, tokenizer = rows_of(world, llama, tmp_path)
    batch = source.collate([0, 1, 2], seed=0, epoch=0)
    ids, logprobs = http_teacher.ServedTeacher(server).score(batch)
    expected = local_scorer(OnlineTeacher(teacher, "causal"), len(tokenizer), 1.0, 20)(batch)
    labelled = nn.functional.pad(batch["labels"][:, 1:], (0, 1), value=-100) != -100
    assert labelled.sum() > 50
    torch.testing.assert_close(logprobs[labelled], expected[1][labelled], rtol=1e-4, atol=1e-4)
    assert (ids[labelled] == expected[0][labelled]).float().mean() > 0.99  # near ties may stand either way


def test_an_address_may_name_its_model(server):
    assert (
        http_teacher.ServedTeacher(server).name
        == http_teacher.ServedTeacher(f"{server}/v1/").name
        == "writer"
    )
    found = http_teacher.ServedTeacher(f"{server}/v1/models/other")
    assert (found.name, found.address, found.window) == ("other", server, None)
    with pytest.raises(
        ServerError,
        match="no model 'vectors' that writes text\n  fix: name one of these: .*/v1/models/writer, ",
    ):
        http_teacher.ServedTeacher(f"{server}/v1/models/vectors")


def served_config(world: Path, server: str, start: Path, **fields: Any) -> DistillConfig:
    return tiny_teachers.config(world, server, {"num_steps": 4}, student={"start": str(start)}, **fields)


def test_a_student_learns_from_a_server(world, server, small, tmp_path):
    result, run = done(served_config(world, server, small, signal="offline"), tmp_path)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert (
        losses[-1] < losses[0]
        and result.teacher == {}
        and record_of(run).facts["student"]["teacher"] == "writer"
    )


def test_servers_that_cannot_teach_are_refused(world, server, small, tmp_path, monkeypatch):
    other = train_tokenizer(["entirely different words here"] * 3, "bpe", 300)
    models.save(models.load(small, "causal"), other, tmp_path / "other")
    with pytest.raises(ModelError, match="otherwise than the server's.*\n  fix: .*signal=text"):
        done(served_config(world, server, tmp_path / "other", signal="offline"), tmp_path)
    Server.most = 5
    with pytest.raises(ServerError, match="gives 5|gives 6"):
        done(served_config(world, server, small, signal="offline"), tmp_path)
    with pytest.raises(ConfigError, match="reads and writes at most 64 together\n  fix: set size.seq_len=63"):
        done(served_config(world, server, small, signal="offline", size={"seq_len": 64}), tmp_path)
    Server.busy = 100
    monkeypatch.setattr(http_teacher, "PATIENCE_S", 0.5)
    with pytest.raises(ServerError, match="(429|503): .*busy"):
        done(served_config(world, server, small, signal="offline"), tmp_path)
    Server.busy = 0
    with pytest.raises(ServerError, match="no answer: .*\n  fix: start the server"):
        done(served_config(world, "http://127.0.0.1:9", small, signal="offline"), tmp_path)


def test_text_passes_between_models_without_a_common_tokenizer(world, llama, server, tmp_path):
    other = train_tokenizer([row["text"] for row in read_jsonl(world / "text.jsonl")], "bpe", 320)
    shape = models.load(llama, "causal").config
    shape.vocab_size = len(other)
    models.save(models.build(shape, "causal", seed=3), other, tmp_path / "other")
    for name, teacher in (("local", str(llama)), ("served", server)):
        config = tiny_teachers.config(
            world, teacher, {"num_steps": 4}, signal="text", student={"start": str(tmp_path / "other")}
        )
        result, run = done(config, tmp_path / name)
        written = [row["text"] for row in read_jsonl(run.path / "teacher.jsonl")]
        originals = [row.text for row in read_data(config, "causal")["train"].rows]
        same_start = sum(a[:8] == b[:8] for a, b in zip(written, originals, strict=True))
        assert len(written) == len(originals) and same_start > 0.9 * len(written)
        assert len(models.load_tokenizer(result.model_folder)) == 320 and result.scores["bits_per_byte"] > 0


def test_a_killed_writing_goes_on_where_it_stopped(world, llama, tmp_path):
    dataset, path, asked = (
        read_data(tiny_teachers.config(world, llama), "causal")["dev"],
        tmp_path / "t.jsonl",
        [],
    )

    def write(texts: list[str], seed: int) -> list[str]:
        asked.append((len(texts), seed))
        return [text.upper() for text in texts]

    whole = teacher_texts(dataset, write, path)
    lines, calls = path.read_text().splitlines(keepends=True), list(asked)
    path.write_text("".join(lines[:16]) + lines[16][:9])
    asked.clear()
    assert [row.text for row in teacher_texts(dataset, write, path).rows] == [row.text for row in whole.rows]
    assert asked == calls[1:] and path.read_text() == "".join(lines)


def test_an_encoders_student_finds_its_teachers_vectors(world, tmp_path):
    from transformers import BertConfig

    tokenizer = train_tokenizer([row["text"] for row in read_jsonl(world / "text.jsonl")], "wordpiece", 384)
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    shape = BertConfig(max_position_embeddings=64, **ids, **tiny_teachers.SHAPE)
    models.save(models.build(shape, "encoder", seed=0), tokenizer, tmp_path / "encoder")
    with pytest.raises(ModelError, match="does not say how its hidden states become a vector"):
        done(tiny_teachers.config(world, tmp_path / "encoder", losses={"cosine": 1.0}), tmp_path)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds.items())
    ]
    write_json(tmp_path / "encoder/modules.json", modules)
    write_json(
        tmp_path / "encoder/1_Pooling/config.json",
        {"word_embedding_dimension": 64, "pooling_mode_mean_tokens": True},
    )
    losses = {"cosine": 1.0, "mse": 1.0, "margin": 1.0}
    config = tiny_teachers.config(
        world, tmp_path / "encoder", {"num_steps": 25, "eval_every": 1}, losses=losses
    )
    result, run = done(config, tmp_path)
    start = next(row["eval_cosine"] for row in run.metrics() if "eval_loss" in row)
    assert result.scores["distance_to_teacher"] < 0.7 * start
    assert read_json(result.model_folder / "modules.json") == read_json(tmp_path / "encoder/modules.json")
    assert read_json(result.model_folder / "1_Pooling/config.json")["word_embedding_dimension"] == 64
    assert (result.model_folder / "2_Normalize").is_dir()
    narrow = {"student": {"layers": 2, "width": 32}}
    with pytest.raises(
        ModelError, match="have 32 numbers and the teacher's 64: cosine compares vectors of one size"
    ):
        done(tiny_teachers.config(world, tmp_path / "encoder", losses={"cosine": 1.0}, **narrow), tmp_path)
    adapted = {"losses": losses, "adapter": {"kind": "lora"}}
    _, run = done(tiny_teachers.config(world, tmp_path / "encoder", {"num_steps": 2}, **adapted), tmp_path)
    assert (
        record_of(run).facts["merge_difference"] < 1e-4
        and (run.adapter / "adapter_model.safetensors").exists()
    )
    config = tiny_teachers.config(world, tmp_path / "encoder", losses={"margin": 1.0}, **narrow)
    result, run = done(config, tmp_path)
    assert 0 < result.scores["score_error"] < 0.01  # random weights give every text nearly one vector
    assert read_json(result.model_folder / "1_Pooling/config.json")["word_embedding_dimension"] == 32
