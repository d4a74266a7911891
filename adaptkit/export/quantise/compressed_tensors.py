"""Write and read quantised folders in the compressed-tensors format, which vLLM and transformers load.

What is rounded are the linear layers of the repeated stack (`model.layers`, `encoder.layer`, ...).
Embeddings, norms, poolers and every head stay as they are and are named in `ignore`: they are a small part,
and errors there cost most. All layers share one scheme, so that it does not matter which of them a server
fuses (q, k and v; gate and up).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from adaptkit.errors import ModelError
from adaptkit.export.formats import GROUP_SIZES, Format, Grid
from adaptkit.export.quantise.rounding import Rounded, pack, round_activations, unpack
from adaptkit.models.store import quiet
from adaptkit.run import read_json, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"
SCALE = ".weight_scale"
SHAPE_STEP = 32  # rows and columns of a 4-bit matrix must be a multiple of it
UNREADABLE_INT4 = ("modernbert",)
"""Models whose packed weights transformers 5.19 cannot load. Other models' initialisation passes over a layer
without `weight`; ModernBERT's reaches for `Wqkv.weight`, `Wi.weight` and `Wo.weight` of every block, where
compressed-tensors has put `weight_packed` by then: AttributeError. Nothing that stands in the folder helps;
int8 keeps the name `weight` and loads. vLLM 0.32 alone would serve such a folder."""
_STORED_AS = {"int8": "int-quantized", "int4": "pack-quantized", "fp8": "float-quantized"}


@dataclass(frozen=True)
class Scheme:
    """How one model is quantised.

    Attributes:
        layers: names of the linear layers to round, in the model's order.
        stack: name of the list of layers that they lie in.
        ignore: names of the linear layers that stay.
        group_size: inputs that share a scale; None: a row of outputs does.
    """

    format: Format
    layers: tuple[str, ...]
    stack: str
    ignore: tuple[str, ...]
    group_size: int | None

    def config(self) -> dict[str, Any]:
        """Write the `quantization_config` of config.json."""
        kind = "float" if self.format.grid == "fp8" else "int"
        bits = 4 if self.format.grid == "int4" else 8
        strategy = "channel" if self.group_size is None else "group"
        shared: dict[str, Any] = {"num_bits": bits, "type": kind, "symmetric": True}
        weights = {
            **shared,
            "strategy": strategy,
            "group_size": self.group_size,
            "dynamic": False,
            "observer": "minmax",
        }
        activations: dict[str, Any] | None = None
        if self.format.activations:
            per_token = {"strategy": "token", "group_size": None, "dynamic": True, "observer": None}
            activations = {**shared, **per_token}
        stored = _STORED_AS[self.format.rounds_to]
        group = {
            "targets": ["Linear"],
            "weights": weights,
            "input_activations": activations,
            "output_activations": None,
            "format": stored,
        }
        return {
            "quant_method": "compressed-tensors",
            "format": stored,
            "quantization_status": "compressed",
            "ignore": list(self.ignore),
            "config_groups": {"group_0": group},
            "kv_cache_scheme": None,
            "global_compression_ratio": None,
        }


def plan_scheme(model: nn.Module, format: Format, where: str) -> Scheme:
    """Decide which layers of `model` are rounded, and how.

    Raises: ModelError for an architecture or a shape that the format cannot hold.
    """
    stack = layer_stack(model, where)
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if format.name == "int4" and model_type in UNREADABLE_INT4:
        what = (
            f"transformers 5.19 cannot load a 4-bit {model_type}: its initialisation reaches for the "
            "`weight` of every block's layers, and packed ones hold `weight_packed` in its place"
        )
        raise ModelError(what, where=where, fix="export it as int8")
    for name, parameter in model.named_parameters():
        if name.startswith(f"{stack}.") and parameter.dim() > 2:
            what = f"holds experts as one tensor ({name}), which {format.name} cannot round layer by layer"
            fix = "export it as bf16; quantise mixtures of experts with llm-compressor elsewhere"
            raise ModelError(what, where=where, fix=fix)
    layers = {name: module for name, module in model.named_modules() if type(module) is nn.Linear}
    inside = {name: module for name, module in layers.items() if name.startswith(f"{stack}.")}
    ignore = tuple(name for name in layers if name not in inside)
    size: int | None = None
    if format.grouped:
        size = _group_size(inside, where)
    return Scheme(format, tuple(inside), stack, ignore, size)


def linear(model: nn.Module, name: str) -> nn.Linear:
    """Find the linear layer of this name."""
    module = model.get_submodule(name)
    assert isinstance(module, nn.Linear), f"{name} is no linear layer"
    return module


def layers_of(model: nn.Module, stack: str) -> nn.ModuleList:
    """Find the repeated layers that stand under this name."""
    module = model.get_submodule(stack)
    assert isinstance(module, nn.ModuleList), f"{stack} is no list of layers"
    return module


def layer_stack(model: nn.Module, where: str) -> str:
    """Find the list of layers that holds most of the model's linear layers, by name.

    Raises: ModelError where there is none.
    """
    counts = {
        name: sum(type(inner) is nn.Linear for inner in module.modules())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
    }
    best = max(counts, key=lambda name: counts[name], default=None)
    if best is None or not counts[best]:
        what = f"{type(model).__name__} has no stack of linear layers to round"
        raise ModelError(what, where=where, fix="export it as bf16 or fp32")
    return best


def _group_size(layers: Mapping[str, nn.Linear], where: str) -> int:
    """Find the largest of 128, 64 and 32 that divides the inputs of all layers."""
    for name, layer in layers.items():
        if layer.in_features % SHAPE_STEP or layer.out_features % SHAPE_STEP:
            shape = f"{layer.out_features} x {layer.in_features}"
            what = f"int4 needs rows and columns in multiples of {SHAPE_STEP}, and {name} is {shape}"
            raise ModelError(
                what, where=where, fix="export it as int8, or train a size whose widths are multiples of 128"
            )
    return next(
        size for size in GROUP_SIZES if all(layer.in_features % size == 0 for layer in layers.values())
    )


def stored(rounded: Rounded, format: Format) -> dict[str, Tensor]:
    """Name the tensors that one layer is stored as, by the ending of their name."""
    if format.grid == "int4":
        shape = torch.tensor(rounded.values.shape)
        return {"weight_packed": pack(rounded.values), "weight_scale": rounded.scale, "weight_shape": shape}
    return {"weight": rounded.values, "weight_scale": rounded.scale}


def compress(folder: Path, scheme: Scheme, rounded: Mapping[str, Rounded]) -> None:
    """Replace the weights of the scheme's layers in a plain HF folder, and say so in its config.json.

    Raises: ModelError if the folder stores a layer under another name than the model has.
    """
    left = set(scheme.layers)
    index: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors: dict[str, Tensor] = {}
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  not a dictionary
                layer = key.removesuffix(".weight")
                if key.endswith(".weight") and layer in left:
                    left.remove(layer)
                    tensors |= {
                        f"{layer}.{ending}": value
                        for ending, value in stored(rounded[layer], scheme.format).items()
                    }
                else:
                    tensors[key] = opened.get_tensor(key)
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, file, metadata={"format": "pt"}
        )
        index |= {key: file.name for key in tensors}
    if left:
        what = f"the weights file has no {min(left)}.weight, which the model has"
        raise ModelError(what, where=str(folder), fix="export it as bf16 and report this architecture")
    if (folder / INDEX).exists():
        write_json(folder / INDEX, {**read_json(folder / INDEX), "weight_map": index})
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "quantization_config": scheme.config()})


def restore(model: PreTrainedModel, folder: Path, scheme: Scheme) -> PreTrainedModel:
    """Build in float32 what a server computes from the quantised `folder`, with activations rounded.

    Args:
        model: the plain model; only its class and config are used, every tensor comes from the folder.
    Raises: ModelError if the folder's tensors do not fit the model.
    """
    built = read_dequantised(type(model), copy.deepcopy(model.config), folder)
    if scheme.format.activations:
        round_inputs(built, scheme.layers, scheme.format.rounds_to)
    return built


def read_dequantised(kind: type[PreTrainedModel], config: Any, folder: Path) -> PreTrainedModel:
    """Build in float32 the model whose rounded weights a folder holds; its activations are not rounded.

    Args:
        kind: transformers' class of the model.
        config: the plain model's, without `quantization_config`.
    Raises: ModelError if the folder's tensors do not fit the model.
    """
    load: Any = kind.from_pretrained  # typed as if it gave the model alone
    with quiet():
        built, info = load(
            None,
            config=config,
            state_dict=_dequantised_tensors(folder),
            dtype=torch.float32,
            output_loading_info=True,
        )
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    for key in [*missing, *sorted(info["unexpected_keys"])]:
        what = f"the tensor {key} does not fit the model"
        raise ModelError(what, where=str(folder), fix="export it again")
    return built.eval()


def rounded_layers(folder: Path) -> list[str]:
    """Name the layers that a folder stores rounded: those with scales beside their weights."""
    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
        names += [key.removesuffix(SCALE) for key in keys if key.endswith(SCALE)]
    return names


def _dequantised_tensors(folder: Path) -> dict[str, Tensor]:
    """Read every tensor of the folder in float32, by the name that a plain model's file would have."""
    layers, state = set(rounded_layers(folder)), {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                layer = key.rpartition(".")[0]
                if layer not in layers or key.endswith(".bias"):
                    state[key] = opened.get_tensor(key).float()
                elif key.endswith((".weight", ".weight_packed")):
                    values = opened.get_tensor(key)
                    if key.endswith(".weight_packed"):
                        values = unpack(values)
                    state[f"{layer}.weight"] = Rounded(values, opened.get_tensor(layer + SCALE)).dequantised()
    return state


def round_inputs(model: nn.Module, layers: Iterable[str], grid: Grid) -> None:
    """Let these layers round what comes in to 8 bits, as servers of int8 and fp8 do."""
    for name in layers:
        model.get_submodule(name).register_forward_pre_hook(_rounds_inputs(grid))


def _rounds_inputs(grid: Grid) -> Any:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (round_activations(inputs[0], grid), *inputs[1:])

    return hook
