"""Distillation of a head, chunked and fused, against the definition: the loss, its parts and every
gradient."""

from __future__ import annotations

import pytest
import torch
from adaptkit_kernels import chunked, distillation_rows, fused, head, reference
from adaptkit_kernels.teachers import DenseTeacher, HiddenTeacher, Teacher, TopKTeacher
from parity_rule import assert_parity, results
from torch import Tensor

BOTH = [chunked, pytest.param(fused, marks=pytest.mark.interpreted)]
KINDS = ["forward_kl", "reverse_kl", "jsd"]
TOKENS, VOCAB, WIDTH = 23, 133, 16


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(head, "CPU_ROWS", 10)
    monkeypatch.setattr(head, "CPU_LOGITS", 1)


def student(dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """(hidden, weight, bias) and labels, every third one ignored."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator)
    weight = torch.randn(VOCAB, WIDTH, generator=generator) * 0.5
    labels = torch.randint(0, VOCAB - 3, (TOKENS,), generator=generator)
    labels[::3] = reference.IGNORE_INDEX
    return [hidden.to(dtype), weight.to(dtype), torch.randn(VOCAB, generator=generator).to(dtype)], labels


def teacher_of(source: str, temperature: float = 1.0, columns: int = VOCAB - 3) -> Teacher:
    """A teacher of another width with more padding than the student."""
    generator = torch.Generator().manual_seed(1)
    hidden, weight = (
        torch.randn(TOKENS, 20, generator=generator),
        torch.randn(VOCAB + 4, 20, generator=generator) * 0.5,
    )
    bias = torch.randn(VOCAB + 4, generator=generator)
    logits = hidden @ weight.T + bias
    if source == "hidden":
        return HiddenTeacher(hidden, weight, bias)
    if source == "dense":
        return DenseTeacher(logits.log_softmax(1))
    top = (logits[:, :columns] / temperature).log_softmax(1).topk(9)
    return TopKTeacher(top.indices, top.values)


def loss_of(implementation, teacher: Teacher, labels: Tensor, part: int = 0, **options):
    def loss(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return implementation.linear_distillation(hidden, weight, teacher, labels, bias, **options)[part]

    return loss


def check(implementation, leaves: list[Tensor], teacher: Teacher, labels: Tensor, **options) -> None:
    ours, theirs = (loss_of(module, teacher, labels, **options) for module in (implementation, reference))
    assert_parity(theirs, ours, leaves)
    for part in (1, 2):
        exact = loss_of(reference, teacher, labels, part, **options)(*(leaf.double() for leaf in leaves))
        value = loss_of(implementation, teacher, labels, part, **options)(*leaves)
        torch.testing.assert_close(value.double(), exact.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("source", ["hidden", "dense", "top-k"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_divergence_and_teacher(implementation, source, kind):
    leaves, labels = student()
    options = {"beta": 0.3, "temperature": 2.0, "ce_weight": 0.4, "kd_weight": 0.7, "vocab_size": VOCAB - 3}
    check(implementation, leaves, teacher_of(source, 2.0), labels, kind=kind, **options)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("source", ["hidden", "top-k"])
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16(implementation, source, kind):
    """Against the plain way, which rounds the logits; ours keep them in float32, but their gradient enters
    bf16 products."""
    leaves, labels = student(torch.bfloat16)
    teacher = teacher_of(source, columns=VOCAB)
    ours, exact = (
        loss_of(module, teacher, labels, kind=kind, ce_weight=0.5) for module in (implementation, reference)
    )

    def plain(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(hidden, weight, bias).float()
        return exact(logits, torch.eye(VOCAB))

    assert_parity(exact, ours, leaves, plain=plain)


@pytest.mark.interpreted
@pytest.mark.parametrize("source", ["dense", "top-k"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_longer_than_a_block(monkeypatch, source, kind):
    monkeypatch.setattr(distillation_rows, "row_launch", lambda columns: distillation_rows.Launch(32, 4))
    leaves, labels = student()
    options = {"temperature": 0.7, "ce_weight": 0.4, "vocab_size": VOCAB - 3}
    check(fused, leaves, teacher_of(source, 0.7), labels, kind=kind, **options)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("kind", KINDS)
def test_near_the_teacher_the_gradient_stays_right(implementation, kind):
    """p - q cancels; logits rounded to bf16 would cost a tenth of the gradient (PERFORMANCE: 13 %)."""
    leaves, labels = student()
    hidden, weight, bias = leaves
    noise = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3)) * 1e-2
    teacher = HiddenTeacher(hidden + noise, weight, bias)
    truth = results(loss_of(reference, teacher, labels, kind=kind), leaves, torch.float64)
    ours = results(loss_of(implementation, teacher, labels, kind=kind), leaves)
    for exact, value in zip(truth[1:], ours[1:], strict=True):
        assert (value - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize("implementation", BOTH)
def test_top_k_of_a_sure_student_keeps_the_tail_exact(implementation):
    """The student leaves 1e-9 to the tail: 1 - sum would be rounding noise, or negative."""
    (hidden, weight, bias), labels = student()
    teacher = teacher_of("top-k", columns=VOCAB)
    bias = bias.index_fill(0, teacher.ids_TK[1], 25.0)
    for kind in KINDS:
        check(implementation, [hidden, weight, bias], teacher, labels, kind=kind)


@pytest.mark.parametrize("implementation", BOTH)
def test_rows_known_to_the_caller_and_tokens_that_the_teacher_excludes(implementation):
    leaves, labels = student()
    dense = teacher_of("dense").logprobs_TV.clone()
    dense[:, :70] = -torch.inf
    rows = torch.tensor([1, 2, 3, 4, 22])
    for kind in ("forward_kl", "jsd"):
        check(implementation, leaves, DenseTeacher(dense), labels, kind=kind, rows_R=rows, ce_weight=1.0)


@pytest.mark.parametrize("implementation", BOTH)
def test_no_rows_at_all(implementation):
    leaves, labels = student()
    for source in ("hidden", "dense", "top-k"):
        loss = loss_of(implementation, teacher_of(source), torch.full_like(labels, reference.IGNORE_INDEX))
        assert not any(value.any() for value in results(loss, leaves))


@pytest.mark.parametrize("implementation", BOTH)
def test_the_teacher_learns_nothing_and_the_parts_carry_no_gradient(implementation):
    leaves, labels = student()
    teacher = teacher_of("hidden")
    teacher.weight_VE.requires_grad_()
    total, ce, kd = implementation.linear_distillation(
        leaves[0].requires_grad_(), leaves[1], teacher, labels, kd_weight=2.0
    )
    total.backward()
    assert teacher.weight_VE.grad is None and leaves[1].grad is None and leaves[0].grad is not None
    assert not ce.requires_grad and not kd.requires_grad and total.item() == pytest.approx(2 * kd.item())


def test_settings_that_mean_nothing_are_refused():
    (hidden, weight, _), labels = student()
    for options in ({"kind": "kl"}, {"beta": 1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="kind is one of"):
            chunked.linear_distillation(hidden, weight, teacher_of("dense"), labels, **options)
    with pytest.raises(ValueError, match="the teacher has 100 tokens"):
        chunked.linear_distillation(hidden, weight, DenseTeacher(torch.zeros(TOKENS, 100)), labels)


@pytest.mark.parametrize("source", ["hidden", "dense"])
def test_logits_never_exist_as_a_whole(source):
    tokens, vocab = 500, 400
    hidden, weight, labels = torch.randn(tokens, 8), torch.randn(vocab, 8), torch.randint(0, vocab, (tokens,))
    teacher = (
        HiddenTeacher(hidden, weight) if source == "hidden" else DenseTeacher(torch.randn(tokens, vocab))
    )
    hidden.requires_grad_(), weight.requires_grad_()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        chunked.linear_distillation(hidden, weight, teacher, labels, kind="jsd", ce_weight=1.0)[0].backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < tokens * vocab * 4 / 2


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("source", ["hidden", "top-k"])
def test_torch_knows_the_operator(implementation, source):
    (hidden, weight, bias), labels = student()
    name = f"linear_distillation_{implementation.__name__.rpartition('.')[2]}"
    leaves, teacher = [x.requires_grad_() for x in (hidden, weight, bias)], teacher_of(source, columns=VOCAB)
    told = (*vars(teacher).values(), None)[:3]
    settings = ("jsd", [0.5, 2.0, 1.0, 1.0], VOCAB, [True] * 3, torch.float32, torch.float32)
    arguments = (*leaves, labels, None, *told, type(teacher).__name__, *settings)
    torch.library.opcheck(getattr(torch.ops.adaptkit_kernels, name).default, arguments)


@pytest.mark.parametrize("implementation", BOTH)
def test_torch_compiles_around_it_without_a_break(implementation):
    leaves, labels = student()
    teacher = teacher_of("hidden")

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return implementation.linear_distillation(
            hidden * 2, weight, teacher, labels, bias, vocab_size=VOCAB
        )[0]

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for value, exact in zip(results(compiled, leaves), results(loss, leaves), strict=True):
        torch.testing.assert_close(value, exact)
