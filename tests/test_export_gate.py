"""The gate: what is compared, what is refused, and what may be lost."""

from __future__ import annotations

import math

import pytest
import torch

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.export.formats import FORMATS
from adaptkit.export.parity.answers import Answers
from adaptkit.export.parity.gate import Check, Limits, compare, merge_checks, refuse, token_checks
from adaptkit.run import Run

BF16, FP32, INT8 = FORMATS["bf16"], FORMATS["fp32"], FORMATS["int8"]


def generated(
    bpb: float = 1.0, nudge: float = 0.0, tokens: tuple[int, ...] = (1, 2, 3), **scores: float
) -> Answers:
    return Answers(
        [list(tokens)], torch.tensor([-1.0, -2.0 + nudge], dtype=torch.float64), bpb, scores=scores
    )


def passed(checks: list[Check]) -> bool:
    return all(check.ok for check in checks)


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.ok]


def test_float32_must_be_equal_and_others_may_lose_what_is_stated() -> None:
    limits = Limits.of(FP32, None, None)
    assert passed(compare(generated(), generated(), limits))
    assert failed(compare(generated(), generated(nudge=1e-4), limits)) == [
        "largest change of a token's log-probability, nats"
    ]
    assert failed(compare(generated(), generated(tokens=(1, 2, 4)), limits)) == [
        "greedy tokens that differ, share"
    ]
    assert failed(compare(generated(), generated(tokens=(1, 2)), limits)) == [
        "greedy tokens that differ, share"
    ]
    assert passed(compare(generated(), generated(1.004, 0.1, (1, 2, 4)), Limits.of(BF16, None, None)))
    assert failed(compare(generated(), generated(1.006), Limits.of(BF16, None, None))) == ["bits per byte"]
    assert passed(compare(generated(), generated(1.3), Limits.of(INT8, 0.5, None)))
    assert passed(compare(generated(), generated(0.5), Limits.of(INT8, 0.0, None))), "a gain is no loss"


def test_one_item_may_flip_unless_the_user_states_a_limit() -> None:
    before, after = generated(accuracy=0.80), generated(accuracy=0.76)
    assert passed(compare(before, after, Limits.of(INT8, None, None), num_items=25))
    assert failed(compare(before, after, Limits.of(INT8, None, None), num_items=200)) == ["accuracy"]
    assert failed(compare(before, after, Limits.of(INT8, None, 0.01), num_items=25)) == ["accuracy"]
    assert failed(compare(before, after, Limits.of(FP32, None, None), num_items=25)) == ["accuracy"]


def test_only_the_first_score_decides() -> None:
    before, after = generated(accuracy=0.8, macro_f1=0.8), generated(accuracy=0.8, macro_f1=0.1)
    assert passed(compare(before, after, Limits.of(INT8, None, 0.01), num_items=25))
    swapped = generated(macro_f1=0.8, accuracy=0.8)
    assert failed(compare(swapped, after, Limits.of(INT8, None, 0.01), num_items=25)) == ["macro_f1"]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_no_number_never_passes(broken: float) -> None:
    assert failed(compare(generated(), generated(broken), Limits.of(INT8, None, None))) == ["bits per byte"]


def test_classifiers_without_items_are_held_to_their_predictions() -> None:
    outputs = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    flipped = outputs.clone()
    flipped[:4] = flipped[:4].roll(1, 1)
    limits = Limits.of(INT8, None, None)
    assert passed(compare(Answers(outputs=outputs), Answers(outputs=outputs + 0.1), limits))
    assert failed(compare(Answers(outputs=outputs), Answers(outputs=flipped), limits)) == [
        "predictions that differ, share"
    ]
    moved = compare(Answers(outputs=outputs), Answers(outputs=outputs + 0.1), Limits.of(FP32, None, None))
    assert failed(moved) == ["largest change of a logit, relative to the largest"]


def test_rerankers_are_held_to_the_order_of_their_scores() -> None:
    scores = torch.linspace(-4, 4, 20, dtype=torch.float64)[:, None]
    limits, name = Limits.of(INT8, None, None), "correlation of scores with the source's"
    before = Answers(outputs=scores)
    assert passed(compare(before, Answers(outputs=0.9 * scores + 0.5), limits)), "the order is what counts"
    for broken in (
        scores.flip(0),
        scores.roll(5, 0),
        torch.zeros_like(scores),
        torch.full_like(scores, math.nan),
    ):
        assert failed(compare(before, Answers(outputs=broken), limits)) == [name]
    assert failed(compare(Answers(outputs=scores * math.nan), before, limits)) == [name]
    assert failed(compare(before, Answers(outputs=0.9 * scores), Limits.of(FP32, None, None)))
    same = torch.ones_like(scores)
    assert passed(compare(Answers(outputs=same), Answers(outputs=1.01 * same), limits)), (
        "it tells no texts apart"
    )


def test_embeddings_are_held_to_their_cosine() -> None:
    vectors = torch.nn.functional.normalize(
        torch.randn(8, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    near, far = (
        torch.nn.functional.normalize(vectors + scale * torch.roll(vectors, 1, 0), dim=-1)
        for scale in (0.05, 0.3)
    )
    before = Answers(vectors=vectors)
    assert passed(compare(before, Answers(vectors=near), Limits.of(INT8, None, None)))
    assert not passed(compare(before, Answers(vectors=near), Limits.of(BF16, None, None))), (
        "0.999 in floating point"
    )
    assert not passed(compare(before, Answers(vectors=far), Limits.of(INT8, None, None)))


def test_a_merge_that_moves_anything_is_seen() -> None:
    assert passed(merge_checks(generated(), generated(nudge=5e-6)))
    assert not passed(merge_checks(generated(), generated(nudge=1e-3)))
    assert not passed(merge_checks(generated(), generated(tokens=(1, 9, 3))))
    logits = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    assert passed(merge_checks(Answers(outputs=logits), Answers(outputs=logits + 1e-6)))
    assert not passed(merge_checks(Answers(outputs=logits), Answers(outputs=logits + 1e-3)))


def test_the_refusal_names_the_figure_its_change_and_what_to_do() -> None:
    checks = compare(generated(), generated(1.5), Limits.of(INT8, None, None))
    with pytest.raises(
        ModelError,
        match=r"int8 export .* bits per byte: 1.0000 became 1.5000; a loss of 0.5, 0.02 is allowed",
    ) as refused:
        refuse(checks, "int8", "here", "parity.json")
    assert "--max-loss-bpb" in refused.value.fix and "parity.json" in refused.value.fix
    assert refused.value.where == "here" and "more)" not in refused.value.what
    worse = compare(generated(accuracy=0.9), generated(1.5, accuracy=0.2), Limits.of(INT8, None, None), 40)
    with pytest.raises(ModelError, match=r"bits per byte: .* \(and 1 more\)"):
        refuse(worse, "int8", "here", "parity.json")
    refuse(compare(generated(), generated(), Limits.of(INT8, None, None)), "int8", "here", "parity.json")


def test_a_figure_is_shown_with_its_limit() -> None:
    assert (
        str(Check("accuracy", 0.8, 0.75, 0.05, 0.01))
        == "accuracy: 0.8000 -> 0.7500, loss 0.05 of 0.01 allowed"
    )
    assert str(Check("far", None, None, 0.5, None)) == "far: loss 0.5"
    as_json = Check("far", None, None, 0.5, None).as_json()
    assert as_json == {"name": "far", "before": None, "after": None, "loss": 0.5, "limit": None, "ok": True}


def test_a_tokenizer_that_changed_doubles_bos_or_prompts_otherwise_is_seen(
    notes: Run, tiny_text: list[str]
) -> None:
    from tokenizers.processors import TemplateProcessing

    def fresh():
        return models.load_tokenizer(notes.model)

    texts = tiny_text[:5]
    assert passed(token_checks(fresh(), fresh(), texts))
    doubled = fresh()
    bos = doubled.bos_token
    doubled.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} {bos} $A", special_tokens=[(bos, doubled.bos_token_id)]
    )
    assert "texts that begin with more than one BOS" in failed(token_checks(doubled, doubled, texts))
    assert "texts that get other token ids" in failed(token_checks(fresh(), doubled, texts))
    reworded = fresh()
    reworded.chat_template = str(reworded.chat_template).replace("user", "human") + "!"
    assert failed(token_checks(fresh(), reworded, texts)) == ["chat prompt: text, token ids, or a second BOS"]
    refusing = fresh()
    refusing.chat_template = "{{ undefined.x }}"
    assert passed(token_checks(refusing, refusing, texts)), "it never wrote a prompt"
    assert failed(token_checks(fresh(), refusing, texts)) == ["chat prompt: text, token ids, or a second BOS"]
