"""Embedding models keep pretraining: they get the masked-LM head they were saved without, and still pool as
they did."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_embed
import torch

from adaptkit import models
from adaptkit.embed.encoder import Encoder
from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, read_json


def continued(root: Path, base: Path, **trainer) -> Run:
    """A few steps of masked-LM on the tiny texts."""
    path = tiny_embed.write(root / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(120)])
    config = PretrainConfig.model_validate(
        {
            "base": str(base),
            "data": {"files": [str(path)]},
            "objective": "masked",
            "size": {"seq_len": 32},
            "trainer": {
                "num_steps": 20,
                "global_batch_size": 8,
                "learning_rate": 3e-3,
                "threads": 1,
                "log_every": 1,
                **trainer,
            },
        }
    )
    run = Run.open(root / "runs", "continued", config.model_dump(mode="json"))
    pretrain(config, run)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A BERT that pools by its first token, saved as sentence-transformers are: without a head."""
    from adaptkit.models.sentence.layout import changed

    root = tmp_path_factory.mktemp("continued")
    encoder = Encoder.load(tiny_embed.bert(root / "plain"))
    encoder.layout = changed(
        encoder.layout, encoder.width, pooling="cls", max_length=24, prompts={"query": "find: "}
    )
    encoder.save(root / "folder")
    return root / "folder"


def test_the_head_is_new_tied_and_drawn_from_the_seed(folder):
    model = models.load(folder, "masked", new_head=True, seed=1)
    embeddings = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embeddings
    assert torch.equal(embeddings, models.load(folder, "encoder").get_input_embeddings().weight)
    same, other = (models.load(folder, "masked", new_head=True, seed=seed).state_dict() for seed in (1, 2))
    head = "cls.predictions.transform.dense.weight"
    assert torch.equal(model.state_dict()[head], same[head]) and not torch.equal(same[head], other[head])
    with pytest.raises(ModelError, match="has no language-model head"):
        models.load(folder, "masked")


def test_it_learns_and_pools_as_before(folder, tmp_path):
    run = continued(tmp_path, folder)
    losses = [row["loss"] for row in run.metrics() if "loss" in row]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    before, after = Encoder.load(folder), Encoder.load(run.model)
    assert after.layout == before.layout and after.layout.pooling == "cls" and after.layout.prompts
    assert models.model_kind(run.model) == "masked"
    from sentence_transformers import SentenceTransformer

    texts = tiny_embed.texts(4)
    theirs = SentenceTransformer(str(run.model), device="cpu").encode(texts, show_progress_bar=False)
    assert (after.encode(texts) * theirs).sum(1).min() > 1 - 1e-5
    assert abs(after.encode(texts) - before.encode(texts)).max() > 1e-3
    done = export(resolve(run.path), "fp32", Options(out=tmp_path / "out"))
    assert read_json(done.folder / "config.json")["architectures"] == ["BertModel"], (
        "what servers pool, without the head"
    )
    assert abs(Encoder.load(done.folder).encode(texts) - after.encode(texts)).max() < 1e-5


def test_weights_that_are_missing_below_the_head_are_still_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    models.save(models.load(folder, "encoder"), models.load_tokenizer(folder), tmp_path / "cut")
    weights = load_file(tmp_path / "cut/model.safetensors")
    weights.pop("encoder.layer.0.attention.self.query.weight")
    save_file(weights, tmp_path / "cut/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 tensors of BertForMaskedLM"):
        models.load(tmp_path / "cut", "masked", new_head=True)
