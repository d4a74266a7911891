"""Judge a model folder and what was loaded from it: the right form, whole weights, finite values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from adaptkit.errors import ModelError
from adaptkit.models.folder import (
    ENCODER_DECODER,
    ENCODER_DECODER_FIX,
    QUANTISED_FIX,
    Kind,
    has_own_encoder,
    is_encoder_decoder,
    quantised_already,
    quantised_by,
)
from adaptkit.weight_files import read_header, read_json_object, weight_files

WHOLE_NUMBERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")
"""safetensors' names of types that no trained weight has by itself."""
PACKED_IN_ONE = 8
"""Weights of 4 bits that are stored as one number."""
SPARE_NUMBERS = 1 << 26
"""Numbers that a model may have and a folder lack: a new head, tables of positions."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_form(folder: Path, kind: Kind) -> None:
    """Refuse a folder that no use of such a kind can load: an encoder-decoder, or weights in few bits.

    Of T5 and its kin the encoder can be loaded. Our own exports in few bits can be read, not trained.
    """
    raw = read_json_object(folder, "config.json")
    if is_encoder_decoder(raw) and not (kind == "encoder" and has_own_encoder(raw)):
        raise ModelError(ENCODER_DECODER, where=str(folder), fix=ENCODER_DECODER_FIX)
    method = quantised_by(raw)
    if method not in ("", "compressed-tensors"):
        raise ModelError(quantised_already(method), where=str(folder), fix=QUANTISED_FIX)
    if not method:
        _check_stored_types(folder)


def _check_stored_types(folder: Path) -> None:
    """Refuse weights in whole numbers of which nothing says what they stand for.

    transformers would take each number as the weight itself. Tables of positions and masks stand in whole
    numbers too, never in bytes with a sign.
    """
    for file in weight_files(folder):
        for name, entry in read_header(file).items():
            dtype = entry.get("dtype")
            if dtype == "I8" or (name.endswith(".weight") and dtype in WHOLE_NUMBERS):
                what = f"holds {name} in {dtype}, and config.json has no quantization_config"
                raise ModelError(f"{what} to read it by", where=str(file), fix=QUANTISED_FIX)


def check_size(auto: Any, config: Any, folder: Path) -> None:
    """Refuse a config that describes a far larger model than the weights beside it can fill.

    What the weights lack is drawn at random in memory before anything else can notice. The model is built
    without memory to count its numbers; where that fails, loading says why.

    Raises: ModelError.
    """
    headers = [read_header(file) for file in weight_files(folder)]
    stored = sum(math.prod(entry["shape"]) for header in headers for entry in header.values())
    try:
        with torch.device("meta"):
            model = auto.from_config(config)
    except Exception:  # of whatever type an architecture's sizes clash in
        return
    wanted = sum(weight.numel() for weight in (*model.parameters(), *model.buffers()))
    if wanted > PACKED_IN_ONE * stored + SPARE_NUMBERS:
        what = f"config.json describes {wanted:,} numbers, and the weights hold {stored:,}"
        raise ModelError(what, where=str(folder), fix="copy or download the folder again")


def check_four_bits(model: PreTrainedModel, folder: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    if not any(isinstance(module, Linear4bit) for module in model.modules()):
        what = f"{type(model).__name__} has no linear layer that can be stored in 4 bits"
        raise ModelError(what, where=str(folder), fix="set adapter.kind=lora")


def check_loaded(model: Any, info: dict[str, Any], folder: Path, *, new_head: bool) -> None:
    """Refuse weights that transformers replaced by random numbers.

    Allowed to be random are a head that may be new, and poolers, which nothing uses.
    """

    def needed(keys: Any) -> list[str]:
        names = sorted(key[0] if isinstance(key, tuple) else key for key in keys)
        if new_head:  # wanted as such, or a classifier's for another number of classes
            names = [name for name in names if name.startswith(f"{model.base_model_prefix}.")]
        return [name for name in names if "pooler" not in name]

    if wrong := needed(info.get("mismatched_keys", ())):
        what = f"weights and config.json disagree about the shape of {len(wrong)} tensors, first {wrong[0]}"
        raise ModelError(what, where=str(folder), fix="copy or download the folder again")
    if missing := needed(info.get("missing_keys", ())):
        fix = "use a checkpoint that was saved with all of its weights"
        if getattr(model, "get_output_embeddings", lambda: None)() is not None:
            fix += " (an embedding model, for one, has no language-model head)"
        what = f"{len(missing)} tensors of {type(model).__name__} are not in the weights, first {missing[0]}"
        raise ModelError(what, where=str(folder), fix=fix)
    check_finite(model.named_parameters(), str(folder))


def check_finite(weights: Iterable[tuple[str, torch.Tensor]], where: str) -> None:
    """Refuse weights that hold an infinite value or one that is no number.

    Raises: ModelError, naming the first such tensor.
    """
    for name, value in non_finite(weights):
        fix = "copy or download the folder again, or choose a checkpoint from before its training diverged"
        raise ModelError(f"holds {value} in {name}", where=where, fix=fix)


def non_finite(weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, str]]:
    """(tensor, `nan` or `inf`) of each tensor that holds such a value.

    The sum of a tensor tells, at the price of reading it once; a sum that overflows is looked at again.
    """
    for name, weight in weights:
        tensor = weight.detach()
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        if tensor.element_size() == 1:  # fp8 knows no sum
            tensor = tensor.float()
        if not tensor.sum().isfinite() and not tensor.isfinite().all():
            yield name, "nan" if tensor.isnan().any() else "inf"


def stored_weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of everything in a folder's weight files, one in memory at a time."""
    from safetensors import safe_open

    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            for name in list(opened.keys()):
                yield name, opened.get_tensor(name)
