"""chunked against the definition: the loss and every gradient, odd shapes, ignored labels, no tokens.

The rule: err(chunked, float64 truth) <= 2 * err(reference in the same dtype, float64 truth) + eps. Shapes are one row,
one below and above a chunk of rows, and an odd vocabulary; their product with bias is small, so all of it runs.
"""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import chunked, head, reference

EPS = 1e-6


def problem(tokens: int, vocab: int, *, bias: bool, ignored: str, dtype: torch.dtype = torch.float32, width: int = 24):
    generator = torch.Generator().manual_seed(tokens * vocab)
    hidden = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocab, width, generator=generator) * 0.3
    labels = torch.randint(0, vocab, (tokens,), generator=generator)
    if ignored == "some":
        labels[::3] = reference.IGNORE_INDEX
    if ignored == "all":
        labels[:] = reference.IGNORE_INDEX
    leaves = [hidden.to(dtype), weight.to(dtype)] + ([torch.randn(vocab, generator=generator).to(dtype)] if bias else [])
    return leaves, labels


def run(op, leaves, labels, dtype=None):
    leaves = [leaf.detach().to(dtype or leaf.dtype).requires_grad_() for leaf in leaves]
    loss = op(leaves[0], leaves[1], labels, leaves[2] if len(leaves) > 2 else None)
    (loss / 7).backward()
    return [loss.detach(), *(leaf.grad for leaf in leaves)]


def assert_parity(leaves, labels):
    truth = run(reference.linear_cross_entropy, leaves, labels, torch.float64)
    eager = run(reference.linear_cross_entropy, leaves, labels)
    fused = run(chunked.linear_cross_entropy, leaves, labels)
    for name, exact, plain, ours in zip(("loss", "d_hidden", "d_weight", "d_bias"), truth, eager, fused, strict=False):
        scale = exact.abs().max().clamp_min(1.0) if exact.numel() else 1.0
        error, allowed = ((x.double() - exact).abs().max() if x.numel() else 0.0 for x in (ours, plain))
        assert error <= 2 * allowed + EPS * scale, f"{name}: {error} against {allowed}"
        assert ours.dtype == plain.dtype and ours.shape == plain.shape


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
    assert_parity(*problem(tokens, vocab, bias=bias, ignored=ignored))


@pytest.mark.parametrize("ignored", ["none", "some"])
def test_bfloat16(ignored):
    assert_parity(*problem(123, 63, bias=True, ignored=ignored, dtype=torch.bfloat16))


def test_no_tokens_at_all():
    leaves, labels = problem(5, 9, bias=True, ignored="none")
    loss, d_hidden, d_weight, d_bias = run(chunked.linear_cross_entropy, [leaves[0][:0], *leaves[1:]], labels[:0])
    assert loss == 0 and d_hidden.shape == (0, 24) and not d_weight.any() and not d_bias.any()


def test_non_contiguous_input():
    leaves, labels = problem(60, 63, bias=False, ignored="some", width=48)
    assert_parity([leaves[0][:, ::2], leaves[1].T[::2].T], labels)


def test_very_unlikely_labels_stay_exact():
    """Probabilities of e-300 underflow; their logarithms must not."""
    leaves, labels = problem(10, 63, bias=False, ignored="none")
    assert_parity([leaves[0] * 200, leaves[1]], labels)


def test_only_the_gradients_that_are_wanted_are_made():
    (hidden, weight), labels = problem(60, 63, bias=False, ignored="some")
    hidden.requires_grad_()
    chunked.linear_cross_entropy(hidden, weight, labels).backward()
    assert hidden.grad is not None and weight.grad is None


def test_a_second_backward_is_refused():
    (hidden, weight), labels = problem(6, 63, bias=False, ignored="none")
    loss = chunked.linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once per forward"):
        loss.backward()


def test_under_autocast_the_products_are_bf16_and_the_gradients_float32():
    leaves, labels = problem(123, 63, bias=True, ignored="some")
    truth = run(reference.linear_cross_entropy, leaves, labels, torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        eager = run(reference.linear_cross_entropy, leaves, labels)
        fused = run(chunked.linear_cross_entropy, leaves, labels)
    for exact, plain, ours in zip(truth, eager, fused, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - exact).abs().max() <= 2 * (plain - exact).abs().max() + EPS


def test_logits_never_exist_as_a_whole():
    """No allocation of the size of [T, V], forward or backward."""
    tokens, vocab = 500, 400
    (hidden, weight), labels = problem(tokens, vocab, bias=False, ignored="none")
    hidden.requires_grad_(), weight.requires_grad_()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        chunked.linear_cross_entropy(hidden, weight, labels).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < tokens * vocab * 4 / 2


def test_bad_values_give_a_loss_that_is_not_finite():
    (hidden, weight), labels = problem(60, 63, bias=False, ignored="some")
    for poison in (float("nan"), float("inf")):
        hidden[31, 3] = poison
        assert not torch.isfinite(chunked.linear_cross_entropy(hidden, weight, labels))
