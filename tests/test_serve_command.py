"""The vLLM command for a model on a machine, and what its environment holds and hides."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import SMALL, write_model

from adaptkit.client.identity import ModelIdentity
from adaptkit.export.hardware import Hardware
from adaptkit.serve.engine import command
from adaptkit.serve.engine.command import Launch, cache_bytes, dtype
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.limits import Limits

BF16 = Hardware(flags=frozenset({"avx512f", "avx512_bf16"}), cores=2)
LARGE = Hardware(flags=frozenset({"avx512f", "avx512_bf16"}), cores=64)
GPU = Hardware(gpus=("NVIDIA H200",), cores=16)


def flags(launch: Launch) -> dict[str, str]:
    """Flag -> the word after it."""
    words = launch.arguments(8000)
    return dict(zip(words, [*words[1:], ""], strict=True))


@pytest.mark.parametrize(
    ("hardware", "stored", "kind", "wanted"),
    [
        (SMALL, "bfloat16", "generate", "float32"),
        (SMALL, "float32", "generate", "float32"),
        (BF16, "bfloat16", "generate", "bfloat16"),
        (BF16, "float32", "generate", "float32"),
        (BF16, "bfloat16", "embed", "float32"),
        (BF16, "bfloat16", "classify", "float32"),
        (GPU, "float32", "generate", "auto"),
    ],
)
def test_precision_follows_the_machine_and_the_weights(
    tmp_path: Path, hardware: Hardware, stored: str, kind: str, wanted: str
) -> None:
    assert dtype(write_model(tmp_path / "m", kind, dtype=stored), hardware) == wanted


def test_a_cpu_that_fails_in_bfloat16_computes_in_another_precision(tmp_path: Path) -> None:
    broken = dataclasses.replace(BF16, bf16_fault="attention dies")
    half = write_model(tmp_path / "m", dtype="bfloat16")
    assert dtype(half, broken) == "float32" and Launch(half, broken).exact
    assert Launch(half, broken).environment()["ADAPTKIT_NO_TILES"] == "1"
    assert "ADAPTKIT_NO_TILES" not in Launch(half, BF16).environment()
    assert command.avoids_bfloat16(half, broken) == "computed in float32, as attention dies"
    assert command.avoids_bfloat16(half, BF16) is None
    assert command.avoids_bfloat16(write_model(tmp_path / "f", dtype="float32"), broken) is None
    packed = {"format": "pack-quantized"}
    int4 = write_model(tmp_path / "q", dtype="bfloat16", quantization_config=packed)
    assert (dtype(int4, BF16), dtype(int4, broken)) == ("bfloat16", "float16")
    slower = Launch(half, BF16, extra=("-q", "x")).without_bfloat16("why")
    assert (
        slower is not None
        and slower.hardware.bf16_fault == "why"
        and dtype(half, slower.hardware) == "float32"
    )
    assert Launch(half, BF16, extra=("--dtype=bfloat16",)).without_bfloat16("why") is None
    assert Launch(half, SMALL).without_bfloat16("why") is None


def test_a_small_cpu_gets_the_flags_that_start_fastest(tmp_path: Path) -> None:
    launch = Launch(write_model(tmp_path / "m"), SMALL)
    set_flags = flags(launch)
    assert (
        "-O0" in set_flags
        and set_flags["--distributed-executor-backend"] == "uni"
        and set_flags["--dtype"] == "float32"
    )
    assert launch.environment()["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert (set_flags["--host"], set_flags["--port"], set_flags["--middleware"]) == (
        "127.0.0.1",
        "8000",
        "adaptkit.serve.gateway.guard.Guard",
    )
    assert (
        "--disable-fastapi-docs" in set_flags
        and "--runner" not in set_flags
        and "--enable-lora" not in set_flags
    )
    large = Launch(write_model(tmp_path / "m"), LARGE)
    assert (
        "--distributed-executor-backend" not in flags(large)
        and "VLLM_ENABLE_V1_MULTIPROCESSING" not in large.environment()
    )
    gpu = Launch(write_model(tmp_path / "m"), GPU)
    assert not {"-O0", "--kv-cache-memory-bytes", "--distributed-executor-backend"} & flags(gpu).keys()
    assert "--gpu-memory-utilization" not in flags(gpu)
    assert flags(Launch(write_model(tmp_path / "m"), GPU, share=0.5))["--gpu-memory-utilization"] == "0.45"


def test_pooling_models_get_their_runner_and_no_chat(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ x }}")
    pooling, generating = (
        flags(Launch(write_model(tmp_path / "m", kind), SMALL)) for kind in ("embed", "generate")
    )
    assert pooling["--runner"] == "pooling" and "--chat-template" not in pooling
    assert generating["--chat-template"].endswith("chat_template.jinja")


def test_what_stands_after_the_dashes_comes_last_and_unchanged(tmp_path: Path) -> None:
    extra = ("--tensor-parallel-size", "2", "--dtype=half", '{"a": 1}')
    launch = Launch(write_model(tmp_path / "m"), SMALL, extra=extra)
    assert tuple(launch.arguments(1)[-4:]) == extra
    assert "--distributed-executor-backend" not in flags(launch), "parallel workers need another executor"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in launch.environment()


def test_adapters_get_room_for_their_rank(tmp_path: Path) -> None:
    adapters = (Adapter("a", tmp_path / "a", 4), Adapter("b", tmp_path / "b", 17))
    launch = Launch(write_model(tmp_path / "m"), SMALL, adapters)
    set_flags = flags(launch)
    assert (set_flags["--max-lora-rank"], set_flags["--max-loras"], launch.names) == (
        "32",
        "3",
        ("m", "a", "b"),
    ), "a slot stays empty"
    assert flags(Launch(launch.source, GPU, adapters))["--max-loras"] == "2"
    assert f"a={tmp_path / 'a'}" in launch.arguments(1)


def test_the_cache_holds_64_sequences_within_bounds(tmp_path: Path) -> None:
    token = 2 * 3 * 2 * 16 * 4  # layers, kv heads, head width, bytes
    assert cache_bytes(write_model(tmp_path / "a")) == command.SMALLEST_CACHE
    assert cache_bytes(write_model(tmp_path / "b", max_position_embeddings=4096)) == 64 * 4096 * token
    assert cache_bytes(write_model(tmp_path / "c", max_position_embeddings=100_000)) == command.CACHE_BYTES
    assert (
        cache_bytes(write_model(tmp_path / "d", max_position_embeddings=10_000_000)) == 2 * 10_000_000 * token
    )


def test_the_key_is_in_the_childs_environment_and_in_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTKIT_API_KEY", "outer-key-0123456789")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    launch = Launch(write_model(tmp_path / "m"), SMALL)
    environment = launch.child_environment("inner-key-0123456789")
    assert environment["ADAPTKIT_API_KEY"] == environment["VLLM_API_KEY"] == "inner-key-0123456789"
    assert "outer-key-0123456789" not in environment.values() and "VLLM_SERVER_DEV_MODE" not in environment
    assert (
        environment["VLLM_NO_USAGE_STATS"]
        == environment["DO_NOT_TRACK"]
        == environment["PYTHONSAFEPATH"]
        == "1"
    )
    assert environment["HF_HUB_OFFLINE"] == "0", "the user may say otherwise"
    assert not [word for word in launch.command(1) if "api-key" in word or "0123456789" in word]


def test_the_printed_command_is_the_one_that_runs(tmp_path: Path) -> None:
    launch = Launch(write_model(tmp_path / "m"), SMALL)
    words = shlex.split(launch.printed(8000, "127.0.0.1", "/home/x/my key", Limits(max_tokens=7)))
    assert (
        words[0] == "env"
        and "ADAPTKIT_API_KEY_FILE=/home/x/my key" in words
        and "ADAPTKIT_LIMIT_MAX_TOKENS=7" in words
    )
    assert "ADAPTKIT_LIMIT_ITEMS=2048" not in words, "only what differs from the defaults"
    assert words[words.index("python") :] == ["python", *launch.command(8000)[1:]]
    assert "ADAPTKIT_API_KEY_FILE" not in launch.printed(8000, "127.0.0.1", "$ADAPTKIT_API_KEY", Limits())


def test_what_a_model_is_comes_from_its_source_and_of_an_adapter_from_the_adapter(tmp_path: Path) -> None:
    fields = {"study_name": "tickets", "arm": "generic+lora", "adaptation": "lora", "task": "intent"}
    source = dataclasses.replace(write_model(tmp_path / "m", "classify"), **fields)
    tuned = ModelIdentity(role="finetuned", task="other")
    launch = Launch(source, SMALL, (Adapter("tuned", tmp_path, 4, tuned),))
    assert launch.identity("m") == ModelIdentity(
        study="tickets",
        arm="generic+lora",
        origin="generic",
        adaptation="lora",
        task="intent",
        role="finetuned",
        kind="classify",
    )
    assert launch.identity("tuned") is tuned


def test_vllms_queue_holds_the_largest_request_that_the_gateway_admits(tmp_path: Path) -> None:
    queue = int(flags(Launch(write_model(tmp_path / "m"), SMALL))["--max-num-queued-reqs"])
    assert queue >= Limits().items * Limits().sequences
