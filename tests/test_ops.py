"""The door to the fused operators: names resolve once, unknown names are refused, scoring matches the
definition."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
import torch
from source_tree import TREES, name_of

from adaptkit import ops
from adaptkit.errors import ConfigError


def test_auto_resolves_to_a_named_implementation():
    assert ops.resolve("auto", "cpu") == "chunked"
    assert ops.resolve("reference", "cpu") == "reference"


def test_an_unknown_implementation_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'chunked'"):
        ops.resolve("chunkd", "cpu")


@pytest.mark.parametrize("implementation", ["chunked", "reference"])
def test_token_nll_adds_up_to_the_loss_and_is_zero_where_ignored(implementation):
    torch.manual_seed(0)
    hidden, weight, labels = torch.randn(37, 8), torch.randn(63, 8), torch.randint(0, 63, (37,))
    labels[::5] = ops.IGNORE_INDEX
    nll = ops.token_nll(hidden, weight, labels, implementation=implementation)
    expected = torch.nn.functional.cross_entropy(hidden @ weight.T, labels, reduction="none")
    torch.testing.assert_close(nll, expected)
    assert (nll[::5] == 0).all()
    assert not nll.requires_grad


def test_fused_is_refused_where_triton_cannot_run():
    with pytest.raises(ConfigError, match="do not run on a cpu device") as raised:
        ops.resolve("fused", "cpu")
    assert "TRITON_INTERPRET=1" in str(raised.value.fix)


def test_fused_is_chosen_on_a_gpu_with_triton_and_refused_without(monkeypatch):
    assert ops.resolve("auto", "cuda") == ops.resolve("fused", "cuda") == "fused"
    monkeypatch.setattr(ops.launch, "triton", None)
    assert ops.resolve("auto", "cuda") == "chunked"
    with pytest.raises(ConfigError, match="Triton is not installed"):
        ops.resolve("fused", "cuda")


def test_the_kernels_import_without_triton():
    """Triton has no wheel for every platform: the plain-torch implementations must not need it."""
    code = """
import sys
sys.modules["triton"] = None
import importlib, pkgutil
import torch
import adaptkit_kernels
from adaptkit import ops
for module in pkgutil.iter_modules(adaptkit_kernels.__path__):
    importlib.import_module("adaptkit_kernels." + module.name)
loss = ops.linear_cross_entropy(torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 4]))
print(ops.resolve("auto", "cuda"), bool(loss > 0))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["chunked", "True"]


def test_inductor_compiles_the_loss_in_one_graph():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 16, generator=generator).requires_grad_() for n in (24, 70))
    labels = torch.randint(70, (24,), generator=generator)
    labels[:3] = ops.IGNORE_INDEX

    def loss(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ops.linear_cross_entropy(hidden * 2, weight, labels, implementation="chunked") + hidden.sum()

    found = torch.compile(loss, fullgraph=True)(hidden, weight)
    gradients = torch.autograd.grad(found, (hidden, weight))
    expected = loss(hidden, weight)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, (hidden, weight)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_label_that_counts_nothing_is_written_once() -> None:
    bare = [
        f"{name_of(path)}:{node.lineno}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.UnaryOp) and ast.unparse(node) == str(ops.IGNORE_INDEX)
    ]
    assert len(bare) == 1 and "adaptkit_kernels/reference.py" in bare[0]
