"""Frozen features do not depend on the batch, and the probe learns what the features hold. Home of
finetune.probe and finetune.frozen_answers."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, LlamaConfig, PreTrainedTokenizerFast

from adaptkit.data import Dataset, Row
from adaptkit.errors import DataError
from adaptkit.finetune.frozen_answers import ForwardMeter
from adaptkit.finetune.probe import features, probe_rows, strengths

WORDS = ["the", "some", "old", "apple", "pear", "iron", "zinc"]
NAMES = ["fruit", "metal"]
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def tokenizer():
    plain = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "[BOS]", *WORDS])}, unk_token="[UNK]")
    )
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="[PAD]", bos_token="[BOS]", unk_token="[UNK]"
    )


@pytest.fixture(scope="module", params=["causal", "encoder"])
def model(request):
    torch.manual_seed(0)
    if request.param == "causal":
        return AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=10, **SIZES))
    return AutoModel.from_config(BertConfig(vocab_size=10, pad_token_id=0, **SIZES))


def _dataset(count: int, seed: int) -> Dataset:
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        label = rng.choice(NAMES)
        word = rng.choice(WORDS[3:5] if label == "fruit" else WORDS[5:])
        text = " ".join([*rng.choices(WORDS[:3], k=rng.randint(1, 4)), word])
        rows.append(Row({"text": text, "label": label}, f"made.jsonl:{i + 1}", f"{seed}-{i}"))
    return Dataset(rows, "labelled", {"text": "text", "label": "label"})


def test_features_are_means_of_last_hidden_states_whatever_the_batch(model, tokenizer):
    texts = [row.values["text"] for row in _dataset(20, 0).rows]
    together = features(model, tokenizer, texts, 16, ForwardMeter())
    model.eval()
    for text, found in zip(texts, together, strict=True):
        with torch.no_grad():
            alone = model.base_model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert np.abs(found - alone.numpy()).max() < 1e-5
    cut = features(model, tokenizer, [texts[0] + " old" * 50], 16, ForwardMeter())
    assert np.array_equal(cut, features(model, tokenizer, [texts[0] + " old" * 90], 16, ForwardMeter()))


def test_probe_learns_chooses_on_dev_and_counts_its_cost(model, tokenizer):
    before = {name: p.clone() for name, p in model.named_parameters()}
    train, dev, test = _dataset(120, 1), _dataset(40, 2), _dataset(60, 3)
    outcome = probe_rows(model, tokenizer, train, dev, test, NAMES, trials=3)
    assert np.mean([row["prediction"] == row["label"] for row in outcome.rows]) > 0.95
    assert [row["id"] for row in outcome.rows] == [row.id for row in test.rows]
    assert len(outcome.trials) == 3 and outcome.dev["accuracy"] == max(t["accuracy"] for t in outcome.trials)
    assert outcome.chosen["C"] in strengths(3)
    assert outcome.cost["flops"] > 0 and outcome.cost["tokens"] >= 220 * 3
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert outcome.rows == probe_rows(model, tokenizer, train, dev, test, NAMES, trials=3).rows


def test_strengths_are_as_many_as_trials():
    assert (
        len(strengths(1)) == 1
        and strengths(3) == pytest.approx([0.01, 1.0, 100.0])
        and len(set(strengths(7))) == 7
    )


def test_label_unseen_in_training_is_refused(model, tokenizer):
    bad = _dataset(3, 4)
    bad.rows[2].values["label"] = "wood"
    with pytest.raises(DataError, match=r"made.jsonl:3: label 'wood'"):
        probe_rows(model, tokenizer, _dataset(9, 1), _dataset(3, 2), bad, NAMES)
