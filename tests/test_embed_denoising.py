"""TSDAE: what is deleted, that a text reaches its decoder through the vector alone, and that it teaches
without pairs. Home of embed.tsdae."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import tiny_embed
import torch
from tiny_embed import gradients, relative_error

from adaptkit import data, models
from adaptkit.adapters import AdapterConfig
from adaptkit.embed import tsdae
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.examples import Examples, in_pieces, pieces
from adaptkit.embed.objective import PooledModel
from adaptkit.embed.recipe import embed
from adaptkit.embed.rows import Example
from adaptkit.embed.start import _attached
from adaptkit.embed.tsdae import Denoising, NoisyTexts, decoder_of
from adaptkit.errors import ConfigError
from adaptkit.models.sentence.pooling import pool
from adaptkit.run import Run, read_jsonl

BASES = ("bert", "modernbert", "qwen")
TOPICS, WORDS = 8, 16


def modernbert(folder: Path, corpus: list[str] | None = None) -> Path:
    """A random ModernBERT, whose class has no cross-attention."""
    from transformers import ModernBertConfig

    tokenizer = data.train_tokenizer(corpus or tiny_embed.texts(), "wordpiece", 256, masked=True)
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    models.save(models.build(config, "encoder", seed=0), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("denoising")
    made = {"bert": tiny_embed.bert(root / "bert"), "qwen": tiny_embed.qwen(root / "qwen")}
    return made | {"modernbert": modernbert(root / "modernbert")}


def source(encoder: Encoder, texts: list[str]) -> NoisyTexts:
    return NoisyTexts([Example((text, text), f"t.jsonl:{i}") for i, text in enumerate(texts)], encoder, "")


def test_six_in_ten_tokens_go_and_the_frame_stays(folders):
    encoder = Encoder.load(folders["bert"])
    noisy = source(encoder, [" ".join(tiny_embed.texts(40)), "one"])
    whole = noisy._ids[0]
    left = [noisy.left_of(0, 0, epoch) for epoch in range(200)]
    assert all(ids[0] == whole[0] and ids[-1] == whole[-1] for ids in left)
    share = sum(len(ids) - 2 for ids in left) / 200 / (len(whole) - 2)
    assert share == pytest.approx(1 - tsdae.DELETED, abs=0.03)
    rest = iter(whole)
    assert all(token in rest for token in left[0]), "what is left keeps its order"
    assert left[0] == noisy.left_of(0, 0, 0) and left[0] != left[1] and left[0] != noisy.left_of(0, 1, 0)
    assert all(len(noisy.left_of(1, 0, epoch)) > 2 for epoch in range(20)), "one token stays in any case"


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("base", BASES)
def test_the_decoder_learns_of_a_text_through_its_vector_alone(folders, base, pooling):
    """The states' gradient is the vector's, spread as pooling spreads it; a decoder with its own weights is
    left to its vector."""
    encoder = Encoder.load(folders[base])
    decoder, objective = decoder_of(encoder, seed=0).eval(), Denoising(pooling)
    batch = source(encoder, tiny_embed.texts(6)).collate(list(range(6)), seed=0, epoch=0)
    assert len([name for name in batch if name.endswith("labels")]) == 1
    states = {}

    def keep(_module, _inputs, output):
        states["all"] = output.last_hidden_state
        states["all"].retain_grad()

    encoder.model.register_forward_hook(keep)
    objective.loss(PooledModel(encoder.model, decoder), batch).total.backward()
    mask_BT = batch["00.attention_mask"]
    vectors_BD = pool(states["all"].detach(), mask_BT, pooling).requires_grad_()
    objective.restore(decoder, vectors_BD, batch["00.labels"]).backward()
    places_BT = {
        "mean": mask_BT / mask_BT.sum(1, keepdim=True),
        "cls": torch.zeros_like(mask_BT).index_fill(1, torch.tensor([0]), 1),
        "last": torch.nn.functional.one_hot(mask_BT.sum(1) - 1, mask_BT.shape[1]),
    }[pooling]
    wanted = places_BT[..., None].float() * vectors_BD.grad[:, None]
    torch.testing.assert_close(states["all"].grad, wanted, rtol=1e-4, atol=1e-6)
    assert vectors_BD.grad.abs().max() > 0


def test_weights_are_shared_as_far_as_the_architecture_goes(folders):
    encoder = Encoder.load(folders["bert"])
    decoder = decoder_of(encoder, seed=0)
    theirs = dict(encoder.model.named_parameters())
    mine = dict(decoder.base_model.named_parameters())
    shared = {name for name in mine if name in theirs and mine[name] is theirs[name]}
    assert shared == {name for name in theirs if "pooler" not in name}
    assert all("crossattention" in name for name in mine.keys() - shared)
    assert decoder.get_output_embeddings().weight is encoder.model.get_input_embeddings().weight
    for base in ("modernbert", "qwen"):
        encoder = Encoder.load(folders[base])
        decoder = decoder_of(encoder, seed=0)
        embeddings = encoder.model.get_input_embeddings().weight
        assert (
            decoder.get_input_embeddings().weight is embeddings
            and decoder.get_output_embeddings().weight is embeddings
        )
        again = decoder_of(Encoder.load(folders[base]), seed=0)
        assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), again.parameters(), strict=True))


def test_an_adapter_freezes_the_shared_weights_in_both(folders):
    encoder = Encoder.load(folders["bert"])
    config = EmbedConfig(base="", train={"files": []}, loss="tsdae", adapter=AdapterConfig(kind="lora"))
    pooled_model = _attached(config, encoder)
    trained = {name for name, weight in pooled_model.named_parameters() if weight.requires_grad}
    assert trained and all(
        "lora_" in name or "crossattention" in name or "cls.predictions" in name for name in trained
    )


@pytest.mark.parametrize("base", BASES)
def test_any_microbatch_gives_the_gradient_of_the_whole_batch(folders, base):
    encoder = Encoder.load(folders[base])
    encoder.model.double().eval()
    noisy, objective = source(encoder, tiny_embed.texts(8) + ["one"]), Denoising(encoder.layout.pooling)
    pooled_model = PooledModel(encoder.model, decoder_of(encoder, seed=0).eval())

    def found(size: int) -> dict:
        pooled_model.zero_grad(set_to_none=True)
        batches = [
            noisy.collate(list(range(i, min(i + size, 9))), seed=0, epoch=0) for i in range(0, 9, size)
        ]
        items = sum(int(objective.items(batch)) for batch in batches)
        for batch in batches:
            (objective.loss(pooled_model, objective.prepare(batch)).total / items).backward()
        return gradients(pooled_model)

    whole = found(9)
    assert all(relative_error(found(size), whole) < 1e-9 for size in (1, 4))


def topics(folder: Path) -> tuple[list[str], Path]:
    """Texts that mix the words of a topic, and a retrieval set whose questions share topics with their
    answers, never words."""
    rng = random.Random(0)
    words = [
        [f"{chr(97 + topic)}{chr(97 + word)}{chr(97 + (topic * 7 + word) % 26)}" for word in range(WORDS)]
        for topic in range(TOPICS)
    ]
    texts = [" ".join(rng.sample(words[i % TOPICS], 8)) for i in range(480)]
    documents = [
        {"_id": f"d{i}", "text": " ".join(rng.sample(words[i % TOPICS][: WORDS // 2], 5))} for i in range(64)
    ]
    queries = [
        {"_id": f"q{i}", "text": " ".join(rng.sample(words[i % TOPICS][WORDS // 2 :], 5))} for i in range(32)
    ]
    tiny_embed.write(folder / "corpus.jsonl", documents)
    tiny_embed.write(folder / "queries.jsonl", queries)
    (folder / "qrels").mkdir()
    lines = "".join(f"q{q}\td{d}\t1\n" for q in range(32) for d in range(64) if q % TOPICS == d % TOPICS)
    (folder / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return texts, folder


def run_of(root: Path, base: Path, texts: Path, **changes) -> tuple[EmbedConfig, Run]:
    trainer = {
        "num_steps": 12,
        "global_batch_size": 8,
        "learning_rate": 3e-3,
        "threads": 1,
        "checkpoint_every": 4,
        "log_every": 1,
    }
    given = {
        "base": str(base),
        "loss": "tsdae",
        "max_length": 32,
        "train": {"files": [str(texts)]},
        **changes,
    }
    config = EmbedConfig.model_validate({**given, "trainer": {**trainer, **changes.get("trainer", {})}})
    return config, Run.open(root, config.name, config.model_dump(mode="json"))


@pytest.mark.parametrize("base", ["bert", "modernbert"])
def test_it_finds_what_the_untouched_encoder_does_not(tmp_path, base):
    from adaptkit.data.beir import read_set
    from adaptkit.embed.retrieval import retrieval_rows
    from adaptkit.embed.retrieval_metrics import retrieval_scores

    texts, folder = topics(tmp_path / "set")
    make = tiny_embed.bert if base == "bert" else modernbert
    encoder = Encoder.load(make(tmp_path / "base", corpus=texts))
    before = retrieval_scores(retrieval_rows(encoder, read_set(folder, "test")))["ndcg_at_10"]
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in texts])
    config, run = run_of(
        tmp_path / "runs",
        tmp_path / "base",
        path,
        test={"files": [str(folder)]},
        trainer={"num_steps": 100, "global_batch_size": 32, "checkpoint_every": 0, "log_every": 20},
    )
    result = embed(config, run)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert losses[-1] < 0.8 * losses[0]
    assert before < 0.5 and result.scores["ndcg_at_10"] > 0.9
    assert len(list(read_jsonl(run.items("retrieval")))) == 32 and set(result.dev_scores) == {"loss"}


def test_nothing_of_the_decoder_is_left(folders, tmp_path):
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(60)])
    config, run = run_of(tmp_path / "runs", folders["bert"], path)
    embed(config, run)
    names = set(models.load(run.model, "encoder").state_dict())
    assert names == set(models.load(folders["bert"], "encoder").state_dict())
    from safetensors import safe_open

    with safe_open(run.model / "model.safetensors", framework="pt") as opened:
        assert set(opened.keys()) == names


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_a_killed_training_goes_on_where_it_was(tmp_path, kind):
    base = tiny_embed.bert(tmp_path / "base", dropout=0.2)
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(60)])
    config, run = run_of(tmp_path / "whole", base, path, adapter={"kind": kind})
    embed(config, run)
    config, again = run_of(tmp_path / "cut", base, path, adapter={"kind": kind})
    embed(config, again)
    shutil.rmtree(again.checkpoints / "step-000012")
    again.update_manifest(status="running")
    embed(config, again)
    assert again.manifest()["training"]["train"]["resumed_from_step"] == 8
    assert (again.model / "model.safetensors").read_bytes() == (run.model / "model.safetensors").read_bytes()


def test_what_cannot_be_restored_is_told(folders, tmp_path, monkeypatch):
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(60)])
    with pytest.raises(ValueError, match="trains whole vectors"):
        run_of(tmp_path / "runs", folders["bert"], path, dimensions=[16])
    config, _ = run_of(tmp_path / "runs", folders["bert"], path, trainer={"parallel": "fsdp"})
    with pytest.raises(ConfigError, match="cannot be sharded"):
        _attached(config, Encoder.load(folders["bert"]))


def test_long_texts_are_learnt_from_whole():
    text = "One two three. Four five!\nSix seven eight nine ten eleven twelve thirteen? End."
    assert pieces(text, 5) == [
        "One two three. Four five!",
        "Six seven eight nine ten eleven twelve thirteen?",
        "End.",
    ]
    assert pieces("no stop at all", 2) == ["no stop at all"] and pieces(" \n ", 4) == []
    found = in_pieces(Examples([Example((text, text), "a.jsonl:7")]), 5)
    assert [row.where for row in found.rows] == ["a.jsonl:7"] * 3
    assert found.record().facts == {"examples": 3}
    assert found.rows[1].texts == ("Six seven eight nine ten eleven twelve thirteen?",) * 2
