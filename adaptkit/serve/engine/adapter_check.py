"""Check from the headers of their files that an adapter changes the base that it is to be served over.

vLLM 0.32 looks an adapter's tensors up by name and passes over those that name no module of the base: it is
listed, answers as the base does, and nobody is told.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.serve.engine.tensor_check import plain_shapes
from adaptkit.serve.model_files import read_object, weight_files
from adaptkit.weight_files import read_header

PREFIX = "base_model.model."
"""What peft writes before the name of each module."""
HEADS = ("lm_head", "embed_out")
"""Modules that a base with tied weights does not store."""
INNER = ("model.", "transformer.", "gpt_neox.", "backbone.")
"""Prefixes that a base lacks which was saved without its head."""
FOREIGN = ("_orig_mod.", "module.", "language_model.", "base_model.model.", "base_layer.")
"""Parts that wrappers put into names: torch.compile, parallel training, models of text and images, peft."""
_LORA = re.compile(r"(.+)\.lora_(embedding_)?([AB])(?:\.\w+)?(?:\.weight)?$")
_QUANTISED = re.compile(r"bnb|bitsandbytes|[-_](4|8)bit|gptq|awq|int[48]|nf4|gguf", re.IGNORECASE)
SUFFIX = ".weight"
Shape = list[int]


@dataclass(frozen=True)
class Pair:
    """The two small matrices over one module: A reads `inputs`, B writes `outputs`."""

    module: str
    rank: int
    inputs: int
    outputs: int


def whole_tensors(folder: Path) -> list[str]:
    """List the tensors of an adapter that are no low-rank pair: modules saved whole, biases, magnitudes."""
    return sorted(name for name in _shapes(_files(folder)) if not _LORA.fullmatch(name))


def stored_rank(folder: Path) -> int:
    """Find the largest rank that an adapter's tensors have; 0 where it has none."""
    return max((pair.rank for pair in _pairs(folder)), default=0)


def check_fit(folder: Path, base: Path, settings: Mapping[str, Any]) -> None:
    """Check that each pair of an adapter belongs to a module of the base, in shape and rank.

    Raises: ModelError.
    """
    pairs = _pairs(folder)
    if not pairs:
        what = "holds no adapter weights (*.safetensors with lora_A and lora_B)"
        raise ModelError(what, where=str(folder), fix="copy the folder again")
    weights = _weights_of(base)
    lacking = [pair.module for pair in pairs if pair.module not in weights]
    recorded = settings.get("base_model_name_or_path") or "not recorded"
    if lacking:
        what = f"{len(lacking)} of its {len(pairs)} modules are not in {base.name}, first {lacking[0]}"
        without = f"{what}: vLLM would serve it without their effect; its base is {recorded}"
        raise ModelError(without, where=str(folder), fix=_rename(lacking[0], weights))
    for pair in pairs:
        wanted = weights[pair.module]
        if wanted is not None and sorted((pair.outputs, pair.inputs)) != sorted(wanted):
            own, others = f"{pair.outputs} x {pair.inputs}", " x ".join(map(str, wanted))
            what = f"{pair.module} is {others} in {base.name}, and the adapter's is {own}"
            fix = f"serve it over the base that it was trained on ({recorded})"
            raise ModelError(what, where=str(folder), fix=fix)
        _check_rank(folder, pair, settings)
    if not whole_tensors(folder) and {pair.module for pair in pairs} <= set(_without_effect(folder)):
        what = "is untrained: one matrix of each of its pairs is zero, so it would answer as its base does"
        raise ModelError(what, where=str(folder), fix="serve the adapter that training wrote")


def other_base(base: Path, settings: Mapping[str, Any]) -> str | None:
    """Say in a clause that an adapter records another base than the one it is served over."""
    recorded = str(settings.get("base_model_name_or_path") or "")
    if not recorded:
        return "it records no base"
    if Path(recorded).name.partition("@")[0] == base.resolve().name:
        return None
    clause = f"it records another base, {recorded}"
    if _QUANTISED.search(recorded):
        clause += ", a quantised one: over other weights it answers differently"
    return clause


def _check_rank(folder: Path, pair: Pair, settings: Mapping[str, Any]) -> None:
    ranks = {settings.get("r"), *(settings.get("rank_pattern") or {}).values()}
    if pair.rank not in ranks:
        what = f"{pair.module} has rank {pair.rank}, and adapter_config.json says {settings.get('r')}"
        raise ModelError(what, where=str(folder), fix="copy the folder again: its files are of two adapters")


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _shapes(files: list[Path]) -> dict[str, Shape]:
    return {name: entry["shape"] for file in files for name, entry in read_header(file).items()}


def _pairs(folder: Path) -> list[Pair]:
    """Read which modules an adapter changes.

    Raises: ModelError for half a pair, or two halves of different rank.
    """
    halves: dict[str, dict[str, tuple[int, int]]] = {}
    for name, shape in _shapes(_files(folder)).items():
        if (match := _LORA.fullmatch(name)) and len(shape) == 2:
            module = match[1].removeprefix(PREFIX)
            rank, size = (shape[0], shape[1]) if match[3] == "A" else (shape[1], shape[0])
            halves.setdefault(module, {})[match[3]] = (rank, size)
    pairs = []
    for module, half in halves.items():
        if len(half) != 2 or half["A"][0] != half["B"][0]:
            what = f"the two matrices over {module} do not fit each other"
            raise ModelError(what, where=str(folder), fix="copy the folder again")
        pairs.append(Pair(module, half["A"][0], half["A"][1], half["B"][1]))
    return pairs


def _without_effect(folder: Path) -> Iterator[str]:
    """The modules over which one of the two matrices is zero."""
    for path in _files(folder):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            for name, entry in read_header(path).items():
                if match := _LORA.fullmatch(name):
                    start, stop = entry["data_offsets"]
                    file.seek(8 + length + start)
                    if file.read(stop - start).count(0) == stop - start:
                        yield match[1].removeprefix(PREFIX)


def _weights_of(base: Path) -> dict[str, Shape | None]:
    """List the base's modules that have a weight, with its shape; None where quantised files do not tell."""
    stored = _shapes(weight_files(base))
    quantised = read_object(base / "config.json").get("quantization_config") or {}
    tells = quantised.get("quant_method", "compressed-tensors") == "compressed-tensors"
    weights: dict[str, Shape | None] = {}
    for name, shape in plain_shapes(stored):
        if name.endswith(SUFFIX):
            module = name.removesuffix(SUFFIX)
            for prefix in ("", *INNER):
                weights.setdefault(prefix + module, shape if tells and len(shape) == 2 else None)
    for head in HEADS:
        weights.setdefault(head, None)
    return weights


def _rename(module: str, weights: Mapping[str, Shape | None]) -> str:
    """Suggest how an adapter's names become the base's, where a wrapper's part alone is in the way."""
    for part in FOREIGN:
        if part in module and module.replace(part, "") in weights:
            return (
                f"rename its tensors without '{part}', or save the adapter from the model without the wrapper"
            )
    return "serve it over the base that it was trained on"
