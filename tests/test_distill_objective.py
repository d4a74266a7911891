"""Distillation as an objective: each loss is what its definition says, sums are sums, and the teacher stays
outside. Home of trainer.distillation, trainer.blocks and trainer.teacher_signal."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tiny_training import VOCAB, Rows, bert, settings
from torch import nn

from adaptkit.distill.depth import copy_blocks
from adaptkit.distill.student import add_projections
from adaptkit.distill.teacher import OnlineTeacher
from adaptkit.run import Run
from adaptkit.trainer.blocks import recording, replaced
from adaptkit.trainer.checkpoint import Checkpoints
from adaptkit.trainer.distillation import Distillation, Layout
from adaptkit.trainer.trainer import Trainer


def llama(layers: int, seed: int = 0) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    return LlamaForCausalLM(config)


def objective(
    losses: dict[str, float], teacher: nn.Module, kind: str = "causal", num_student: int = 2, **changes
) -> Distillation:
    layers = teacher.config.num_hidden_layers
    return Distillation(
        OnlineTeacher(teacher, kind), losses, kind, Layout.even(num_student, layers), **changes
    )


def batch_of(kind: str = "causal", num: int = 4) -> dict[str, torch.Tensor]:
    name = {"causal": "causal", "masked": "masked", "classifier": "classify", "encoder": "classify"}[kind]
    return Rows(name).collate(list(range(num)), seed=0, epoch=0)


def test_forward_kl_at_a_temperature_is_the_textbook_sum():
    teacher, student, batch = llama(4), llama(2, seed=1), batch_of()
    out = objective({"forward_kl": 0.7, "cross_entropy": 0.3}, teacher, temperature=2.0).loss(student, batch)
    kept = batch["labels"][:, 1:] != -100
    own, theirs = (model(batch["input_ids"]).logits[:, :-1][kept].float() for model in (student, teacher))
    kl = F.kl_div((own / 2).log_softmax(-1), (theirs / 2).log_softmax(-1), log_target=True, reduction="sum")
    ce = F.cross_entropy(own, batch["labels"][:, 1:][kept], reduction="sum")
    assert out.total.item() == pytest.approx((0.7 * 4 * kl + 0.3 * ce).item(), rel=1e-5)
    assert out.metrics["forward_kl"].item() == pytest.approx(kl.item(), rel=1e-4)


def test_a_classifiers_logits_are_distilled_by_the_same_operator():
    teacher, student, batch = bert(classify=True), bert(classify=True), batch_of("classifier")
    nn.init.normal_(teacher.classifier.weight)
    out = objective({"reverse_kl": 1.0}, teacher, "classifier", 1).loss(student.eval(), batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    log_q, log_p = (model(**inputs).logits.log_softmax(-1) for model in (student, teacher))
    assert out.total.item() == pytest.approx((log_q.exp() * (log_q - log_p)).sum().item(), rel=1e-5)


ALL = {"forward_kl": 1.0, "jsd": 0.5, "cross_entropy": 0.2, "hidden": 1.0, "attention": 1.0}
REPLACING = {"replacing": 1.0}


@pytest.mark.parametrize(
    ("kind", "losses"),
    [
        ("causal", ALL),
        ("classifier", ALL),
        ("causal", REPLACING),
        ("classifier", REPLACING),
        ("encoder", {"cosine": 1.0, "mse": 1.0}),
    ],
)
def test_eight_microbatches_equal_one_batch(kind, losses):
    def gradients(size: int) -> list[torch.Tensor]:
        if kind == "causal":
            teacher, student = llama(4), llama(2, seed=1)
        else:
            teacher, student = encoder(4, kind), encoder(2, kind, seed=1)
        task, rows = (
            objective(losses, teacher, kind, seed=3),
            Rows("causal" if kind == "causal" else "classify"),
        )
        groups = [list(range(8))[i : i + size] for i in range(0, 8, size)]
        for group in groups:
            (task.loss(student, rows.collate(group, seed=0, epoch=0)).total / 8).backward()
        return [weight.grad for weight in student.parameters() if weight.grad is not None]

    whole, split = gradients(8), gradients(1)
    error = sum((a - b).square().sum() for a, b in zip(whole, split, strict=True)).sqrt()
    assert whole and error / sum(a.square().sum() for a in whole).sqrt() < 2e-6


def encoder(layers: int, kind: str, seed: int = 0, width: int = 16) -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        initializer_range=0.2,
        attn_implementation="eager",
    )
    return (BertForSequenceClassification if kind == "classifier" else BertModel)(config)


@pytest.mark.parametrize("kind", ["causal", "classifier"])
def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it(kind):
    teacher = llama(3) if kind == "causal" else encoder(3, kind)
    task = objective(
        {"forward_kl": 1.0, "reverse_kl": 1.0, "jsd": 1.0, "hidden": 1.0, "attention": 1.0}, teacher, kind, 3
    )
    out = task.loss(copy.deepcopy(teacher).requires_grad_(True), batch_of(kind))
    assert out.total.item() == pytest.approx(0.0, abs=1e-4)


def test_embedding_losses_are_what_they_say():
    teacher, student, batch = encoder(4, "encoder"), encoder(2, "encoder", seed=1), batch_of("encoder")
    task = objective({"cosine": 1.0, "mse": 1.0, "margin": 1.0}, teacher, "encoder")
    metrics = task.loss(student, batch).metrics
    mask = batch["attention_mask"][..., None]

    def embed(model: nn.Module) -> torch.Tensor:
        hidden = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return (hidden * mask).sum(1) / mask.sum(1)

    own, aim = embed(student), embed(teacher)
    assert metrics["cosine"].item() == pytest.approx(
        (1 - F.cosine_similarity(own, aim)).sum().item(), rel=1e-5
    )
    assert metrics["mse"].item() == pytest.approx((own - aim).square().sum().item(), rel=1e-5)
    scores = [F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).T for x in (own, aim)]
    margins = [score[:, :, None] - score[:, None, :] for score in scores]
    assert metrics["margin"].item() == pytest.approx(
        (margins[0] - margins[1]).square().mean((1, 2)).sum().item(), rel=1e-4
    )
    assert not task.separable


def test_the_hidden_loss_is_a_share_of_the_teachers_square_and_passes_through_projections():
    teacher, student, batch = (
        encoder(4, "classifier"),
        encoder(2, "classifier", seed=1, width=8),
        batch_of("classifier"),
    )
    add_projections(student, 16, 2)
    out = objective({"hidden": 1.0}, teacher, "classifier").loss(student, batch)
    with recording(teacher, [1, 3]) as theirs, recording(student, [0, 1]) as own:
        for model in (teacher, student):
            model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    mask = batch["attention_mask"].float()
    expected = 0.0
    for index, layer in ((0, 1), (1, 3)):
        aim = theirs.hidden[layer]
        error = (student.distillation_projections[index](own.hidden[index]) - aim).square().mean(
            -1
        ) / aim.square().mean(-1)
        expected += float((error.detach() * mask / mask.sum(1, keepdim=True)).sum()) / 2
    assert out.total.item() == pytest.approx(expected, rel=1e-5)
    out.total.backward()
    assert student.distillation_projections[0].weight.grad.abs().sum() > 0


def test_layers_are_grouped_evenly_and_in_order():
    assert Layout.even(3, 6).groups == ((0, 1), (2, 3), (4, 5))
    assert Layout.even(2, 5).groups == ((0, 1), (2, 3, 4))
    assert Layout.even(6, 12).last == [1, 3, 5, 7, 9, 11]


def test_a_student_without_any_block_of_its_own_is_its_teacher():
    teacher, batch = llama(4), batch_of()
    student = copy_blocks(teacher, "causal", [0, 3], seed=0)
    with replaced(student, {0: list(teacher.model.layers[:2]), 1: list(teacher.model.layers[2:])}):
        torch.testing.assert_close(student(batch["input_ids"]).logits, teacher(batch["input_ids"]).logits)
    assert not torch.allclose(student(batch["input_ids"]).logits, teacher(batch["input_ids"]).logits)


@pytest.mark.parametrize(
    ("name", "first", "later"), [("replacing", 0.3, 0.65), ("replacing_constant", 0.5, 0.5)]
)
def test_blocks_are_replaced_for_half_of_the_run_and_then_the_student_learns_alone(name, first, later):
    teacher, batch = llama(4), batch_of()
    student = copy_blocks(teacher, "causal", [0, 3], seed=0)
    task = objective({name: 1.0}, teacher)
    plain = objective({"cross_entropy": 1.0}, teacher).loss(student, batch).total.item()

    def share_of_own(progress: float) -> float:
        found = []
        for seed in range(60):
            student.zero_grad()
            dataclasses.replace(task, seed=seed).at(progress).loss(student.train(), batch).total.backward()
            found += [bool(block.self_attn.q_proj.weight.grad.any()) for block in student.model.layers]
            assert bool(student.model.embed_tokens.weight.grad.any()) == (progress >= 0.5), (
                "only blocks learn among the teacher's"
            )
        return sum(found) / len(found)

    assert share_of_own(0.0) == pytest.approx(first, abs=0.1)
    assert share_of_own(0.25) == pytest.approx(later, abs=0.12)
    assert share_of_own(0.5) == share_of_own(0.9) == 1.0
    assert task.loss(student.eval(), batch).total.item() == pytest.approx(plain, rel=1e-6)
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.requires_grad for weight in student.parameters())


def test_a_step_replaces_the_same_blocks_in_each_of_its_microbatches_and_others_than_the_next_step():
    teacher, batch = llama(4), batch_of()
    student = copy_blocks(teacher, "causal", [0, 3], seed=0).train()
    task = objective({"replacing": 1.0}, teacher)

    def losses(progress: float) -> set[float]:
        return {task.at(progress).loss(student, batch).total.item() for _ in range(5)}

    assert all(len(losses(step / 100)) == 1 for step in range(5))
    assert len(set().union(*(losses(step / 100) for step in range(20)))) == 4, "two blocks stand in four ways"


def test_replacing_teaches_blocks_that_the_teachers_own_blocks_lie_above():
    """The gradient passes through the frozen blocks."""
    teacher, batch = llama(4), batch_of()
    student = copy_blocks(teacher, "causal", [0, 3], seed=0)
    teacher.requires_grad_(False)
    with replaced(student, {1: list(teacher.model.layers[2:])}):
        student(batch["input_ids"]).logits.square().sum().backward()
    assert student.model.layers[0].self_attn.q_proj.weight.grad.abs().sum() > 0
    assert not student.model.layers[1].self_attn.q_proj.weight.grad.any()


def test_on_policy_beside_reverse_kl_is_the_mixture_of_gkd():
    teacher, student, batch = llama(4), llama(2, seed=1).train(), batch_of()

    def total(losses: dict[str, float]) -> float:
        torch.manual_seed(5)
        return objective(losses, teacher).loss(student, batch).total.item()

    mixed = total({"on_policy": 0.3, "reverse_kl": 0.7})
    assert mixed == pytest.approx(
        0.3 * total({"on_policy": 1.0}) + 0.7 * total({"reverse_kl": 1.0}), rel=1e-5
    )


def test_the_teacher_is_no_parameter_of_what_trains_nor_in_any_checkpoint(tmp_path):
    teacher = llama(4)
    student = copy_blocks(teacher, "causal", [0, 3], seed=0)
    before = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    trainer = Trainer(
        student, objective({"forward_kl": 1.0}, teacher), Rows("causal"), settings(), run=Run(tmp_path)
    )
    trainer.fit()
    assert {id(p) for p in trainer.module.parameters()} == {id(p) for p in student.parameters()}
    saved = (
        Checkpoints(tmp_path / "checkpoints", keep=2, identity=trainer.checkpoints.identity)
        .newest()
        .tensors("model")
    )
    assert saved.keys() == dict(student.named_parameters()).keys()
    assert all(torch.equal(before[name], weight) for name, weight in teacher.state_dict().items())


def test_the_teachers_passes_are_paid_for(tmp_path):
    def flops(losses: dict[str, float]) -> float:
        teacher = llama(4)
        student, folder = copy_blocks(teacher, "causal", [0, 3], seed=0), tmp_path / next(iter(losses))
        task = objective(losses, teacher)
        return Trainer(student, task, Rows("causal"), settings(num_steps=2), run=Run(folder)).fit().flops

    alone, taught = flops({"cross_entropy": 1.0}), flops({"forward_kl": 1.0})
    assert (
        1.3 < taught / alone < 1.8
    )  # a third of the student's three passes, times two for the depth, head aside
