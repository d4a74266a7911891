"""Dense modules of a sentence-transformers folder, which stand between pooling and normalisation, and their
files.

Shape suffixes: B = texts, D = size of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptkit.disk import match_folder
from adaptkit.errors import ModelError
from adaptkit.run import read_json, write_json

_KINDS: tuple[type[nn.Module], ...] = (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
ACTIVATIONS = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in _KINDS}
_INPUT = "sentence_embedding"
_WEIGHTS = "model.safetensors"


class Dense(nn.Module):
    """A matrix, a bias and an activation over whole vectors; `linear` is what its file calls them."""

    def __init__(self, in_features: int, out_features: int, bias: bool, activation: str):
        super().__init__()
        self.linear, self.activation = nn.Linear(in_features, out_features, bias=bias), activation
        self._act = ACTIVATIONS[activation]()

    def forward(self, vectors_BD: Tensor) -> Tensor:
        return self._act(self.linear(vectors_BD.to(self.linear.weight.dtype)))


def read_dense(folder: Path, names: Sequence[str]) -> nn.Sequential:
    """The Dense modules in the subfolders `names`, in their order; without any, the identity.

    Raises: ModelError for what a module holds beside a matrix, a bias and a known activation, or for weights
        that do not fit.
    """
    return nn.Sequential(*(_read(folder / name) for name in names))


def write_dense(folder: Path, names: Sequence[str], modules: nn.Sequential) -> None:
    """The inverse of `read_dense`, as sentence-transformers and vLLM read it."""
    for name, module in zip(names, _dense_modules(modules), strict=True):
        linear = module.linear
        config = {
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "bias": linear.bias is not None,
            "activation_function": module.activation,
        }
        write_json(folder / name / "config.json", config)
        state = module.state_dict()
        weights = {key: value.detach().float().cpu().contiguous() for key, value in state.items()}
        save_file(weights, folder / name / _WEIGHTS, metadata={"format": "pt"})
        match_folder(folder / name / _WEIGHTS)


def width_of(modules: nn.Sequential, hidden: int) -> int:
    """The size of a vector that `hidden` numbers become."""
    dense = _dense_modules(modules)
    if not dense:
        return hidden
    return dense[-1].linear.out_features


def _dense_modules(modules: nn.Sequential) -> list[Dense]:
    return [module for module in modules if isinstance(module, Dense)]


def _read(folder: Path) -> Dense:
    where, config = str(folder / "config.json"), read_json(folder / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    _check(config, activation, where)
    sizes = int(config["in_features"]), int(config["out_features"])
    dense = Dense(*sizes, bool(config.get("bias", True)), activation)
    try:
        dense.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), "damaged")
        fix = f"give {_WEIGHTS} with linear.weight and linear.bias as config.json says; no pickles are read"
        what = f"the Dense module's weights cannot be read: {reason}"
        raise ModelError(what, where=str(folder), fix=fix) from None
    return dense


def _check(config: dict[str, Any], activation: str, where: str) -> None:
    if activation not in ACTIVATIONS:
        fix = f"known are {', '.join(kind.__name__ for kind in _KINDS)} of torch.nn"
        raise ModelError(f"has a Dense module with the activation {activation}", where=where, fix=fix)
    if config.get("use_residual"):
        raise ModelError("has a Dense module with a residual", where=where, fix="choose a model without one")
    if any(config.get(key) not in (None, _INPUT) for key in ("module_input_name", "module_output_name")):
        fix = "choose a model with one vector per text"
        raise ModelError("has a Dense module over single tokens", where=where, fix=fix)
