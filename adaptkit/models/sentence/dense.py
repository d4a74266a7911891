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
from adaptkit.models.load_checks import check_finite
from adaptkit.run import read_json, write_json
from adaptkit.weight_files import read_header

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
    fix = f"give {_WEIGHTS} with linear.weight and linear.bias as config.json says; no pickles are read"
    sizes = config.get("in_features"), config.get("out_features")
    shape = _stored_shape(folder)
    if shape is not None and (sizes[1], sizes[0]) != shape:  # before memory is asked for
        stored, stated = (f"{rows} x {columns}" for rows, columns in (shape, sizes[::-1]))
        what = f"the Dense module's weights cannot be read: they are {stored}, not {stated}"
        raise ModelError(what, where=str(folder), fix=fix)
    try:
        dense = Dense(*sizes, bool(config.get("bias", True)), activation)
        dense.load_state_dict(load_file(folder / _WEIGHTS))
    except (OSError, SafetensorError, RuntimeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), "damaged")
        what = f"the Dense module's weights cannot be read: {reason}"
        raise ModelError(what, where=str(folder), fix=fix) from None
    check_finite(dense.named_parameters(), str(folder))
    return dense


def _stored_shape(folder: Path) -> tuple[int, int] | None:
    """(outputs, inputs) of the matrix in a module's file; None where there is no such matrix."""
    if not (folder / _WEIGHTS).is_file():
        return None
    shape = read_header(folder / _WEIGHTS).get("linear.weight", {}).get("shape", ())
    return (shape[0], shape[1]) if len(shape) == 2 else None


def _check(config: dict[str, Any], activation: str, where: str) -> None:
    if activation not in ACTIVATIONS:
        fix = f"known are {', '.join(kind.__name__ for kind in _KINDS)} of torch.nn"
        raise ModelError(f"has a Dense module with the activation {activation}", where=where, fix=fix)
    if config.get("use_residual"):
        raise ModelError("has a Dense module with a residual", where=where, fix="choose a model without one")
    if any(config.get(key) not in (None, _INPUT) for key in ("module_input_name", "module_output_name")):
        fix = "choose a model with one vector per text"
        raise ModelError("has a Dense module over single tokens", where=where, fix=fix)
