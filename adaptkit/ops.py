"""Call the operators of `adaptkit_kernels`; nothing else in the product imports that package.

The implementation is chosen by name, resolved once at the start of a run, printed and written to the run's
manifest: a silent fallback would make two runs of one config different things.

    reference  the definition, in a few lines of torch; stores whole matrices of logits
    chunked    plain torch, a chunk of rows at a time; the default on a CPU
    fused      the same loop around Triton kernels; the default on a GPU with Triton

Shape suffixes: T = tokens, R = rows that count, D = hidden size, V = rows of the head's weight, B = queries,
C = candidates.
"""

from __future__ import annotations

import torch
from adaptkit_kernels import chunked, fused, launch, reference
from adaptkit_kernels.fuse import Fused
from adaptkit_kernels.fuse import fuse as fuse_layers
from adaptkit_kernels.teachers import DenseTeacher, HiddenTeacher, Teacher, TopKTeacher
from torch import Tensor, nn

from adaptkit.errors import ConfigError, nearest

__all__ = [
    "IGNORE_INDEX",
    "DenseTeacher",
    "Fused",
    "HiddenTeacher",
    "Teacher",
    "TopKTeacher",
    "fuse",
    "info_nce",
    "linear_cross_entropy",
    "linear_distillation",
    "resolve",
    "token_nll",
]

IGNORE_INDEX = reference.IGNORE_INDEX
_IMPLEMENTATIONS = {"reference": reference, "chunked": chunked, "fused": fused}


def resolve(implementation: str, device: torch.device | str) -> str:
    """The name of the implementation to use on `device`; "auto" stands for the fastest proven there.

    Raises: ConfigError for a name that does not exist, and for "fused" where its kernels cannot run.
    """
    kind = torch.device(device).type
    if implementation == "auto":
        if kind == "cuda" and launch.fused_available(device):
            return "fused"
        return "chunked"
    if implementation not in _IMPLEMENTATIONS:
        names = [*_IMPLEMENTATIONS, "auto"]
        what = f"no implementation '{implementation}' on {kind}{nearest(implementation, names)}"
        raise ConfigError(what, fix=f"choose one of {', '.join(names)}")
    if implementation == "fused" and not launch.fused_available(device):
        why, fix = "Triton is not installed", "choose auto"
        if launch.triton_importable():
            why = f"its Triton kernels do not run on a {kind} device"
        if kind == "cpu":
            fix += "; for tests on a CPU set TRITON_INTERPRET=1"
        raise ConfigError(f"no implementation 'fused' on {kind}: {why}", fix=fix)
    return implementation


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    *,
    bias_V: Tensor | None = None,
    rows_R: Tensor | None = None,
    vocab_size: int | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Cross-entropy of `hidden @ weight.T + bias` against labels, summed, in nats, float32 scalar.

    It equals `F.cross_entropy(F.linear(hidden_TD, weight_VD, bias_V).float(), labels_T, reduction="sum")`.
    Only "reference" stores [T, V]. Rows labelled IGNORE_INDEX count nothing and cost nothing.

    Args:
        hidden_TD: last hidden states, float [num_tokens, hidden_size].
        weight_VD: output embedding, float [num_rows, hidden_size].
        labels_T: token ids, int64 [num_tokens].
        rows_R: indices of the rows that count, int64, distinct, when the caller knows them: a GPU need not
            wait for them.
        vocab_size: number of real tokens, where `weight` ends with rows of padding.
    """
    loss = _IMPLEMENTATIONS[resolve(implementation, hidden_TD.device)].linear_cross_entropy
    return loss(hidden_TD, weight_VD, labels_T, bias_V, rows_R=rows_R, vocab_size=vocab_size)


def token_nll(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    labels_T: Tensor,
    *,
    bias_V: Tensor | None = None,
    vocab_size: int | None = None,
    implementation: str = "auto",
) -> Tensor:
    """Negative log-likelihood of each label in nats, float32 [num_tokens], zero for IGNORE_INDEX.

    For scoring: there is no gradient.
    """
    score = _IMPLEMENTATIONS[resolve(implementation, hidden_TD.device)].token_nll
    with torch.no_grad():
        return score(hidden_TD, weight_VD, labels_T, bias_V, vocab_size=vocab_size)


def linear_distillation(
    student_TD: Tensor,
    student_weight_VD: Tensor,
    teacher: Teacher,
    labels_T: Tensor,
    *,
    student_bias_V: Tensor | None = None,
    kind: str = "forward_kl",
    beta: float = 0.5,
    temperature: float = 1.0,
    ce_weight: float = 0.0,
    kd_weight: float = 1.0,
    rows_R: Tensor | None = None,
    vocab_size: int | None = None,
    implementation: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """(`ce_weight * CE + kd_weight * temperature**2 * KD`, CE, KD), in nats, float32 scalars.

    All are summed over labelled rows; only the first value carries a gradient, to the student. `kind` is
    "forward_kl", "reverse_kl" or "jsd" (with `beta`); `reference.linear_distillation` defines them. Logits
    are float32, and neither the student's nor an online teacher's exist as [T, V] outside "reference".

    Args:
        teacher: HiddenTeacher (runs beside the student), DenseTeacher, or TopKTeacher (log-probabilities of
            its k most likely tokens at this temperature; the others are one event with the mass left).
        labels_T: token ids, int64 [num_tokens]; rows labelled IGNORE_INDEX count nothing, here too.
        rows_R, vocab_size: as in linear_cross_entropy.
    """
    loss = _IMPLEMENTATIONS[resolve(implementation, student_TD.device)].linear_distillation
    return loss(
        student_TD,
        student_weight_VD,
        teacher,
        labels_T,
        student_bias_V,
        kind=kind,
        beta=beta,
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        rows_R=rows_R,
        vocab_size=vocab_size,
    )


def info_nce(
    queries_BD: Tensor,
    candidates_CD: Tensor,
    labels_B: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.05,
    symmetric: bool = False,
    groups_C: Tensor | None = None,
    margin: float = 0.0,
    implementation: str = "auto",
) -> Tensor:
    """Summed cross-entropy of `queries @ candidates.T / temperature` against each query's candidate.

    In nats, float32; memory is O(B D): outside "reference" the scores [B, C] never exist.

    Args:
        labels_B: each query's candidate; None: candidate i belongs to query i, further ones are negatives.
        symmetric: average it with the loss of finding the query from its candidate.
        groups_C: candidates of the same group as a query's own are not taken as its negatives.
        margin: if not 0, candidates that score higher than a query's own by more than it are not either.
    """
    loss = _IMPLEMENTATIONS[resolve(implementation, queries_BD.device)].info_nce
    return loss(
        queries_BD,
        candidates_CD,
        labels_B,
        temperature=temperature,
        symmetric=symmetric,
        groups_C=groups_C,
        margin=margin,
    )


def fuse(model: nn.Module, implementation: str = "auto") -> Fused:
    """Give the layers of one model fused forwards where these are proven equal.

    "fused" replaces norms, residual sums, gated units and LoRA layers, "chunked" only LoRA layers, which need
    no kernel, "reference" none. The handle says what was replaced and what was not (`record()`, for the
    manifest) and takes it back (`undo()`, before merging adapters).

    Raises: ConfigError as `resolve` does, for the device that the model is on.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    return fuse_layers(model, implementation=resolve(implementation, device))
