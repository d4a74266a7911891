"""Cross-entropy of a head, chunked and fused, against the definition: the loss and every gradient, with every
option.

Shapes are one row, one below and above a chunk of rows, and odd vocabularies; their product with bias is
small, so all of it runs for "chunked". The fused kernels run in the interpreter, milliseconds per row, so
they see each thing once.
"""

from __future__ import annotations

import gc
import weakref
from functools import partial

import pytest
import torch
from adaptkit_kernels import chunked, cross_entropy_rows, fused, head, reference
from parity_rule import assert_parity, results
from torch import Tensor

BOTH = [chunked, pytest.param(fused, marks=pytest.mark.interpreted)]
OPTIONS = {"plain": {}, "padding": {"vocab_size": 250}}


def problem(
    tokens: int,
    vocab: int,
    *,
    bias: bool,
    ignored: str,
    dtype: torch.dtype = torch.float32,
    width: int = 24,
    labels_below: int = 0,
) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(tokens * vocab)
    hidden = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator) * 0.3
    labels = torch.randint(0, labels_below or vocab, (tokens,), generator=generator)
    if ignored == "some":
        labels[::3] = reference.IGNORE_INDEX
    if ignored == "all":
        labels[:] = reference.IGNORE_INDEX
    leaves = [hidden.to(dtype), weight.to(dtype)] + (
        [torch.randn(vocab, generator=generator).to(dtype)] if bias else []
    )
    return leaves, labels


def loss_of(implementation, labels: Tensor, options: dict | None = None):
    def loss(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return implementation.linear_cross_entropy(hidden, weight, labels, bias, **(options or {}))

    return loss


def check(implementation, leaves: list[Tensor], labels: Tensor, **options) -> None:
    assert_parity(loss_of(reference, labels, options), loss_of(implementation, labels, options), leaves)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of 50 rows, so that small tests have several, and a last one that is cut."""
    monkeypatch.setattr(head, "CPU_ROWS", 50)
    monkeypatch.setattr(head, "CPU_LOGITS", 1)


@pytest.mark.parametrize("tokens", [1, 49, 50, 51, 123])
@pytest.mark.parametrize("vocab", [2, 63, 1000])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ignored", ["none", "some", "all"])
def test_float32(tokens, vocab, bias, ignored):
    check(chunked, *problem(tokens, vocab, bias=bias, ignored=ignored))


@pytest.mark.interpreted
@pytest.mark.parametrize(
    ("tokens", "vocab", "ignored"), [(1, 2, "none"), (51, 63, "some"), (9, 1000, "none"), (7, 63, "all")]
)
def test_float32_fused(tokens, vocab, ignored):
    check(fused, *problem(tokens, vocab, bias=True, ignored=ignored))


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option(implementation, dtype, option):
    check(
        implementation,
        *problem(60, 263, bias=True, ignored="some", dtype=dtype, labels_below=250),
        **OPTIONS[option],
    )


@pytest.mark.interpreted
@pytest.mark.parametrize("vocab", [256, 1000])
def test_rows_longer_than_a_block_are_walked(monkeypatch, vocab):
    monkeypatch.setattr(cross_entropy_rows, "row_launch", lambda columns: cross_entropy_rows.Launch(128, 4))
    check(fused, *problem(31, vocab, bias=True, ignored="some", labels_below=vocab - 6), vocab_size=vocab - 6)


@pytest.mark.parametrize("implementation", BOTH)
def test_rows_known_to_the_caller(implementation):
    """They may hold ignored rows (a fixed number of rows for a captured graph) and leave labelled ones
    out."""
    leaves, labels = problem(123, 63, bias=True, ignored="some")
    rows = torch.tensor([0, 1, 2, 5, 50, 60, 122, 7, 3])
    assert (labels[rows] == reference.IGNORE_INDEX).any()
    check(implementation, leaves, labels, rows_R=rows)


@pytest.mark.interpreted
@pytest.mark.parametrize("walked", [False, True])
def test_the_padding_of_the_logits_memory_is_never_read(monkeypatch, walked):
    if walked:
        monkeypatch.setattr(
            cross_entropy_rows, "row_launch", lambda columns: cross_entropy_rows.Launch(64, 4)
        )
    logits, labels = torch.randn(5, 70), torch.tensor([3, 69, -100, 0, 12])
    expected = cross_entropy_rows.cross_entropy_rows(logits.clone(), labels, 70, torch.float32)
    memory = torch.full((5, 128), torch.nan)
    memory[:, :70] = logits
    values = cross_entropy_rows.cross_entropy_rows(memory[:, :70], labels, 70, torch.float32)
    for value, exact in zip(values, expected, strict=True):
        torch.testing.assert_close(value, exact, rtol=0, atol=1e-6)
    assert (memory[:, 70:] == 0).all()


@pytest.mark.parametrize("implementation", BOTH)
def test_no_tokens_at_all(implementation):
    leaves, labels = problem(5, 9, bias=True, ignored="none")
    for options in ({}, {"rows_R": torch.arange(0)}):
        loss, d_hidden, d_weight, d_bias = results(
            loss_of(implementation, labels[:0], options), [leaves[0][:0], *leaves[1:]]
        )
        assert loss == 0 and d_hidden.shape == (0, 24) and (d_weight == 0).all() and (d_bias == 0).all()


@pytest.mark.parametrize("implementation", BOTH)
def test_non_contiguous_input(implementation):
    leaves, labels = problem(60, 63, bias=False, ignored="some", width=48)
    check(implementation, [leaves[0][:, ::2], leaves[1].T[::2].T], labels)


@pytest.mark.parametrize("implementation", BOTH)
def test_very_unlikely_labels_stay_exact(implementation):
    """Probabilities of e-300 underflow; their logarithms must not."""
    leaves, labels = problem(10, 63, bias=False, ignored="none")
    check(implementation, [leaves[0] * 200, leaves[1]], labels)


@pytest.mark.parametrize("implementation", BOTH)
def test_only_the_gradients_that_are_wanted_are_made(implementation):
    (hidden, weight), labels = problem(60, 63, bias=False, ignored="some")
    hidden.requires_grad_()
    implementation.linear_cross_entropy(hidden, weight, labels).backward()
    assert hidden.grad is not None and weight.grad is None


def test_a_second_backward_is_refused():
    (hidden, weight), labels = problem(6, 63, bias=False, ignored="none")
    loss = chunked.linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once per forward"):
        loss.backward()


def test_a_second_derivative_is_refused():
    (hidden, weight), labels = problem(6, 63, bias=False, ignored="none")
    hidden.requires_grad_(), weight.requires_grad_()
    loss = chunked.linear_cross_entropy(hidden, weight, labels) * weight.sum()
    (gradient,) = torch.autograd.grad(loss, hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="twice"):
        gradient.sum().backward()


def test_a_loss_that_is_dropped_frees_its_gradients():
    """The gradients hang on the graph's node; a cycle through them would keep [V, D] floats until the
    collector runs."""
    (hidden, weight), labels = problem(60, 63, bias=False, ignored="none")
    gc.collect()
    gc.disable()
    try:
        loss = chunked.linear_cross_entropy(hidden, weight.requires_grad_(), labels)
        node = weakref.ref(next(fn for fn, _ in loss.grad_fn.next_functions))
        del loss
        assert node() is None
    finally:
        gc.enable()


def test_under_autocast_the_products_are_bf16_and_the_gradients_float32():
    leaves, labels = problem(123, 63, bias=True, ignored="some")
    truth = results(loss_of(reference, labels), leaves, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        eager = results(loss_of(reference, labels), leaves)
        ours = results(loss_of(chunked, labels), leaves)
    exact = results(loss_of(chunked, labels), leaves)
    for name, true, plain, value in zip(
        ("loss", "hidden", "weight", "bias"), truth, eager, ours, strict=True
    ):
        assert value.dtype == torch.float32
        assert (value - true).abs().max() <= 2 * (plain - true).abs().max() + 1e-6, name
    assert (ours[0] - exact[0]).abs() > 1e-4 * exact[0].abs().sqrt(), "float32 products"


def test_logits_never_exist_as_a_whole():
    """No allocation of the size of [T, V], forward or backward."""
    tokens, vocab = 500, 400
    (hidden, weight), labels = problem(tokens, vocab, bias=False, ignored="none")
    hidden.requires_grad_(), weight.requires_grad_()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        chunked.linear_cross_entropy(hidden, weight, labels).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < tokens * vocab * 4 / 2


@pytest.mark.parametrize("implementation", BOTH)
def test_bad_values_give_a_loss_that_is_not_finite(implementation):
    (hidden, weight), labels = problem(60, 63, bias=False, ignored="some")
    for poison in (float("nan"), float("inf")):
        hidden[31, 3] = poison
        assert not torch.isfinite(implementation.linear_cross_entropy(hidden, weight, labels))


@pytest.mark.interpreted
@pytest.mark.parametrize("label", [-1, 57, 63, 10**12])
def test_a_label_that_does_not_exist_gives_nan_instead_of_a_wild_read(label):
    (hidden, weight), labels = problem(6, 63, bias=False, ignored="none", labels_below=57)
    labels[2] = label
    loss, d_hidden, _ = results(loss_of(fused, labels, {"vocab_size": 57}), [hidden, weight])
    assert loss.isnan() and d_hidden[2].isnan().all() and not d_hidden[3].isnan().any()


@pytest.mark.parametrize("implementation", BOTH)
def test_scores_equal_the_definition(implementation):
    leaves, labels = problem(60, 63, bias=True, ignored="some", labels_below=60)
    expected = reference.token_nll(*leaves[:2], labels, leaves[2], vocab_size=60)
    nll = implementation.token_nll(*leaves[:2], labels, leaves[2], vocab_size=60)
    torch.testing.assert_close(nll, expected)
    assert (nll[::3] == 0).all()


@pytest.mark.parametrize("implementation", BOTH)
def test_torch_knows_the_operator(implementation):
    """opcheck: schema, fake tensors, autograd registration, and the traced forward and backward equal the
    eager ones."""
    (hidden, weight, bias), labels = problem(9, 63, bias=True, ignored="some")
    name = f"linear_cross_entropy_{implementation.__name__.rpartition('.')[2]}"
    data = (hidden.requires_grad_(), weight.requires_grad_(), labels, bias.requires_grad_(), None)
    arguments = (*data, 60, [True] * 3, torch.float32)
    torch.library.opcheck(getattr(torch.ops.adaptkit_kernels, name).default, arguments)


@pytest.mark.parametrize("implementation", BOTH)
def test_torch_compiles_around_it_without_a_break(implementation):
    leaves, labels = problem(9, 63, bias=False, ignored="some")
    loss = partial(implementation.linear_cross_entropy, labels_T=labels)
    compiled = torch.compile(
        lambda hidden, weight: loss(hidden * 2, weight), fullgraph=True, backend="aot_eager"
    )
    expected = results(lambda hidden, weight: loss(hidden * 2, weight), leaves)
    for value, exact in zip(results(compiled, leaves), expected, strict=True):
        torch.testing.assert_close(value, exact)
