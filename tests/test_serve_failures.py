"""What vLLM 0.32 really logged for each failure that was provoked, and what a user is told instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adaptkit.serve.engine import failures

PREFIX = "(EngineCore pid=9257) ERROR 11-21 11:33:20 [core.py:1021] "
SAID = {
    (
        "huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'a/b': '/x'"
    ): "no model in",
    "ValueError: Invalid repository ID or local directory specified: '/x'.": "no model in this folder",
    (
        "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot"
    ): "is not here",
    "OSError: It looks like the config file at '/x/config.json' is not a valid JSON file.": (
        "config.json is not valid JSON"
    ),
    (
        "Value error, The checkpoint has model type `x` but Transformers does not recognize this "
        "architecture."
    ): "this model_type",
    "ValueError: Layer 0 does not dispatch through the Transformers attention interface": (
        "cannot serve this architecture"
    ),
    "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0": (
        "no attention heads 16 wide"
    ),
    "ValueError: Couldn't instantiate the backend tokenizer from one of:": "no tokenizer",
    "RuntimeError: Cannot find any model weights with `/x`": "no weights",
    "safetensors_rust.SafetensorError: Error while deserializing header: header too large": (
        "cut or overwritten"
    ),
    (
        "SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"
    ): "cut or overwritten",
    "RuntimeError: start (0) + length (768) exceeds dimension size (700).": "768 rows wanted, 700 there",
    (
        "Value error, User-specified max_model_len (4096) is greater than the derived "
        "max_model_len (max_position_embeddings=512)"
    ): "--max-model-len 4096 is longer",
    "ValueError: Embedding models do not support `--runner generate`": "cannot generate",
    "vllm: error: unrecognized arguments: --foo 3": "does not know --foo 3",
    "OSError: [Errno 98] Address already in use": "the port was taken",
    "AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers.": (
        "too few NUMA nodes"
    ),
    "ValueError: Available memory on node 0 (17.72/23.54 GiB) on startup is less than desired": (
        "17.72/23.54 GiB free"
    ),
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB": "GPU's memory is full",
    "Value error, Unknown quantization method: bitsandbytes. Must be one of [...]": (
        "cannot read bitsandbytes"
    ),
    "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'": (
        "no kernel for 4-bit weights"
    ),
    "ValueError: LoRA rank 128 is greater than max_lora_rank 16.": "rank 128 is over the limit 16",
    "ValueError: No adapter found for /nope": "no adapter in /nope",
    "ValueError: vLLM does not yet support DoRA.": "DoRA",
    "ModuleNotFoundError: No module named 'xgrammar'": "xgrammar is missing",
    "ValueError: Model architectures ['MambaNet'] are not supported for now.": "cannot serve ['MambaNet']",
    "vllm serve: error: argument --dtype: invalid choice: 'int3'": (
        "refuses an argument: --dtype: invalid choice"
    ),
    (
        "ValueError: To serve at least one request with the models's max seq len (4096), 0.5 GiB "
        "KV cache is needed, which is larger than the available KV cache memory (0.06 GiB)."
    ): "too small for one full sequence",
    "ValueError: Failed to find a kernel that can implement the WNA16 linear layer.": (
        "no kernel for 4-bit weights"
    ),
    "TypeError: _C::static_scaled_fp8_quant() expected at most 0 argument(s)": "no fp8 units",
    "NotImplementedError: FP8 KV cache on CPU requires x86 with AVX-512 or AMX": "no fp8 units",
    (
        'int(os.getenv("VLLM_CPU_KVCACHE_SPACE", "0"))\nValueError: invalid literal for int() '
        "with base 10: '0.5'"
    ): "whole number",
    "RuntimeError: operator torchvision::nms does not exist": "built for another torch",
}
NOISE = """(APIServer pid=1) WARNING 11-21 [utils.py:255] ulimit: like `OSError: [Errno 24] Too many files`
{line}
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize("line", SAID)
def test_known_failures_are_told_as_what_where_fix(line: str) -> None:
    error = failures.translate(NOISE.format(line=PREFIX + line), 1, model="m", path=Path("log"))
    assert SAID[line] in error.what and error.where == "m" and error.fix
    assert "{" not in error.what


def test_the_table_holds_nothing_that_was_not_seen() -> None:
    reached = {
        next(failure for failure in failures.KNOWN_FAILURES if re.search(failure.pattern, line))
        for line in SAID
    }
    assert reached == set(failures.KNOWN_FAILURES)


def test_a_package_that_is_not_missed_is_no_failure() -> None:
    log = NOISE.format(
        line="INFO No module named 'deep_gemm': its kernels are not used\n" + PREFIX + "StrangeError: no luck"
    )
    assert failures.translate(log, 1, model="m", path=Path("log")).what == "vLLM: StrangeError: no luck"


@pytest.mark.parametrize(
    "line",
    [
        PREFIX + "my.module.StrangeError: the moon is full",
        "StrangeError: the moon is full",
        "(EngineCore pid=1) my.StrangeError: the moon is full",
    ],
)
def test_unknown_failures_show_the_cause_and_the_log(line: str) -> None:
    error = failures.translate(NOISE.format(line=line), 1, model="m", path=Path("a/log"))
    assert error.what.endswith("StrangeError: the moon is full") and error.what.startswith("vLLM: ")
    assert error.fix == "read its log: a/log"


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "exit code 0"), (-9, "SIGKILL: out of memory"), (-11, "SIGSEGV"), (None, "no answer")],
)
def test_a_silent_end_is_told_by_its_exit_code(code: int | None, said: str) -> None:
    assert said in failures.translate("INFO all is well\n", code, model="m", path=Path("log")).what


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("INFO all is well\n", -4),
        ("Fatal Python error: Illegal instruction\n\nCurrent thread 0x1:\nRuntimeError: x\n", 0),
        ("Fatal Python error: Fatal Python error: Illegal instruction\n", 0),
        ("Fatal PytFatal Python error: hon \nIllegal instruction\n", None),
        ("RuntimeError: Process ApiServer_0 (PID: 3) died with exit code -4\n", 1),
        ("ERROR Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down\n", 0),
        (
            "RuntimeError: Engine core initialization failed. See root cause above. "
            "Failed core proc(s): {'EngineCore': -4}\n",
            1,
        ),
    ],
)
def test_an_illegal_instruction_is_named_wherever_it_happened(log: str, code: int | None) -> None:
    error = failures.translate(log, code, model="m", path=Path("log"))
    assert isinstance(error, failures.IllegalInstruction)
    assert "illegal instruction (SIGILL)" in error.what and "log" in error.fix and error.where == "m"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("Fatal Python error: Segmentation fault\nOSError: x\n", "killed by Segmentation fault"),
        ("StrangeError: the moon is full\nFatal Python error: Aborted\n", "StrangeError: the moon is full"),
        ("Worker proc VllmWorker-0 died unexpectedly (exit code: -9), bye\n", "SIGKILL: out of memory"),
        ("RuntimeError: ... Failed core proc(s): {'EngineCore': -11}\nEngineDeadError\n", "SIGSEGV"),
    ],
)
def test_what_took_an_engine_along_is_the_reason_though_the_server_exits_with_0(log: str, said: str) -> None:
    error = failures.translate(log, 0, model="m", path=Path("log"))
    assert said in error.what
    assert failures.names_crash(log) and not failures.names_crash("RuntimeError: x\n")


def test_phases_follow_the_log() -> None:
    log, phases = "", []
    for line in (
        "non-default args",
        "Resolved architecture: X",
        "Initializing a V1 LLM engine",
        "Starting to load model /x",
        "Loading weights took 0.1 s",
        "init engine (profile",
        "Application startup complete.",
    ):
        log += line + "\n"
        phases.append(failures.phase(log))
    assert phases[0] == "importing vLLM" and len(set(phases)) == 7 and "real answer" in phases[-1]


def test_the_end_of_a_log_is_read_from_where_this_start_began(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n" + b"\xff new\n")
    assert failures.tail(path, 4) == "\ufffd new\n"
    path.write_bytes(b"x" * (2 * failures.TAIL_BYTES))
    assert len(failures.tail(path)) == failures.TAIL_BYTES
    assert failures.tail(tmp_path / "absent") == ""
