"""An encoder's vectors: the same alone, in a batch, after saving, cut, and as sentence-transformers computes
them. Home of embed.encoder, models.sentence.layout and models.sentence.pooling."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_embed
import torch

from adaptkit import models
from adaptkit.embed.encoder import Encoder, closed_by_eos
from adaptkit.errors import ModelError
from adaptkit.models.batching import batches_by_length
from adaptkit.models.sentence.layout import changed
from adaptkit.models.sentence.pooling import cut, pool

TEXTS = [*tiny_embed.texts(20), "one", " ".join(tiny_embed.texts(30)), "", "what of cheese 10"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {"bert": tiny_embed.bert(root / "bert"), "qwen": tiny_embed.qwen(root / "qwen")}


def test_pooling_is_its_definition():
    torch.manual_seed(0)
    hidden = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    torch.testing.assert_close(pool(hidden, mask, "mean")[1], hidden[1, :2].mean(0))
    torch.testing.assert_close(
        pool(hidden, mask, "last"), torch.stack([hidden[0, 4], hidden[1, 1], hidden[2, 0]])
    )
    torch.testing.assert_close(pool(hidden, mask, "cls"), hidden[:, 0])
    assert pool(hidden.bfloat16(), mask, "mean").dtype == torch.float32
    short = cut(hidden, 2)
    torch.testing.assert_close(short.norm(dim=-1), torch.ones(3, 5))
    torch.testing.assert_close(short[0, 0] * hidden[0, 0, :2].norm(), hidden[0, 0, :2])


@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("qwen", "last")])
def test_a_plain_folder_is_pooled_by_its_structure(folders, name, pooling):
    assert Encoder.load(folders[name]).layout.pooling == pooling


@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_a_vector_does_not_depend_on_its_batch(folders, name):
    encoder = Encoder.load(folders[name])
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-5
    assert np.array_equal(together, encoder.encode(TEXTS)), "the same twice, bit for bit"
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert encoder.num_tokens > 0 and encoder.flops > 0


def test_batches_hold_like_lengths_and_waste_nothing():
    lengths = np.random.default_rng(0).integers(3, 200, 300).tolist()
    batches = list(batches_by_length(lengths, 512))
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    padded = [len(batch) * max(lengths[i] for i in batch) for batch in batches]
    assert max(padded) <= 512 and sum(lengths) / sum(padded) > 0.97
    assert list(batches_by_length([900], 512)) == [[0]]


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("name", ["bert", "qwen"])
def test_sentence_transformers_agrees_at_every_size(folders, tmp_path, name, pooling):
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(folders[name])
    if pooling == "last" and name == "qwen":
        encoder.tokenizer = closed_by_eos(encoder.tokenizer)
    prompts = {"query": "find: ", "document": "text: "}
    encoder.layout = changed(
        encoder.layout, encoder.width, pooling=pooling, prompts=prompts, dimensions=(32, 16), max_length=24
    )
    encoder.save(tmp_path / "saved")
    loaded, theirs = (
        Encoder.load(tmp_path / "saved"),
        SentenceTransformer(str(tmp_path / "saved"), device="cpu"),
    )
    assert loaded.layout == encoder.layout
    texts = [text for text in TEXTS if text]
    for dimensions in (0, 16):
        for prompt in ("query", "document", ""):
            mine = loaded.encode(texts, prompt=prompt, dimensions=dimensions)
            cut_to = {"truncate_dim": dimensions, "normalize_embeddings": True} if dimensions else {}
            found = theirs.encode(texts, prompt=prompts.get(prompt, ""), show_progress_bar=False, **cut_to)
            assert mine.shape == found.shape and (mine * found).sum(1).min() > 1 - 1e-5


def test_a_saved_decoder_still_closes_its_texts(folders, tmp_path):
    encoder = Encoder.load(folders["qwen"])
    assert encoder.tokens(["a text"])[0][-1] != encoder.tokenizer.eos_token_id, "nothing that its files lack"
    encoder.tokenizer = closed_by_eos(encoder.tokenizer)
    encoder.limit(8)
    encoder.save(tmp_path / "saved")
    tokenizer = models.load_tokenizer(tmp_path / "saved")
    assert tokenizer("a text")["input_ids"][-1] == tokenizer.eos_token_id
    long = Encoder.load(tmp_path / "saved").tokens(["word " * 40])[0]
    assert len(long) == 8 and long[-1] == tokenizer.eos_token_id


def test_the_files_are_those_that_servers_read(folders, tmp_path):
    encoder = Encoder.load(folders["bert"])
    encoder.layout = changed(encoder.layout, encoder.width, dimensions=(32, 8), max_length=40)
    encoder.save(tmp_path / "saved")
    read = {
        path: json.loads((tmp_path / "saved" / path).read_text())
        for path in ("modules.json", "1_Pooling/config.json", "config.json")
    }
    assert [m["type"].rpartition(".")[2] for m in read["modules.json"]] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert (
        read["1_Pooling/config.json"]["pooling_mode_mean_tokens"]
        and not read["1_Pooling/config.json"]["pooling_mode_cls_token"]
    )
    assert read["config.json"]["matryoshka_dimensions"] == [32, 8]
    assert json.loads((tmp_path / "saved/sentence_bert_config.json").read_text())["max_seq_length"] == 40


def test_a_folder_of_the_newest_sentence_transformers_is_read(folders, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(folders["bert"])
    encoder.save(tmp_path / "ours")
    theirs = SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    theirs.save(str(tmp_path / "theirs"))
    assert "pooling_mode" in json.loads((tmp_path / "theirs/1_Pooling/config.json").read_text())
    assert np.allclose(Encoder.load(tmp_path / "theirs").encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    ("file", "change", "match"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "median"}, "pooling 'median' is not supported"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "median"]}, "pooling 'median' is not supported"),
    ],
)
def test_layouts_that_are_not_supported_are_refused(folders, tmp_path, file, change, match):
    Encoder.load(folders["bert"]).save(tmp_path / "saved")
    path = tmp_path / "saved" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelError, match=match):
        Encoder.load(tmp_path / "saved")


def test_unknown_prompts_and_sizes_are_told(folders):
    encoder = Encoder.load(folders["bert"])
    with pytest.raises(ModelError, match="no prompt named 'query'"):
        encoder.encode(["a"], prompt="query")
    with pytest.raises(ModelError, match="32 dimensions"):
        encoder.encode(["a"], dimensions=64)
    assert encoder.encode([]).shape == (0, 32)


def test_the_digest_is_of_everything_that_decides_a_vector(folders, tmp_path):
    encoder = Encoder.load(folders["bert"])
    encoder.save(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, same = (Encoder.load(tmp_path / name).digest for name in ("one", "two"))
    assert first == same
    pooling = tmp_path / "two/1_Pooling/config.json"
    pooling.write_text(
        pooling.read_text().replace("true", "TRUE").replace("false", "true").replace("TRUE", "true")
    )
    from adaptkit.run import model_digest

    assert model_digest(tmp_path / "two") != first
