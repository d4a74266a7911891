"""What a cell of the model matrix is held against: plain transformers, peft and sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from peft import PeftModel
from sentence_transformers import SentenceTransformer

from adaptkit import models
from adaptkit.embed.encoder import Encoder
from adaptkit.finetune.choice_likelihood import score_choices
from adaptkit.finetune.frozen_answers import ForwardMeter
from adaptkit.finetune.probe import features
from adaptkit.run import Run, read_jsonl

CLOSE = {"rtol": 1e-3, "atol": 1e-4}
IDS = torch.arange(20, 40)[None]


def check_loads_as_saved(folder: Path, auto: Any) -> None:
    """transformers finds every weight of a folder, and computes what adaptkit does."""
    theirs, info = auto.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["mismatched_keys"]
    ours = models.load(folder, models.model_kind(folder)).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=IDS).logits, theirs.eval()(input_ids=IDS).logits, **CLOSE)


def check_answers(run: Run, texts: list[str], max_length: int) -> None:
    """A classifier's item rows are what transformers says of each text alone."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(run.model).eval()
    tokenizer = models.load_tokenizer(run.model)
    names = [model.config.id2label[number] for number in range(model.config.num_labels)]
    for row, text in list(zip(read_jsonl(run.items("task")), texts, strict=True))[:4]:
        batch = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
        ours = [row["probabilities"][name] for name in names]
        np.testing.assert_allclose(ours, logits.softmax(-1).numpy(), rtol=1e-3, atol=1e-4)


def check_adapter(run: Run, base: Path, classifies: bool) -> None:
    """peft's own adapter on transformers' own base gives what the merged model gives."""
    auto = hf.AutoModelForSequenceClassification if classifies else hf.AutoModelForCausalLM
    merged = auto.from_pretrained(run.model).eval()
    with torch.random.fork_rng():
        plain = auto.from_pretrained(base, id2label=merged.config.id2label)
    rows = merged.get_input_embeddings().num_embeddings
    if plain.get_input_embeddings().num_embeddings < rows:
        plain.resize_token_embeddings(rows)
    plain.config.pad_token_id = merged.config.pad_token_id
    adapted = PeftModel.from_pretrained(plain, run.adapter).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted(input_ids=IDS).logits, merged(input_ids=IDS).logits, **CLOSE)


def check_likelihoods(model: Any, tokenizer: Any) -> None:
    """Labels' log-probabilities are those of one plain pass for each text and label."""
    if not model.can_generate():
        return
    prefix, queries, choices = [20, 21, 22, 23], [[30, 31, 32, 33], [40, 41]], [[50], [51, 52], [53, 54, 55]]
    ours = score_choices(model, tokenizer, prefix, queries, choices).nats
    for query, nats in zip(queries, ours, strict=True):
        for choice, value in zip(choices, nats, strict=True):
            start = len(prefix) + len(query)
            with torch.no_grad():
                ids = torch.tensor([[*prefix, *query, *choice]])
                chances = model.eval()(input_ids=ids).logits[0].double().log_softmax(-1)
            plain = sum(chances[start - 1 + place, token] for place, token in enumerate(choice))
            np.testing.assert_allclose(value, float(plain), rtol=1e-4, atol=1e-4)


def check_features(model: Any, tokenizer: Any, folder: Path, texts: list[str]) -> None:
    """A probe's features are the mean of transformers' last hidden states of each text alone."""
    ours = features(model, tokenizer, texts, 40, ForwardMeter())
    plain = hf.AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(texts, ours, strict=True):
        ids = tokenizer(text, truncation=True, max_length=40, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = plain(input_ids=ids).last_hidden_state[0]
        np.testing.assert_allclose(vector, states.mean(0).numpy(), rtol=1e-3, atol=1e-4)


def check_vectors(folder: Path, texts: list[str]) -> None:
    """sentence-transformers makes the same vectors of a trained folder."""
    ours = Encoder.load(folder).encode(texts)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
