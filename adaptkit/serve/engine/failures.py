"""Read vLLM's log: how far a start has come, and why one failed, as what, where, fix.

vLLM 0.32 says in some hundred lines what fits in two. The table holds the failures that were provoked on
purpose; for others the last line that names an exception is shown as it is, with the log's path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from adaptkit.doctor.processor import signal_name
from adaptkit.errors import ServerError

PHASES = (
    ("Initializing a V1 LLM engine", "starting the engine"),
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "weights loaded, sizing the cache"),
    ("init engine", "engine ready, starting the HTTP server"),
    ("Application startup complete", "asking it for one real answer"),
    ("Resolved architecture", "reading the model's config"),
)
TAIL_BYTES = 256 * 1024
_ERROR = re.compile(r"(?:^|\) )(?:ERROR [\d: -]+\[[\w.:]+\] )?((?:\w+\.)*\w*(?:Error|Exception): .+)$")
_VALUE_ERROR = re.compile(r"(Value error, .+?)(?: \[type=|$)")
_FATAL = re.compile(r"(?:Fatal Python error: )+(.+)")
"""What Python's fault handler writes into the log when the server, or a process of its own, dies."""
_CHILD_CODE = re.compile(r"(?:died with exit code |exit code: |Failed core proc\(s\): \{'\w+': )(-\d+)")
_ILLEGAL = "Illegal instruction"
_ABORTED = ("Aborted", "SIGABRT")  # by a program on itself, which says why
_NOISE = ("Engine core initialization failed", "ulimit", "EngineDeadError", "CancelledError", "pydantic")


class IllegalInstruction(ServerError):
    """A server that died of SIGILL: its processor does not allow what it computed with."""


@dataclass(frozen=True)
class KnownFailure:
    """A pattern of vLLM's log and what to say instead; `{0}` and on are the pattern's groups."""

    pattern: str
    what: str
    fix: str


AGAIN = "export or copy the folder again"
KNOWN_FAILURES = (
    KnownFailure(
        r"Repo id must be in the form|Invalid repository ID",
        "no model in this folder",
        "give a folder with config.json",
    ),
    KnownFailure(
        r"LocalEntryNotFoundError|Cannot find the requested files in the",
        "a file of it is not here, and vLLM runs offline",
        AGAIN,
    ),
    KnownFailure(r"config file .* is not a valid JSON", "config.json is not valid JSON", AGAIN),
    KnownFailure(
        r"does not recognize this architecture",
        "the installed transformers does not know this model_type",
        "upgrade transformers, or serve a Llama, Qwen, Mistral, BERT or ModernBERT model",
    ),
    KnownFailure(
        r"does not dispatch through the Transformers attention",
        "vLLM 0.32 cannot serve this architecture",
        "use BERT or ModernBERT instead of DistilBERT (distil into one of them)",
    ),
    KnownFailure(
        r"Model architectures (\[.*?\]) (?:are not supported|failed)",
        "vLLM 0.32 cannot serve {0}",
        "serve a Llama, Qwen, Mistral, BERT or ModernBERT model",
    ),
    KnownFailure(
        r"Unsupported CPU attention configuration: head_dim=(\d+)",
        "vLLM's CPU kernels know no attention heads {0} wide",
        "serve it on a machine with a GPU",
    ),
    KnownFailure(
        r"Couldn't instantiate the backend tokenizer",
        "no tokenizer in this folder",
        "save the tokenizer beside the weights",
    ),
    KnownFailure(r"Cannot find any model weights", "no weights in this folder", AGAIN),
    KnownFailure(
        r"header too large|incomplete metadata|InvalidHeader|MetadataIncompleteBuffer",
        "a weight file is cut or overwritten",
        AGAIN,
    ),
    KnownFailure(
        r"start \(\d+\) \+ length \((\d+)\) exceeds dimension size \((\d+)\)",
        "weights and config.json disagree: {0} rows wanted, {1} there",
        AGAIN,
    ),
    KnownFailure(
        r"max_model_len \((\d+)\) is greater than the derived max_model_len (?:\([^)]*=)?\D*(\d+)?",
        "--max-model-len {0} is longer than the model's window",
        "leave it out, or give a smaller one",
    ),
    KnownFailure(
        r"do not support `--runner generate`",
        "an embedding model cannot generate",
        "leave --runner out: it is chosen by the model",
    ),
    KnownFailure(
        r"unrecognized arguments?: (.+)",
        "vLLM does not know {0}",
        "mend what stands after `--` (vllm serve --help=all)",
    ),
    KnownFailure(
        r"error: argument (.+)",
        "vLLM refuses an argument: {0}",
        "mend what stands after `--` (vllm serve --help=all)",
    ),
    KnownFailure(
        r"Address already in use", "the port was taken while vLLM started", "run the same command again"
    ),
    KnownFailure(
        r"Not enough allowed NUMA nodes",
        "this machine has too few NUMA nodes for that many parallel workers",
        "leave --tensor-parallel-size out, or set VLLM_CPU_OMP_THREADS_BIND",
    ),
    KnownFailure(
        r"Available memory on node \d+ \(([^)]+)\)",
        "too little memory for the key/value cache ({0} free)",
        "close other programs, or give a smaller cache: -- --kv-cache-memory-bytes 268435456",
    ),
    KnownFailure(
        r"KV cache is needed, which is larger than",
        "the key/value cache is too small for one full sequence",
        "add `-- --max-model-len N` with a smaller N, or `-- --kv-cache-memory-bytes` with more",
    ),
    KnownFailure(
        r"CUDA out of memory|OutOfMemoryError",
        "the GPU's memory is full",
        "add `-- --gpu-memory-utilization 0.8` or a smaller --max-model-len",
    ),
    KnownFailure(
        r"Unknown quantization method: (\w+)",
        "vLLM 0.32 cannot read {0} weights",
        "adaptkit export ... --format int8",
    ),
    KnownFailure(
        r"cpu_gemm_wna16|Failed to find a kernel that can implement the WNA16",
        "this CPU has no kernel for 4-bit weights (AVX512 or a GPU is needed)",
        "serve the int8 export instead: --format int8",
    ),
    KnownFailure(
        r"static_scaled_fp8_quant|FP8 KV cache on CPU requires",
        "this CPU has no fp8 units",
        "serve the int8 export instead",
    ),
    KnownFailure(
        r"LoRA rank (\d+) is greater than max_lora_rank (\d+)",
        "an adapter of rank {0} is over the limit {1}",
        "merge it instead",
    ),
    KnownFailure(
        r"No adapter found for (\S+)", "no adapter in {0}", "give a folder with adapter_config.json"
    ),
    KnownFailure(r"does not yet support DoRA", "vLLM 0.32 cannot serve DoRA adapters", "merge it instead"),
    KnownFailure(
        r"VLLM_CPU_KVCACHE_SPACE[\s\S]{0,300}invalid literal for int",
        "VLLM_CPU_KVCACHE_SPACE is no whole number of GiB",
        "unset it, or set the cache with `-- --kv-cache-memory-bytes`",
    ),
    KnownFailure(
        r"operator torchvision::nms does not exist|Could not load this library: \S*torchaudio",
        "torchvision or torchaudio were built for another torch",
        "adaptkit doctor",
    ),
    KnownFailure(
        r"Error: No module named '?([\w.]+)", "the Python package {0} is missing", "adaptkit doctor"
    ),
)


def phase(log: str, program: str = "vLLM") -> str:
    """Tell from the log of a program how far a start has come."""
    reached = {log.rfind(mark): text for mark, text in PHASES if mark in log}
    if not reached:
        return f"importing {program}"
    return reached[max(reached)]


def tail(path: Path, start: int = 0) -> str:
    """Read the end of a log, from `start` bytes on; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def last_line(text: str) -> str:
    """Find the last line of what a failed process wrote: it says what went wrong."""
    lines = text.strip().splitlines()
    if not lines:
        return "no reason given"
    return lines[-1]


def translate(log: str, code: int | None, *, model: str, path: Path, program: str = "vLLM") -> ServerError:
    """Explain from its log and exit code why a server ended.

    Args:
        code: exit code, negative for a signal; None if it still runs and was given up.
        model: its name, for people.
        path: the log's path, for what the table does not know.
        program: what was started.
    """
    crash = _crash(log, code)
    if crash == "SIGILL":
        what = "died of an illegal instruction (SIGILL): this processor does not allow what it computed with"
        fix = (
            f"add `-- --dtype float32` if bfloat16 was chosen by hand, or serve the fp32 export; log: {path}"
        )
        return IllegalInstruction(f"{program}: {what}", where=model, fix=fix)
    for failure in KNOWN_FAILURES:
        if matches := list(re.finditer(failure.pattern, log)):
            groups = [group or "?" for group in matches[-1].groups()]
            return ServerError(failure.what.format(*groups), where=model, fix=failure.fix)
    reason = _last_error(log)
    if reason is None or crash not in (None, *_ABORTED):
        reason = _exit_reason(code, crash)
    return ServerError(f"{program}: {reason}", where=model, fix=f"read its log: {path}")


def names_crash(log: str) -> bool:
    """Say whether a log tells of a process that died of a signal, though its server may still run."""
    return _crash(log, None) is not None


def _last_error(log: str) -> str | None:
    """Find the last line that names an exception and is not the consequence of another one."""
    last = None
    for line in log.splitlines():
        match = _VALUE_ERROR.search(line) or _ERROR.search(line.rstrip())
        if match and not any(noise in line for noise in _NOISE):
            last = match[1].removeprefix("Value error, ")[:300]
    return last


def _crash(log: str, code: int | None) -> str | None:
    """Name the signal that ended the server, or a process of its own that took it along; None for none."""
    if fatal := list(_FATAL.finditer(log)):
        if _ILLEGAL in log[fatal[0].start() :]:  # threads that die at once write into each other's lines
            return "SIGILL"
        return fatal[-1][1]
    codes = [int(number) for number in _CHILD_CODE.findall(log)]
    names = [signal_name(number) for number in (code or 0, *codes)]
    return next((name for name in names if name is not None), None)


def _exit_reason(code: int | None, crash: str | None) -> str:
    """Explain an exit code where the log names no error."""
    if crash == "SIGKILL":
        return "killed by SIGKILL: out of memory, probably"
    if crash is not None:
        return f"killed by {crash}"
    if code is None:
        return "gave no answer"
    return f"ended with exit code {code} and no error"
