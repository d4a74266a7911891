"""Likelihoods, greedy answers and packed losses of many architectures against plain forward passes of
transformers. Home of finetune.causal_likelihood and models.attention_masks."""

from __future__ import annotations

import logging

import pytest
import tiny_causal
import torch

from adaptkit.errors import ModelError
from adaptkit.finetune import causal_likelihood
from adaptkit.finetune.choice_likelihood import score_choices
from adaptkit.finetune.generation import generate
from adaptkit.models import packed
from adaptkit.models.separation import kept_apart, separation
from adaptkit.trainer.objective import CausalLM

NAMES = list(tiny_causal.CONFIGS)


def plain_logits(model, ids):
    """Of one row alone; rotations that an earlier long row has changed are set back first."""
    with torch.no_grad():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long))
        return model(input_ids=torch.tensor([ids])).logits[0].double()


def plain_nats(model, before, choice):
    chances = plain_logits(model, [*before, *choice]).log_softmax(-1)
    return sum(float(chances[len(before) - 1 + i, token]) for i, token in enumerate(choice))


def difference(model, num_prefix, num_query):
    draw = torch.Generator().manual_seed(num_prefix)
    prefix = tiny_causal.tokens(num_prefix, draw)
    queries = [tiny_causal.tokens(n, draw) for n in (num_query, num_query // 2, num_query // 2 + 1)]
    choices = [tiny_causal.tokens(n, draw) for n in (1, 3, 2)]
    expected = [[plain_nats(model, prefix + query, choice) for choice in choices] for query in queries]
    found = score_choices(model, None, prefix, queries, choices)
    return abs(torch.tensor(found.nats) - torch.tensor(expected)).max()


@pytest.mark.parametrize("name", NAMES)
def test_likelihoods_equal_plain_forward_passes_within_and_beyond_windows(name):
    model = tiny_causal.build(name)
    for num_prefix, num_query in ((0, 6), (8, 6), (60, 40), (0, 90)):
        assert difference(model, num_prefix, num_query) < 1e-5


@pytest.mark.parametrize("name", ["lfm2", "jamba", "bamba", "mamba 2", "minimax", "mpt", "bloom"])
def test_weak_states_and_biases_are_not_passed_over(name):
    assert difference(tiny_causal.build(name, sharpness=1.0), 8, 6) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_the_prefix_is_shared_where_that_is_exact_and_a_sentence_says_where_not(name, caplog):
    model = tiny_causal.build(name)
    with caplog.at_level(logging.WARNING), torch.inference_mode():
        for _ in range(2):
            way = causal_likelihood._exact_way(model, [3, 4, 5], [[7] * 30, [8]], [[9], [9, 10]])
    assert (way is causal_likelihood._side_by_side) == (name in tiny_causal.SHARED)
    said = [record for record in caplog.records if "cannot share a prefix exactly" in record.message]
    assert len(said) == (name not in tiny_causal.SHARED), "once for a model, not for each call"


@pytest.mark.parametrize("name", ["llama", "mistral", "mamba", "recurrent gemma", "minimax", "rwkv", "lfm2"])
def test_answers_in_a_batch_are_those_of_each_prompt_alone(name):
    class Tokenizer:
        pad_token_id, eos_token_id = 0, None

    model, draw = tiny_causal.build(name), torch.Generator().manual_seed(1)
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    prompts = [tiny_causal.tokens(n, draw) for n in (6, 3, 20, 41)]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + 5:
            ids.append(int(plain_logits(model, ids)[-1].argmax()))
        expected.append(ids[len(prompt) :])
    assert generate(model, Tokenizer(), prompts, 5) == expected


@pytest.mark.parametrize("sharpness", [3.0, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_packed_rows_have_the_loss_of_their_documents_or_are_refused(name, sharpness):
    model, objective, length = tiny_causal.build(name, sharpness), CausalLM(), 24
    try:
        separate = kept_apart(model, "causal", length, name)
    except ModelError as error:
        assert "see each other" in str(error) or "scales or caps" in str(error)
        return
    if separate == "rows":  # of one document each: tests/test_data_packing.py
        return
    for bounds in ([0, 5, 21, 24], [0, 12, 15, 24], [0, 23, 24], [0, 3, 7, 12, 20, 24]):
        ids = torch.tensor(tiny_causal.tokens(length, torch.Generator().manual_seed(1)))
        positions = torch.cat([torch.arange(b - a) for a, b in zip(bounds, bounds[1:], strict=False)])
        labels = ids.masked_fill(positions == 0, -100)
        batch = {"input_ids": ids[None], "position_ids": positions[None], "labels": labels[None]}
        alone = -sum(
            plain_nats(model, ids[a : a + 1].tolist(), ids[a + 1 : b].tolist())
            for a, b in zip(bounds, bounds[1:], strict=False)
            if b > a + 1
        )
        together = objective.loss(model, objective.prepare(batch)).total
        assert together.item() == pytest.approx(alone, rel=1e-5)
    packed.leave(model)


@pytest.mark.parametrize("name", ["llama 4", "phi3, long rope", "lfm2", "mamba", "bloom", "falcon, alibi"])
def test_what_leaks_between_documents_is_found_even_where_only_long_ones_show_it(name):
    length = 80 if "rope" in name else 24
    assert separation(tiny_causal.build(name, sharpness=1.0), "causal", length) == "rows"
    if "rope" not in name:  # padding changes nothing there: rows of one document each
        assert kept_apart(tiny_causal.build(name, sharpness=1.0), "causal", length, name) == "rows"
        return
    with pytest.raises(ModelError, match="see each other"):
        kept_apart(tiny_causal.build(name, sharpness=1.0), "causal", length, name)
