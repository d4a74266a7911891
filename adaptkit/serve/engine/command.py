"""The exact command for a model on this machine: vLLM's flags and environment, and what each of them is for.

Measured with vLLM 0.32 on two cores (a 5M-parameter model): 75 s to the first answer with vLLM's defaults,
23 s with `-O0`, the in-process executor and VLLM_ENABLE_V1_MULTIPROCESSING=0; float32 decodes 2.5 times
faster than bf16 where the CPU has no bf16 units.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from adaptkit.architecture import cache_bytes_per_token
from adaptkit.client.identity import ModelIdentity
from adaptkit.doctor.processor import NO_TILES
from adaptkit.export.formats import instead_of_bfloat16
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source
from adaptkit.run import read_json
from adaptkit.serve import api_keys
from adaptkit.serve.engine import lora_flags
from adaptkit.serve.engine.draft import Draft
from adaptkit.serve.engine.lora_flags import Adapter, AdapterRoom
from adaptkit.serve.limits import MOST_WAITING, UNLIMITED, Limits, limits_to_environment

EngineName = Literal["vllm", "adaptkit"]
"""What computes: vLLM, or our own encoder, which embeds only."""
PROGRAMS: dict[EngineName, str] = {"vllm": "vLLM", "adaptkit": "adaptkit's encoder"}
"""Engine -> what people call it."""
FEW_CORES = 4  # up to here one process for engine and worker is faster; above, vLLM binds workers to cores
MIB = 2**20
CACHE_BYTES = 1024 * MIB
SMALLEST_CACHE = 64 * MIB
SEQUENCES_AT_ONCE = 64  # what the key/value cache is sized for, where memory allows
OWN_EXECUTOR = (
    "--distributed-executor-backend",
    "--tensor-parallel-size",
    "-tp",
    "--pipeline-parallel-size",
    "-pp",
    "--data-parallel-size",
    "-dp",
    "--nnodes",
    "--compilation-config",
    "-O",
    "-cc",
)
"""Flags of the user's that choose how vLLM spreads its work; ours then stay away."""
VECTOR_SERVER = "adaptkit.serve.engine.vector_server"
"""The module that is our own encoder's process."""
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_MAX_N_SEQUENCES": "64",
}
UNSAFE_VARIABLES = (
    "VLLM_SERVER_DEV_MODE",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "PYTHONOPTIMIZE",
)
UNSAFE_FLAGS = (
    "--trust-remote-code",
    "--trust-request-chat-template",
    "--api-key",
    "--allowed-local-media-path",
)
CHANGING = (
    "--hf-overrides",
    "--load-format",
    "--model-impl",
    "--override-pooler-config",
    "--pooler-config",
    "--quantization",
    "-q",
    "--tokenizer",
)
"""Flags after which vLLM answers otherwise than transformers does for the same folder."""
OURS = (
    "--host",
    "--port",
    "--uds",
    "--served-model-name",
    "--model",
    "--lora-modules",
    "--root-path",
    "--headless",
    "--ssl-keyfile",
    "--ssl-certfile",
)
"""Flags that only adaptkit sets: it must know where each child listens."""


@dataclass(frozen=True)
class Launch:
    """One engine's process to start: a model, and adapters over it."""

    source: Source
    hardware: Hardware
    adapters: tuple[Adapter, ...] = ()
    extra: tuple[str, ...] = ()
    """What the user wrote after `--`: handed on unchanged, and last, so that it wins."""
    share: float = 1.0
    """Part of each GPU's memory for this process, where several models share it."""
    optional: bool = False
    """Nobody named this model: the others are served also where it does not start."""
    room: AdapterRoom | None = None
    """None where no adapter comes later."""
    draft: Draft | None = None
    replica: int = 1
    """Which of several processes of the same model this is."""
    engine: EngineName = "vllm"

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def label(self) -> str:
        """Its name among the processes of a server; clients know the model's name alone."""
        return self.name if self.replica == 1 else f"{self.name}#{self.replica}"

    @property
    def program(self) -> str:
        """What is started, for people."""
        return PROGRAMS[self.engine]

    @property
    def names(self) -> tuple[str, ...]:
        """Every model name that this process answers to."""
        return (self.source.name, *(adapter.name for adapter in self.adapters))

    @property
    def with_lora(self) -> bool:
        """Whether vLLM runs with its LoRA layers."""
        return bool(self.adapters) or self.room is not None

    @property
    def exact(self) -> bool:
        """Whether it computes in float32 throughout."""
        if self.engine == "adaptkit":
            return True
        chosen_by_user = self.chose(("--dtype", "--quantization", "-q"))
        quantised = "quantization_config" in model_config(self.source)
        return not (quantised or chosen_by_user) and dtype(self.source, self.hardware) == "float32"

    @property
    def changes_model(self) -> bool:
        """Whether the user's flags make another model of the folder."""
        return self.chose(CHANGING)

    def without_bfloat16(self, fault: str) -> Launch | None:
        """Plan the same start without bfloat16, after it failed with it.

        Returns: None where bfloat16 was not used, or the user wants it.
        """
        if self.chose(("--dtype",)) or dtype(self.source, self.hardware) != "bfloat16":
            return None
        return replace(self, hardware=replace(self.hardware, bf16_fault=fault))

    def chose(self, flags: Sequence[str]) -> bool:
        """Whether the user gave one of these flags after `--`."""
        return any(_flag_of(word) in flags for word in self.extra)

    def identity(self, name: str) -> ModelIdentity:
        """Say what the model of this name is: the source, or one of the adapters."""
        for adapter in self.adapters:
            if adapter.name == name:
                return adapter.identity
        source = self.source
        return ModelIdentity(
            study=source.study_name,
            arm=source.arm,
            origin=source.origin,
            adaptation=source.adaptation,
            task=source.task,
            role=source.role.value,
            kind=source.kind,
        )

    def arguments(self, port: int, host: str = "127.0.0.1") -> list[str]:
        """Write vLLM's arguments, `serve` first."""
        folder = self.source.folder.resolve()
        words = ["serve", str(folder), "--served-model-name", self.name, "--host", host, "--port", str(port)]
        words += ["--dtype", dtype(self.source, self.hardware)]
        words += self._for_kind(folder)
        if not self.hardware.gpus:
            words += self._on_cpu()
        elif self.share < 1:
            words += ["--gpu-memory-utilization", f"{0.9 * self.share:.2f}"]
        words += ["--middleware", "adaptkit.serve.gateway.guard.Guard", "--disable-fastapi-docs"]
        words += ["--max-num-queued-reqs", str(longest_queue()), "--disable-uvicorn-access-log"]
        words += lora_flags.words(self.adapters, self.room, on_gpu=bool(self.hardware.gpus))
        if self.draft is not None:
            words += self.draft.words()
        return [*words, *self.extra]

    def _for_kind(self, folder: Path) -> list[str]:
        if self.source.kind != "generate":
            return ["--runner", "pooling"]
        words = ["--structured-outputs-config", '{"backend":"xgrammar","disable_any_whitespace":true}']
        if (folder / "chat_template.jinja").is_file():
            words += ["--chat-template", str(folder / "chat_template.jinja")]
        return words

    def _on_cpu(self) -> list[str]:
        if self._own_executor:
            return []
        words = ["-O0"]
        if self.hardware.cores <= FEW_CORES:
            words += ["--distributed-executor-backend", "uni"]
        return words + ["--kv-cache-memory-bytes", str(self.cache_bytes)]

    @property
    def cache_bytes(self) -> int:
        """Size of the key/value cache, of which a draft has its own part."""
        models = [self.source] if self.draft is None else [self.source, self.draft.source]
        return sum(map(cache_bytes, models))

    @property
    def _own_executor(self) -> bool:
        """Whether the user chose how vLLM spreads its work."""
        return self.chose(OWN_EXECUTOR)

    def environment(self) -> dict[str, str]:
        """Collect the variables that vLLM needs beside the caller's own; no key is among them."""
        variables = dict(QUIET)
        if not self.hardware.gpus and self.hardware.cores <= FEW_CORES and not self._own_executor:
            variables["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        if self.hardware.bf16_fault:
            variables[NO_TILES] = "1"
        return variables

    def child_environment(self, key: str) -> dict[str, str]:
        """Build a child's environment: ours without what opens vLLM, and a key that only we two know."""
        hidden = (api_keys.KEY_VARIABLE, api_keys.FILE_VARIABLE, *UNSAFE_VARIABLES)
        inherited = {name: value for name, value in os.environ.items() if name not in hidden}
        unlimited = limits_to_environment(UNLIMITED)  # the gateway has judged
        # With a safe path a working folder's own torch.py is not imported.
        # The fault handler names the signal in the log that a process of vLLM's own dies of.
        fixed = {"PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1", "PYTHONFAULTHANDLER": "1"}
        keys = {api_keys.KEY_VARIABLE: key, "VLLM_API_KEY": key}
        return {**self.environment(), **inherited, **unlimited, **fixed, **keys}

    def command(self, port: int, host: str = "127.0.0.1") -> list[str]:
        """Write the whole command, started by this Python."""
        if self.engine == "adaptkit":
            folder = str(self.source.folder.resolve())
            return [sys.executable, "-m", VECTOR_SERVER, folder, self.name, host, str(port)]
        return [sys.executable, "-m", "adaptkit.serve.engine.entrypoint", *self.arguments(port, host)]

    def printed(self, port: int, host: str, key_file: str, limits: Limits) -> str:
        """Write the command as a shell line for those who run it themselves; the key stays in its file."""
        variables = dict(self.environment())
        if not key_file.startswith("$"):  # a key of the environment is there already
            variables[api_keys.FILE_VARIABLE] = key_file
        defaults = limits_to_environment(Limits())
        wanted = limits_to_environment(limits)
        variables |= {name: value for name, value in wanted.items() if value != defaults[name]}
        settings = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        words = ["python", "-m", *self.command(port, host)[2:]]
        return " ".join(["env", *settings, *map(shlex.quote, words)])


def _flag_of(word: str) -> str:
    """Take the flag's name alone, spelt as vLLM does: `--load-format` of `--load_format=x`."""
    name = word.partition("=")[0]
    return name.replace("_", "-") if name.startswith("--") else name


def dtype(source: Source, hardware: Hardware) -> str:
    """Choose what to compute in: the folder's own precision where the machine has units for it, else float32.

    Pooling models run in float32 on every CPU: `--dtype auto` takes fp16 there, five times slower.
    """
    if hardware.gpus:
        return "auto"
    config = model_config(source)
    if (config.get("quantization_config") or {}).get("format") == "pack-quantized":
        # "cpu_gemm_wna16" not implemented for 'Float', measured with vLLM 0.32
        return instead_of_bfloat16(int4=True) if hardware.bf16_fault else "bfloat16"
    stored = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    if source.kind == "generate" and stored == "bfloat16" and hardware.bf16:
        return "bfloat16"
    return "float32"


def avoids_bfloat16(source: Source, hardware: Hardware) -> str | None:
    """Say in a clause why a model is not computed in bfloat16, which it would be on a sound processor."""
    sound = replace(hardware, bf16_fault="")
    if not hardware.bf16_fault or dtype(source, sound) != "bfloat16":
        return None
    return f"computed in {dtype(source, hardware)}, as {hardware.bf16_fault}"


def longest_queue() -> int:
    """Size vLLM's queue: what the gateway lets wait, and one more request of the largest size."""
    limits = Limits()
    return MOST_WAITING + limits.items * limits.sequences


def cache_bytes(source: Source) -> int:
    """Size the key/value cache in float32: 64 sequences of full length, at most 1 GiB, at least two."""
    config = model_config(source)
    heads = config.get("num_attention_heads") or 1
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or (config.get("hidden_size") or 0) // heads
    token = cache_bytes_per_token(config.get("num_hidden_layers") or 1, kv_heads, head_dim, 4)
    sequence = token * (config.get("max_position_embeddings") or 2048)
    return max(SMALLEST_CACHE, 2 * sequence, min(CACHE_BYTES, SEQUENCES_AT_ONCE * sequence))


def model_config(source: Source) -> dict[str, Any]:
    """Read config.json as it is."""
    return read_json(source.folder / "config.json")


def unsafe_variables(own: Mapping[str, str] = os.environ) -> list[str]:
    """Find variables of the caller's that would open the server; flags are judged by `preflight_options`."""
    return [name for name in UNSAFE_VARIABLES if own.get(name, "0") not in ("", "0")]
