"""Label likelihoods against one-by-one scoring, calibration, and the choice of a format on dev. Home of
finetune.choice_likelihood, finetune.prompt_template, finetune.prompted_answers and
finetune.prompted_labels."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from adaptkit.data import Dataset, Row
from adaptkit.errors import DataError
from adaptkit.finetune.choice_likelihood import score_choices
from adaptkit.finetune.prompt_template import opening, question_and_answer
from adaptkit.finetune.prompted_answers import answer_rows
from adaptkit.finetune.prompted_labels import calibrate, prompt_rows

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
CAUSAL = {
    "llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16, num_key_value_heads=2),
    "neox": lambda: GPTNeoXConfig(**SIZES),
}
QUERIES = [[4, 5, 6], [7], [9, 10, 11, 12, 13, 20, 21]]
CHOICES = [[3], [3, 4], [30, 31, 32], [30, 40]]


@pytest.mark.parametrize("prefix", [[1, 5, 9, 8], []])
@pytest.mark.parametrize("family", list(CAUSAL))
def test_shared_prefix_and_side_by_side_choices_equal_scoring_one_by_one(family, prefix):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CAUSAL[family]())
    found = score_choices(model, None, prefix, QUERIES, CHOICES)
    model.eval()
    for i, query in enumerate(QUERIES):
        for j, choice in enumerate(CHOICES):
            with torch.no_grad():
                chances = model(input_ids=torch.tensor([prefix + query + choice])).logits[0].log_softmax(-1)
            start = len(prefix) + len(query) - 1
            assert found.nats[i, j] == pytest.approx(
                sum(float(chances[start + k, t]) for k, t in enumerate(choice)), abs=1e-4
            )
    assert found.tokens_read < sum(len(prefix) + len(q) + len(c) for q in QUERIES for c in CHOICES)
    assert np.allclose(found.scores(True) * [1, 2, 3, 2], found.nats)


def test_masked_model_scores_labels_at_mask_positions():
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(BertConfig(**SIZES, pad_token_id=0)).eval()
    tokenizer = _tokenizer(["a"], masked=True)
    mask, cls, sep = tokenizer.mask_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id
    found = score_choices(model, tokenizer, [cls, 8, 9], QUERIES, CHOICES)
    for i, query in enumerate(QUERIES):
        for j, choice in enumerate(CHOICES):
            ids = [cls, 8, 9, *query, *[mask] * len(choice), sep]
            with torch.no_grad():
                chances = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            place = 3 + len(query)
            assert found.nats[i, j] == pytest.approx(
                sum(float(chances[place + k, t]) for k, t in enumerate(choice)), abs=1e-4
            )


def test_calibration_takes_out_what_the_model_says_to_an_empty_text():
    bias = np.array([2.0, 0.0, -1.0])
    evidence = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.5]])
    scores = np.concatenate([np.tile(bias, (3, 1)), evidence + bias])
    assert calibrate(scores, 3).argmax(1).tolist() == [1, 2]
    assert np.allclose(calibrate(scores, 3), np.exp(evidence) / np.exp(evidence).sum(1, keepdims=True))


def _tokenizer(words: list[str], masked: bool = False) -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if masked else ["[PAD]", "[UNK]", "[BOS]", "[EOS]"]
    vocabulary = {name: i for i, name in enumerate([*names, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if masked:
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
        frame, places = "[CLS] $A [SEP]", [("[CLS]", 2), ("[SEP]", 3)]
    else:
        special |= {"bos_token": "[BOS]", "eos_token": "[EOS]"}
        frame, places = "[BOS] $A", [("[BOS]", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=places)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def _dataset(count: int, seed: int) -> Dataset:
    rng = random.Random(seed)
    cues = {"fruit": ["apple", "pear", "plum"], "metal": ["iron", "zinc", "tin"]}
    rows = []
    for i in range(count):
        label = rng.choice(sorted(cues))
        text = " ".join([*rng.choices(["the", "some", "old"], k=rng.randint(1, 5)), rng.choice(cues[label])])
        rows.append(Row({"text": text, "label": label}, f"made.jsonl:{i + 1}", f"{seed}-{i}"))
    return Dataset(rows, "labelled", {"text": "text", "label": "label"})


WORDS = [
    "the",
    "some",
    "old",
    "apple",
    "pear",
    "plum",
    "iron",
    "zinc",
    "tin",
    "fruit",
    "metal",
    "Label",
    "Text",
    "This",
    "is",
    ":",
]


@pytest.fixture(scope="module")
def taught():
    """A tiny Llama that has read `text \\nLabel: label` many times, so that prompting it works."""
    tokenizer = _tokenizer(WORDS)
    torch.manual_seed(0)
    config = LlamaConfig(**{**SIZES, "vocab_size": len(tokenizer)}, max_position_embeddings=128)
    model = AutoModelForCausalLM.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    texts = [f"{row.values['text']}\nLabel: {row.values['label']}" for row in _dataset(64, seed=5).rows]
    for step in range(60):
        batch = tokenizer(texts[step % 4 :: 4], padding=True, padding_side="right", return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(input_ids=batch["input_ids"], labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def test_prompt_arm_reads_labels_off_a_model_that_knows_them(taught):
    model, tokenizer = taught
    assert opening(tokenizer) == [tokenizer.bos_token_id]
    train, dev, test = _dataset(40, 1), _dataset(30, 2), _dataset(50, 3)
    outcome = prompt_rows(model, tokenizer, train, dev, test, ["fruit", "metal"], trials=12, seed=0)
    assert np.mean([row["prediction"] == row["label"] for row in outcome.rows]) > 0.9
    assert [row["id"] for row in outcome.rows] == [row.id for row in test.rows]
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in outcome.rows)
    assert len(outcome.trials) == 12 and outcome.dev["accuracy"] == max(
        trial["accuracy"] for trial in outcome.trials
    )
    assert outcome.cost["flops"] > 0 and outcome.cost["tokens"] > 0
    again = prompt_rows(model, tokenizer, train, dev, test, ["fruit", "metal"], trials=12, seed=0)
    assert again.rows == outcome.rows
    # batched answers are those of each text alone
    alone = prompt_rows(
        model, tokenizer, train, dev, test.with_rows(test.rows[:1]), ["fruit", "metal"], trials=12, seed=0
    )
    assert alone.rows[0]["prediction"] == outcome.rows[0]["prediction"]
    assert alone.rows[0]["probabilities"]["fruit"] == pytest.approx(
        outcome.rows[0]["probabilities"]["fruit"], abs=1e-5
    )


def test_long_texts_and_many_shots_are_cut_to_the_context(taught):
    model, tokenizer = taught
    long = _dataset(20, 4)
    long = long.with_rows(
        Row({**r.values, "text": r.values["text"] + " old" * 300}, r.where, r.id) for r in long.rows
    )
    outcome = prompt_rows(model, tokenizer, long, long, long, ["fruit", "metal"], trials=5, seed=0)
    assert len(outcome.rows) == 20


def test_masked_model_is_prompted_too():
    tokenizer = _tokenizer(WORDS, masked=True)
    assert opening(tokenizer) == [tokenizer.cls_token_id]
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(
        BertConfig(**{**SIZES, "vocab_size": len(tokenizer)}, max_position_embeddings=128)
    )
    outcome = prompt_rows(
        model, tokenizer, _dataset(20, 1), _dataset(10, 2), _dataset(10, 3), ["fruit", "metal"], trials=2
    )
    assert len(outcome.rows) == 10 and model.training


def test_a_label_outside_the_names_is_refused_with_its_line(taught):
    model, tokenizer = taught
    bad = _dataset(3, 1)
    bad.rows[1].values["label"] = "wood"
    with pytest.raises(DataError, match=r"made.jsonl:2: label 'wood'"):
        prompt_rows(model, tokenizer, _dataset(9, 1), bad, _dataset(3, 3), ["fruit", "metal"])


def test_free_text_is_answered_in_the_format_that_wins_on_dev(taught):
    model, tokenizer = taught

    def asked(count, seed):
        data = _dataset(count, seed)
        rows = [
            Row({"prompt": r.values["text"], "completion": r.values["label"]}, r.where, r.id)
            for r in data.rows
        ]
        return Dataset(rows, "sft", {})

    def score(rows):
        return {
            "starts_right": float(np.mean([row["prediction"].startswith(row["reference"]) for row in rows]))
        }

    splits = asked(20, 1), asked(12, 2), asked(15, 3)
    outcome = answer_rows(
        model, tokenizer, *splits, score=score, metric="starts_right", trials=3, max_new_tokens=3
    )
    assert len(outcome.rows) == 15 and len(outcome.trials) == 3 and outcome.cost["tokens"] > 0
    assert outcome.dev["starts_right"] == max(trial["starts_right"] for trial in outcome.trials)
    assert [row["reference"] for row in outcome.rows] == [row.values["completion"] for row in splits[2].rows]
    with pytest.raises(DataError, match=r"here:3"):
        question_and_answer(Row({"text": "no answer"}, "here:3", "x"))
