"""What a student writes, and how a teacher reads it. A student's own text as a training batch: prompts kept,
samples labelled up to the end of text, fixed by the seed. Home of trainer.sampling."""

from __future__ import annotations

import pytest
import tiny_causal
import torch
from tiny_training import Rows, llama
from torch import Tensor

from adaptkit.distill.http_teacher import _document_spans
from adaptkit.distill.teacher import OnlineTeacher, check_answers
from adaptkit.errors import ModelError
from adaptkit.models.separation import kept_apart
from adaptkit.trainer.sampling import continued, left_padded, prompt_lengths, prompt_starts


def test_prompts_end_where_labels_begin_or_after_a_quarter():
    labels = torch.tensor([[-100, 5, 6, 7, 8, 9, 5, 6], [-100, -100, -100, 7, 8, -100, -100, -100]])
    assert prompt_lengths({"labels": labels}).tolist() == [2, 3]


def test_prompts_move_to_the_right_edge():
    ids = torch.tensor([[4, 5, 6, 7], [8, 9, 1, 2]])
    moved, mask = left_padded(ids, torch.tensor([0, 0]), torch.tensor([1, 3]), pad=0)
    assert moved.tolist() == [[0, 0, 4], [8, 9, 1]] and mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    moved, mask = left_padded(ids, torch.tensor([1, 0]), torch.tensor([3, 1]), pad=0)
    assert moved.tolist() == [[5, 6], [0, 8]] and mask.tolist() == [[1, 1], [0, 1]]


def test_a_prompt_begins_with_the_document_that_it_ends_in():
    positions = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 0, 1], [3, 0, 0, 0, 1, 2]])
    batch = {"input_ids": torch.zeros(3, 6, dtype=torch.int64), "position_ids": positions}
    assert prompt_starts(batch, torch.tensor([4, 4, 3])).tolist() == [0, 2, 2]
    assert prompt_starts({"input_ids": batch["input_ids"]}, torch.tensor([4, 4, 3])).tolist() == [0, 0, 0]


def test_what_a_model_does_when_asked_to_write_does_not_bend_what_it_learns_from():
    """A folder's generation_config may filter and penalise; samples for reverse KL are from the model
    itself."""
    model, batch = llama().train(), Rows("causal").collate([0, 1], seed=0, epoch=0)
    torch.manual_seed(3)
    plain = continued(model, batch)["input_ids"]
    model.generation_config.update(top_k=1, temperature=0.01, repetition_penalty=9.0, min_p=0.9)
    torch.manual_seed(3)
    assert torch.equal(continued(model, batch)["input_ids"], plain)
    assert model.generation_config.repetition_penalty == 9.0


def test_only_what_the_student_wrote_is_labelled_and_the_seed_decides_it():
    model, batch = llama().train(), Rows("causal").collate([0, 1, 2, 3], seed=0, epoch=0)
    torch.manual_seed(3)
    own = continued(model, batch)
    torch.manual_seed(3)
    again = continued(model, batch)
    assert all(torch.equal(value, again[name]) for name, value in own.items())
    length = int(prompt_lengths(batch).max())
    assert own["input_ids"].shape == batch["input_ids"].shape and model.training
    assert (own["labels"][:, :length] == -100).all() and (own["labels"][:, length] != -100).all()
    written = own["labels"][:, length:]
    for row, ids in zip(written, own["input_ids"][:, length:], strict=True):
        kept = row != -100
        ends = (ids == 0).nonzero().flatten()
        count = int(ends[0]) + 1 if len(ends) else len(ids)
        assert kept.sum() == count and torch.equal(row[kept], ids[:count])
    assert torch.equal(own["position_ids"].amax(1), own["attention_mask"].sum(1) - 1)


def test_a_padded_prompt_is_continued_as_it_would_be_alone():
    """Greedy here: the most likely continuation of a short prompt does not change beside a longer one."""
    model = llama().eval()
    ids = torch.tensor([[9, 12, 15, 18, 21, 24], [30, 33, 36, 39, 42, 45]])
    together, mask = left_padded(ids, torch.tensor([0, 0]), torch.tensor([2, 5]), pad=0)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.no_grad():
        alone = model(input_ids=ids[:1, :2]).logits[0, -1]
        beside = model(input_ids=together, attention_mask=mask, position_ids=positions).logits[0, -1]
    torch.testing.assert_close(alone, beside, rtol=1e-4, atol=1e-5)


def _read(teacher: OnlineTeacher, ids: Tensor, mask: Tensor, **others: Tensor) -> Tensor:
    batch = {"input_ids": ids, "attention_mask": mask, "labels": ids, **others}
    return teacher(batch, (), False).head.hidden_TE


UNPACKED = ["bloom", "mpt", "falcon, rope", "falcon, alibi", "gpt-oss", "mamba", "lfm2", "jamba", "minimax"]


@pytest.mark.parametrize("name", UNPACKED)
def test_a_teacher_that_cannot_be_packed_reads_a_document_alone_and_padded_alike(name: str) -> None:
    """As rows of one document have it (padding behind), and as a student's own text has it (before)."""
    model = tiny_causal.build(name, sharpness=1.0)
    assert kept_apart(model, "causal", 24, name) == "rows"
    teacher = OnlineTeacher(model, "causal")
    check_answers(teacher, "online", {"on_policy", "reverse_kl"})
    ids = torch.tensor([tiny_causal.tokens(10, torch.Generator().manual_seed(1))])
    ones, padding = torch.ones_like(ids), torch.zeros(1, 6, dtype=torch.int64)
    alone = _read(teacher, ids, ones)
    behind = _read(teacher, torch.cat([ids, padding], 1), torch.cat([ones, padding], 1))[:10]
    mask = torch.cat([padding, ones], 1)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    before = _read(teacher, torch.cat([padding, ids], 1), mask, position_ids=positions)[6:]
    for padded in (behind, before):
        torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "loss", "words"),
    [
        ("rwkv", "on_policy", "padding before a text changes what this teacher makes of it"),
        ("roberta, decoder", "on_policy", "padding before a text changes"),
        ("mamba", "attention", "no attention to copy in 2 of the teacher's 2 blocks"),
        ("lfm2", "attention", "no attention to copy in 2 of the teacher's 3 blocks"),
    ],
)
def test_what_a_teacher_cannot_be_asked_for_is_refused_before_anything_trains(name, loss, words):
    teacher = OnlineTeacher(tiny_causal.build(name, sharpness=1.0), "causal")
    if loss == "attention" and teacher.model._can_set_attn_implementation():
        teacher.model.set_attn_implementation("eager")
    with pytest.raises(ModelError, match=words) as caught:
        check_answers(teacher, "online", {loss}, range(len(teacher.blocks)))
    assert caught.value.where == f"losses.{loss}" and caught.value.fix
    check_answers(teacher, "online", {"forward_kl", "hidden"}, range(len(teacher.blocks)))


def test_an_error_inside_a_teacher_is_a_sentence_before_anything_trains(monkeypatch):
    teacher = OnlineTeacher(llama(), "causal")
    monkeypatch.setattr(teacher.model, "forward", None)
    monkeypatch.setattr("adaptkit.distill.teacher.head_inputs", lambda *_: 1 / 0)
    with pytest.raises(ModelError, match=r"cannot be a teacher by signal=int8: ZeroDivisionError"):
        check_answers(teacher, "int8", {"forward_kl"})


def test_a_server_is_asked_about_each_document_packed_or_alone_in_a_row():
    labels = torch.tensor([[-100, 5, 6, -100, 7, 8], [-100, 5, 6, -100, -100, -100]])
    packed = {"labels": labels, "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2]])}
    assert list(_document_spans(packed)) == [(0, 0, 3), (0, 3, 6), (1, 0, 3)]
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    assert list(_document_spans({"labels": labels, "attention_mask": mask})) == [(0, 0, 6), (1, 0, 3)]
