"""Round layers by GPTQ: one input at a time, while the inputs not yet rounded make up for the error.

Frantar et al. 2023, arXiv 2210.17323. A layer's output error is (W - Q) X for the inputs X that it sees;
with H = X X^T the update of the inputs not yet rounded that minimises it is known in closed form. Layers are
done in order on what the already rounded ones put out.

Shape letters: O outputs, I inputs, T tokens seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.export.formats import Grid
from adaptkit.export.quantise.compressed_tensors import Scheme, layers_of, linear
from adaptkit.export.quantise.rounding import Rounded, choose_scales, to_grid

DAMPING = 0.01  # of the mean diagonal of H: keeps the inverse stable
BLOCK = 128  # inputs whose updates are applied together
Batch = dict[str, Tensor]


def gptq_layers(
    model: nn.Module,
    scheme: Scheme,
    batches: Sequence[Batch],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Rounded]:
    """Round the scheme's layers so that the model's outputs on `batches` move as little as possible.

    Args:
        model: in float32; its layers are left holding the rounded weights.
        batches: inputs of the model, token ids of the text that it is for.
        progress: called with the number of layers done and their total.
    """
    calls = _record_calls(model, scheme.stack, batches)
    stack = layers_of(model, scheme.stack)
    rounded: dict[str, Rounded] = {}
    hidden = [states for states, _, _ in calls[0] if states is not None]
    for depth, layer in enumerate(stack):
        prefix = f"{scheme.stack}.{depth}."
        inside = {
            name: linear(layer, name.removeprefix(prefix))
            for name in scheme.layers
            if name.startswith(prefix)
        }
        moments = {name: _Moments(module) for name, module in inside.items()}
        _run_layer(layer, hidden, calls[depth])
        for name, module in inside.items():
            rounded[name] = gptq(
                module.weight.data, moments[name].close(), scheme.format.rounds_to, scheme.group_size
            )
            module.weight.data = rounded[name].dequantised()
        hidden = _run_layer(layer, hidden, calls[depth])
        if progress is not None:
            progress(depth + 1, len(stack))
    return rounded


@torch.no_grad()
def gptq(weight_OI: Tensor, hessian_II: Tensor, grid: Grid, group_size: int | None) -> Rounded:
    """Round one matrix.

    Args:
        hessian_II: sum over tokens of x x^T of the layer's inputs, float32.
    """
    weight, hessian = weight_OI.float().clone(), hessian_II.clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1.0
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    size = group_size or weight.shape[1]
    values = torch.empty_like(weight, dtype=torch.float8_e4m3fn if grid == "fp8" else torch.int8)
    scales = []
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        errors = torch.zeros(weight.shape[0], stop - start)
        for i in range(start, stop):
            if i % size == 0:  # scales see the weights as the rounding so far has moved them
                scales.append(choose_scales(weight[:, i : i + size], grid, None))
            scale_O = scales[-1][:, 0].float()
            values[:, i] = to_grid(weight[:, i] / scale_O, grid)
            error_O = (weight[:, i] - values[:, i].float() * scale_O) / inverse[i, i]
            weight[:, i:stop] -= error_O[:, None] * inverse[i, i:stop]
            errors[:, i - start] = error_O
        weight[:, stop:] -= errors @ inverse[start:stop, stop:]
    return Rounded(values, torch.cat(scales, dim=1))


class _Moments:
    """Sums x x^T over the inputs of a linear layer until closed."""

    def __init__(self, module: nn.Linear):
        self.sum_II = torch.zeros(module.in_features, module.in_features)
        self._handle = module.register_forward_pre_hook(self._add)

    def _add(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x_TI = inputs[0].detach().flatten(0, -2).float()
        self.sum_II += (x_TI.T @ x_TI).to(self.sum_II.device)

    def close(self) -> Tensor:
        self._handle.remove()
        return self.sum_II


Call = tuple[Tensor | None, tuple[Any, ...], dict[str, Any]]


@torch.no_grad()
def _record_calls(model: nn.Module, stack: str, batches: Sequence[Batch]) -> list[list[Call]]:
    """Record what each layer is called with, by layer and batch; hidden states only of the first layer."""
    layers = list(layers_of(model, stack))
    calls: list[list[Call]] = [[] for _ in layers]

    def recorder(depth: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            others = {name: value for name, value in kwargs.items() if name != "hidden_states"}
            if depth > 0:  # made anew by the rounded layer before it
                hidden = None
            calls[depth].append((hidden, args[1:], others))

        return hook

    handles = [
        layer.register_forward_pre_hook(recorder(depth), with_kwargs=True)
        for depth, layer in enumerate(layers)
    ]
    try:
        for batch in batches:
            model.eval()(**batch)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@torch.no_grad()
def _run_layer(layer: nn.Module, hidden: Sequence[Tensor], calls: Sequence[Call]) -> list[Tensor]:
    outputs = []
    for states, (_, args, kwargs) in zip(hidden, calls, strict=True):
        output = layer(states, *args, **kwargs)
        outputs.append(output[0] if isinstance(output, tuple) else output)
    return outputs
