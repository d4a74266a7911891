"""Bases that learn to read longer texts, and scores by position. Home of models.stretching and
models.position_scores."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest
import torch
import transformers

from adaptkit import models
from adaptkit.architecture import SizeConfig
from adaptkit.data.readers import DataConfig
from adaptkit.errors import ConfigError
from adaptkit.models.position_scores import bands, position_scores
from adaptkit.models.stretching import Stretch, why_not
from adaptkit.pretrain.config import PretrainConfig, TokenizerConfig
from adaptkit.pretrain.recipe import PretrainResult, pretrain
from adaptkit.run import Run
from adaptkit.trainer.config import TrainerConfig

SHORT, LONG = 32, 128


@pytest.fixture(scope="module")
def long_text(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Documents of ten names in turn, in an order of their own: far positions are the easier ones."""
    rng, path = random.Random(0), tmp_path_factory.mktemp("long") / "text.jsonl"
    rows = []
    for _ in range(120):
        names = rng.sample(["ada", "bo", "cy", "di", "eva", "flo", "gus", "hal", "ivy", "jo", "kit"], 10)
        rows.append({"text": " ".join(names * 14)})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(files=[str(path)])


def trained(config: PretrainConfig, root: Path) -> PretrainResult:
    return pretrain(config, Run.open(root, config.name, config.model_dump(mode="json")))


def config_of(data: DataConfig, seq_len: int, num_steps: int, **fields: object) -> PretrainConfig:
    return PretrainConfig(
        data=data,
        dev_fraction=0.1,
        size=SizeConfig(params=150_000, seq_len=seq_len),
        tokenizer=TokenizerConfig(vocab_size=288),
        trainer=TrainerConfig(num_steps=num_steps, global_batch_size=8, threads=1, learning_rate=3e-3),
        **fields,
    )


@pytest.fixture(scope="module")
def base(long_text: DataConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was made for 32 tokens."""
    return trained(config_of(long_text, SHORT, 60), tmp_path_factory.mktemp("base")).model_folder


def test_a_stretched_base_learns_to_read_what_lies_beyond(long_text, base, tmp_path):
    result = trained(config_of(long_text, LONG, 30, base=str(base), stretch="yarn"), tmp_path)
    settings = json.loads((result.model_folder / "config.json").read_text())
    rope = settings["rope_parameters"]
    assert (settings["max_position_embeddings"], rope["rope_type"], rope["factor"]) == (LONG, "yarn", 4.0)
    assert rope["original_max_position_embeddings"] == SHORT
    assert models.load_tokenizer(result.model_folder).model_max_length >= LONG
    assert list(result.by_position) == ["0-16", "16-32", "32-64", "64-128"]
    assert all(scores["after"] < scores["before"] for scores in result.by_position.values())
    last, first = result.by_position["64-128"]["after"], result.by_position["0-16"]["after"]
    assert last < first, "what was read before helps"

    texts = [json.loads(line)["text"] for line in Path(long_text.files[0]).read_text().splitlines()[:3]]
    model, tokenizer = models.load(result.model_folder, "causal"), models.load_tokenizer(result.model_folder)
    plain = transformers.AutoModelForCausalLM.from_pretrained(result.model_folder, dtype=torch.float32)
    ids = torch.tensor([tokenizer(texts[0])["input_ids"][:LONG]])
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_linear_positions_are_divided(base):
    ids, positions = torch.arange(20, 20 + 24)[None], torch.arange(24)[None]
    seen = torch.ones_like(ids)  # without a mask, transformers takes gaps between positions for new documents
    stretched = models.load(base, "causal", stretch=Stretch("linear", LONG))
    before = models.load(base, "causal")(ids, seen, positions).logits
    torch.testing.assert_close(stretched(ids, seen, 4 * positions).logits, before, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(stretched(ids, seen, positions).logits, before, atol=1e-2)


def test_scores_by_position_are_those_of_transformers(base, long_text):
    texts = ["bo cy ada di", json.loads(Path(long_text.files[0]).read_text().splitlines()[0])["text"], ""]
    model, tokenizer = models.load(base, "causal"), models.load_tokenizer(base)
    found = position_scores(model, tokenizer, texts, seq_len=SHORT)
    nats, num_bytes = dict.fromkeys(bands(SHORT), 0.0), dict.fromkeys(bands(SHORT), 0.0)
    for text in texts[:2]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        row = torch.tensor([[tokenizer.bos_token_id, *ids][: SHORT + 1]])
        logits = model(input_ids=row[:, :-1]).logits[0].double().log_softmax(-1)
        for position, token in enumerate(row[0, 1:].tolist()):
            band = next((first, end) for first, end in nats if first <= position < end)
            nats[band] -= float(logits[position, token])
            num_bytes[band] += len(text.encode()) / len(ids)
    expected = {f"{a}-{b}": nats[a, b] / num_bytes[a, b] / math.log(2) for a, b in nats}
    assert found == pytest.approx(expected, rel=1e-4)
    assert list(position_scores(model, tokenizer, ["bo"], seq_len=SHORT)) == ["0-4"], "no text, no score"


@pytest.mark.parametrize("seq_len", [1, 2, 3, 8, 100, 4096])
def test_bands_hold_each_position_once(seq_len):
    held = [position for first, end in bands(seq_len) for position in range(first, end)]
    assert held == list(range(seq_len))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (transformers.LlamaConfig(), ""),
        (transformers.Qwen3Config(), ""),
        (transformers.GPTNeoXConfig(), ""),
        (transformers.GPT2Config(), "no rotations"),
        (transformers.BloomConfig(), "no rotations"),
        (transformers.Gemma3TextConfig(), "rotate in different ways"),
        (transformers.MistralConfig(sliding_window=64), "a window of the text"),
        (
            transformers.LlamaConfig(
                rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
            ),
            "scaled already (linear)",
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_which_positions_can_be_stretched(config, reason):
    assert reason in why_not(config) and bool(reason) == bool(why_not(config))


def test_a_stretch_that_changes_nothing_and_a_length_without_one_are_refused(base, long_text, tmp_path):
    for fields, seq_len, words in (
        ({"stretch": "yarn"}, SHORT, "reads 32 tokens as it is"),
        ({}, LONG, "128 tokens, and .* has 32 positions.*stretch=yarn"),
    ):
        with pytest.raises(ConfigError) as caught:
            trained(config_of(long_text, seq_len, 2, base=str(base), **fields), tmp_path)
        assert re.search(words, f"{caught.value.what} {caught.value.fix}")
