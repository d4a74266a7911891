"""The door to the fused operators: names resolve once, unknown names are refused, scoring matches the definition."""

from __future__ import annotations

import pytest
import torch

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
