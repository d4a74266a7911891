"""Bits per byte: every token after BOS is charged once, with at least half a window of context, in the order
given."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_training import VOCAB, llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from adaptkit.errors import DataError, ModelError
from adaptkit.models.bits_per_byte import _windows, bits_per_byte, score_documents

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789 .\u00e9\u4e16"


def letters() -> PreTrainedTokenizerFast:
    """A tokenizer of one token per character; BOS is 0."""
    vocabulary = {"[BOS]": 0, "[UNK]": 1} | {letter: 2 + i for i, letter in enumerate(LETTERS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="[BOS]", unk_token="[UNK]")


def by_hand(model, ids: list[int], seq_len: int) -> float:
    """Sum of -log p of each token given as many tokens before it as the windows show it."""
    total = 0.0
    for position in range(1, len(ids)):
        window = next(w for w in _windows(0, ids, seq_len) if position in charged(w, ids))
        start = first_input(window, ids)
        with torch.no_grad():
            logits = model(torch.tensor([ids[start:position]])).logits[0, -1].double()
        total -= torch.log_softmax(logits, 0)[ids[position]].item()
    return total


def first_input(window, ids: list[int]) -> int:
    return next(i for i in range(len(ids)) if ids[i : i + len(window.inputs)] == window.inputs)


def charged(window, ids: list[int]) -> set[int]:
    start = first_input(window, ids)
    return {start + place + 1 for place, target in enumerate(window.targets) if target != -100}


@pytest.mark.parametrize("seq_len", [2, 3, 8, 9, 16])
@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 16, 17, 40])
def test_windows_charge_every_token_once_with_half_a_window_of_context(length, seq_len):
    ids = list(range(length + 1))  # BOS and `length` tokens, all different
    times = dict.fromkeys(range(1, length + 1), 0)
    for window in _windows(0, ids, seq_len):
        start = window.inputs[0]
        assert len(window.inputs) == len(window.targets) <= seq_len
        for place, target in enumerate(window.targets):
            if target != -100:
                assert target == start + place + 1
                assert place + 1 >= min(seq_len // 2, target), "less context than there was"
                times[target] += 1
    assert set(times.values()) == {1}


def test_scores_equal_those_made_by_hand_one_token_at_a_time():
    model, texts = (
        llama().eval(),
        ["abcdefghijklmnopqrstuvwxyz0123", "short", "x", "another one of 27 letters.."],
    )
    rows = score_documents(
        model, letters(), [(str(i), text) for i, text in enumerate(texts)], seq_len=8, batch_size=3
    )
    assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
    for row, text in zip(rows, texts, strict=True):
        ids = [0, *letters()([text], add_special_tokens=False)["input_ids"][0]]
        if len(set(ids)) == len(ids):  # the window finder above needs distinct tokens
            assert row["nats"] == pytest.approx(by_hand(model, ids, 8), rel=1e-5)
        assert row["num_tokens"] == len(text) and row["num_bytes"] == len(text)


def test_one_window_is_the_plain_loss_whatever_the_batch():
    model, documents = llama(), [("a", "hello world"), ("b", "bytes"), ("c", "longer than the others")]
    together = score_documents(model, letters(), documents, seq_len=64, batch_size=8)
    alone = [score_documents(model, letters(), [document], seq_len=64)[0] for document in documents]
    for row, single, (_, text) in zip(together, alone, documents, strict=True):
        ids = torch.tensor([[0, *letters()([text], add_special_tokens=False)["input_ids"][0]]])
        expected = model(input_ids=ids, labels=ids).loss.item() * len(text)
        assert row["nats"] == pytest.approx(expected, rel=1e-5) == pytest.approx(single["nats"], rel=1e-5)


def test_bytes_are_those_of_utf8_and_training_mode_is_kept():
    model = llama().train()
    rows = score_documents(model, letters(), [("a", "h\u00e9llo \u4e16"), ("empty", "")], seq_len=16)
    assert model.training
    assert rows[0]["num_bytes"] == 10 and rows[1] == {
        "id": "empty",
        "nats": 0.0,
        "num_bytes": 0,
        "num_tokens": 0,
        "lost_bytes": 0,
    }
    assert bits_per_byte(rows) == pytest.approx(rows[0]["nats"] / 10 / math.log(2))


def test_a_uniform_model_costs_the_logarithm_of_its_vocabulary():
    model = llama()
    torch.nn.init.zeros_(model.get_output_embeddings().weight)
    rows = score_documents(model, letters(), [("a", "x" * 100)], seq_len=16)
    assert bits_per_byte(rows) == pytest.approx(math.log2(VOCAB), rel=1e-5)


def test_no_text_and_no_first_token_are_said():
    with pytest.raises(DataError, match="no text to score"):
        bits_per_byte([])
    assert score_documents(llama(), letters(), [], seq_len=8) == []
    tokenizer = letters()
    tokenizer.bos_token = None
    with pytest.raises(ModelError, match="no BOS"):
        score_documents(llama(), tokenizer, [("a", "x")], seq_len=8)
