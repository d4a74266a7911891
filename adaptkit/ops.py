"""The one door to the operators of `adaptkit_kernels`.

The implementation is chosen by name, resolved once at the start of a run, printed and written to the run's manifest:
a silent fallback would make two runs of one config different things.
"""

from __future__ import annotations

import torch
from adaptkit_kernels import chunked, reference
from torch import Tensor

from adaptkit.errors import ConfigError, nearest

IGNORE_INDEX = reference.IGNORE_INDEX
_IMPLEMENTATIONS = {"reference": reference, "chunked": chunked}


def resolve(implementation: str, device: torch.device | str) -> str:
    """The name of the implementation that `implementation` means on `device`; "auto" is the fastest proven there.

    Raises: ConfigError for a name that does not exist.
    """
    if implementation == "auto":
        return "chunked"
    if implementation not in _IMPLEMENTATIONS:
        known = [*_IMPLEMENTATIONS, "auto"]
        what = f"no implementation '{implementation}' on {torch.device(device).type}{nearest(implementation, known)}"
        raise ConfigError(what, fix=f"choose one of {', '.join(known)}")
    return implementation


def linear_cross_entropy(
    hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, *, bias_V: Tensor | None = None, implementation: str = "auto"
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` against labels, summed, in nats, float32 scalar.

    Equals `F.cross_entropy(F.linear(hidden_TD, weight_VD, bias_V).float(), labels_T, reduction="sum")`; "chunked" never
    stores [T, V]. Rows labelled IGNORE_INDEX count nothing and cost nothing.

    Args:
        hidden_TD: last hidden states, float [num_tokens, hidden_size].
        weight_VD: output embedding, float [vocab_size, hidden_size].
        labels_T: token ids, int64 [num_tokens].
    """
    return _IMPLEMENTATIONS[resolve(implementation, hidden_TD.device)].linear_cross_entropy(hidden_TD, weight_VD, labels_T, bias_V)


def token_nll(
    hidden_TD: Tensor, weight_VD: Tensor, labels_T: Tensor, *, bias_V: Tensor | None = None, implementation: str = "auto"
) -> Tensor:
    """Negative log-likelihood of each label in nats, float32 [num_tokens], zero for IGNORE_INDEX; for scoring, no gradient."""
    with torch.no_grad():
        return _IMPLEMENTATIONS[resolve(implementation, hidden_TD.device)].token_nll(hidden_TD, weight_VD, labels_T, bias_V)
