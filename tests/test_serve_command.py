"""The vLLM command for a model on a machine, what its environment holds and hides, and which adapters it may
take."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from adaptkit.cli import console
from adaptkit.errors import ConfigError, ModelError
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source
from adaptkit.run import file_digest
from adaptkit.serve.engine import command as launch_module
from adaptkit.serve.engine import launches, lora
from adaptkit.serve.engine.command import Adapter, Launch, cache_bytes, dtype
from adaptkit.serve.gateway.request_body import Limits

SMALL = Hardware(flags=frozenset({"avx2"}), cores=2)
BF16 = Hardware(flags=frozenset({"avx512f", "avx512_bf16"}), cores=2)
LARGE = Hardware(flags=frozenset({"avx512f", "avx512_bf16"}), cores=64)
GPU = Hardware(gpus=("NVIDIA H200",), cores=16)
SHAPE = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
}


def source(folder: Path, kind: str = "generate", **config: object) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    architecture = {
        "generate": "LlamaForCausalLM",
        "classify": "BertForSequenceClassification",
        "embed": "BertModel",
    }[kind]
    written = {"architectures": [architecture], "model_type": "llama", **SHAPE, **config}
    (folder / "config.json").write_text(json.dumps(written))
    return Source(folder, kind, folder.name, "")


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
    assert dtype(source(tmp_path / "m", kind, dtype=stored), hardware) == wanted


def test_a_small_cpu_gets_the_flags_that_start_fastest(tmp_path: Path) -> None:
    made = Launch(source(tmp_path / "m"), SMALL)
    given = flags(made)
    assert (
        "-O0" in given and given["--distributed-executor-backend"] == "uni" and given["--dtype"] == "float32"
    )
    assert made.environment()["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert (given["--host"], given["--port"], given["--middleware"]) == (
        "127.0.0.1",
        "8000",
        "adaptkit.serve.gateway.guard.Guard",
    )
    assert "--disable-fastapi-docs" in given and "--runner" not in given and "--enable-lora" not in given
    large = Launch(source(tmp_path / "m"), LARGE)
    assert (
        "--distributed-executor-backend" not in flags(large)
        and "VLLM_ENABLE_V1_MULTIPROCESSING" not in large.environment()
    )
    gpu = Launch(source(tmp_path / "m"), GPU)
    assert not {"-O0", "--kv-cache-memory-bytes", "--distributed-executor-backend"} & flags(gpu).keys()
    assert "--gpu-memory-utilization" not in flags(gpu)
    assert flags(Launch(source(tmp_path / "m"), GPU, share=0.5))["--gpu-memory-utilization"] == "0.45"


def test_pooling_models_get_their_runner_and_no_chat(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ x }}")
    pooling, generating = (
        flags(Launch(source(tmp_path / "m", kind), SMALL)) for kind in ("embed", "generate")
    )
    assert pooling["--runner"] == "pooling" and "--chat-template" not in pooling
    assert generating["--chat-template"].endswith("chat_template.jinja")


def test_what_stands_after_the_dashes_comes_last_and_unchanged(tmp_path: Path) -> None:
    extra = ("--tensor-parallel-size", "2", "--dtype=half", '{"a": 1}')
    made = Launch(source(tmp_path / "m"), SMALL, extra=extra)
    assert tuple(made.arguments(1)[-4:]) == extra
    assert "--distributed-executor-backend" not in flags(made), "parallel workers need another executor"
    assert "VLLM_ENABLE_V1_MULTIPROCESSING" not in made.environment()


def test_adapters_get_room_for_their_rank(tmp_path: Path) -> None:
    adapters = (Adapter("a", tmp_path / "a", 4), Adapter("b", tmp_path / "b", 17))
    made = Launch(source(tmp_path / "m"), SMALL, adapters)
    given = flags(made)
    assert (given["--max-lora-rank"], given["--max-loras"], made.names) == ("32", "3", ("m", "a", "b")), (
        "a slot stays empty"
    )
    assert flags(Launch(made.source, GPU, adapters))["--max-loras"] == "2"
    assert f"a={tmp_path / 'a'}" in made.arguments(1)


def test_the_cache_holds_64_sequences_within_bounds(tmp_path: Path) -> None:
    token = 2 * 3 * 2 * 16 * 4  # layers, kv heads, head width, bytes
    assert cache_bytes(source(tmp_path / "a")) == launch_module.SMALLEST_CACHE
    assert cache_bytes(source(tmp_path / "b", max_position_embeddings=4096)) == 64 * 4096 * token
    assert cache_bytes(source(tmp_path / "c", max_position_embeddings=100_000)) == launch_module.CACHE_BYTES
    assert cache_bytes(source(tmp_path / "d", max_position_embeddings=10_000_000)) == 2 * 10_000_000 * token


def test_the_key_is_in_the_childs_environment_and_in_no_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTKIT_API_KEY", "outer-key-0123456789")
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    made = Launch(source(tmp_path / "m"), SMALL)
    environment = made.child_environment("inner-key-0123456789")
    assert environment["ADAPTKIT_API_KEY"] == environment["VLLM_API_KEY"] == "inner-key-0123456789"
    assert "outer-key-0123456789" not in environment.values() and "VLLM_SERVER_DEV_MODE" not in environment
    assert (
        environment["VLLM_NO_USAGE_STATS"]
        == environment["DO_NOT_TRACK"]
        == environment["PYTHONSAFEPATH"]
        == "1"
    )
    assert environment["HF_HUB_OFFLINE"] == "0", "the user may say otherwise"
    assert not [word for word in made.command(1) if "api-key" in word or "0123456789" in word]


def test_the_printed_command_is_the_one_that_runs(tmp_path: Path) -> None:
    made = Launch(source(tmp_path / "m"), SMALL)
    words = shlex.split(made.printed(8000, "127.0.0.1", "/home/x/my key", Limits(max_tokens=7)))
    assert (
        words[0] == "env"
        and "ADAPTKIT_API_KEY_FILE=/home/x/my key" in words
        and "ADAPTKIT_LIMIT_MAX_TOKENS=7" in words
    )
    assert "ADAPTKIT_LIMIT_ITEMS=2048" not in words, "only what differs from the defaults"
    assert words[words.index("python") :] == ["python", *made.command(8000)[1:]]
    assert "ADAPTKIT_API_KEY_FILE" not in made.printed(8000, "127.0.0.1", "$ADAPTKIT_API_KEY", Limits())


def test_serve_print_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptkit.cli import app
    from adaptkit.serve import preflight, server

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(server, "Server", None)
    monkeypatch.setattr(preflight, "check_packages", lambda *_: None)
    folder = source(tmp_path / "m", head_dim=32).folder
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    line = ["serve", f"name={folder}", "--print", "--json", "--port", "8100", "--", "--max-model-len", "64"]
    assert console.run(app.app, line) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found["notes"] == ["name: the model folder m"] and "the model folder m" in shown.err
    assert found["commands"][0].endswith("--max-model-len 64") and "--port 8100" in found["commands"][0]
    assert "--served-model-name name " in found["commands"][0]
    assert Path(found["key"]).read_text().strip() not in found["commands"][0]
    assert console.run(app.app, ["serve", str(tmp_path / "absent")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_words_are_divided_into_models_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd=name").mkdir()
    wishes, extra = launches.divide(["a", "b=runs/x", "odd=name", "-tp", "2", "c"])
    assert wishes == [
        launches.Wish(None, Path("a")),
        launches.Wish("b", Path("runs/x")),
        launches.Wish(None, Path("odd=name")),
    ]
    assert extra == ["-tp", "2", "c"]
    with pytest.raises(ConfigError, match="no model was given"):
        launches.divide(["--max-model-len", "64"])


def adapter(folder: Path, base: Path | None = None, **settings: object) -> Path:
    folder.mkdir(parents=True)
    recorded = f"base@sha256:{file_digest(base / 'model.safetensors')[:12]}" if base else "somewhere/else"
    written = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": recorded, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(written))
    (folder / "adapter_model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    return folder


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, None),
        ({"r": 256}, None),
        ({"r": 257}, "rank 257"),
        ({"rank_pattern": {"q_proj": 512}}, "rank 512"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"trainable_token_indices": [1]}, "token rows"),
    ],
)
def test_adapters_that_vllm_cannot_serve_are_known(tmp_path: Path, settings: dict, said: str | None) -> None:
    why = lora.cannot_be_served(adapter(tmp_path / "a", **settings))
    assert (said in why) if said else why is None


def test_what_is_no_lora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no LoRA adapter"):
        lora.cannot_be_served(adapter(tmp_path / "a", peft_type="IA3"))


def bases(root: Path) -> tuple[Source, Source]:
    made = source(root / "one"), source(root / "two")
    for place, base in enumerate(made):
        (base.folder / "model.safetensors").write_bytes(b"%d" % place)
    return made


def test_an_adapter_finds_its_base_by_digest(tmp_path: Path) -> None:
    one, two = bases(tmp_path)
    assert lora.base_of(adapter(tmp_path / "a", two.folder), [one, two]) == two
    with pytest.raises(ModelError, match="not among the models given"):
        lora.base_of(adapter(tmp_path / "b", two.folder), [one])
    with pytest.raises(ModelError, match="not among the models given"):
        lora.base_of(adapter(tmp_path / "c"), [one, two])
    assert lora.base_of(adapter(tmp_path / "d"), [one]) == one


def test_a_plan_lets_adapters_ride_and_serves_the_others_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = bases(tmp_path)
    for base in (one, two):
        (base.folder / "tokenizer.json").write_text("{}")
    good, dora = adapter(tmp_path / "good", two.folder), adapter(tmp_path / "dora", one.folder, use_dora=True)
    run = tmp_path / "run"
    qlora = adapter(run / "adapter", one.folder)
    (run / "config.yaml").write_text("adapter: {kind: qlora}\nname: q\n")
    source(run / "model")
    monkeypatch.setattr(
        lora.subprocess,
        "run",
        lambda command, **_: source(Path(command[-1])) and type("Done", (), {"returncode": 0}),
    )
    wishes = [
        launches.Wish(None, one.folder),
        launches.Wish("second", two.folder),
        launches.Wish("x", good),
        launches.Wish("y", dora),
        launches.Wish("z", qlora),
    ]
    planned, notes = launches.make_launches(wishes, SMALL, extra=["-v"])
    assert [made.names for made in planned] == [("one",), ("second", "x"), ("y",), ("z",)]
    assert planned[2].source.folder.name.startswith("dora-merged-")
    assert planned[3].source.folder == run / "model"
    assert any("y: served merged, because vLLM does not serve DoRA" in note for note in notes)
    assert any("z: served merged" in note and "QLoRA" in note for note in notes)
    assert all((made.extra, made.share) == (("-v",), 0.25) for made in planned)


def test_a_merged_adapter_answers_as_the_adapter_does(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from tiny_training import llama
    from transformers import PreTrainedTokenizerFast

    from adaptkit import adapters, models

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), bos_token="<s>", eos_token="</s>")
    models.save(llama(tied=False), tokenizer, tmp_path / "base")
    tuned = adapters.attach(
        models.load(tmp_path / "base", "causal"), adapters.AdapterConfig(kind="dora", rank=2), seed=0
    )
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    adapters.save_adapter(tuned, tmp_path / "dora", base=str(tmp_path / "base"))
    lora.merge(tmp_path / "base", tmp_path / "dora", tmp_path / "merged")
    ids = torch.tensor([[0, 5, 9]])
    with torch.no_grad():
        wanted = PeftModel.from_pretrained(models.load(tmp_path / "base", "causal"), str(tmp_path / "dora"))(
            input_ids=ids
        ).logits
        told = models.load(tmp_path / "merged", "causal")(input_ids=ids).logits
        plain = models.load(tmp_path / "base", "causal")(input_ids=ids).logits
    assert torch.allclose(told, wanted, atol=1e-5) and not torch.allclose(told, plain, atol=1e-2)


def _tokenizer():
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2}, unk_token="a"))


def test_an_export_that_is_not_there_is_said_with_the_command(tmp_path: Path) -> None:
    folder = source(tmp_path / "m").folder
    with pytest.raises(ModelError, match="no int8 export") as refused:
        launches.make_launches([launches.Wish(None, folder)], SMALL, format="int8")
    assert "adaptkit export" in refused.value.fix and "--format int8" in refused.value.fix
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        launches.make_launches([launches.Wish(None, folder)], SMALL, format="int88")
