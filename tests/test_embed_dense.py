"""Dense modules behind pooling: read, trained, written back, as sentence-transformers computes them; others
are named. Home of models.sentence.dense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_embed
import torch
from safetensors.torch import load_file

from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.recipe import embed
from adaptkit.errors import ModelError
from adaptkit.run import Run, read_json

WIDTH = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_embed.add_dense(tiny_embed.bert(tmp_path_factory.mktemp("dense") / "bert"), WIDTH)


def by_sentence_transformers(folder: Path, texts: list[str], **options) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False, **options)


@pytest.mark.parametrize("activation", ["Tanh", "Identity", "GELU"])
def test_vectors_are_those_of_sentence_transformers(tmp_path, activation):
    made = tiny_embed.add_dense(tiny_embed.bert(tmp_path / "bert"), WIDTH, activation)
    encoder, texts = Encoder.load(made), tiny_embed.texts(12)
    assert encoder.width == WIDTH and len(encoder.dense) == 1
    assert np.allclose(encoder.encode(texts), by_sentence_transformers(made, texts), atol=1e-5)
    encoder.save(tmp_path / "saved")
    again = Encoder.load(tmp_path / "saved")
    assert np.array_equal(again.encode(texts), encoder.encode(texts)) and again.layout == encoder.layout
    assert np.allclose(by_sentence_transformers(tmp_path / "saved", texts), encoder.encode(texts), atol=1e-5)
    cut = {"truncate_dim": 8, "normalize_embeddings": True}
    assert np.allclose(
        again.encode(texts, dimensions=8),
        by_sentence_transformers(tmp_path / "saved", texts, **cut),
        atol=1e-5,
    )
    assert [module["path"] for module in read_json(tmp_path / "saved/modules.json")] == [
        "",
        "1_Pooling",
        "2_Dense",
        "3_Normalize",
    ]
    with pytest.raises(ModelError, match=f"{WIDTH} dimensions"):
        again.encode(texts, dimensions=WIDTH + 1)


def test_two_of_them_follow_each_other(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "two")
    found = read_json(tmp_path / "two/modules.json")
    shutil.copytree(tmp_path / "two" / found[2]["path"], tmp_path / "two/3_Dense")
    wide = {"linear.weight": torch.randn(10, WIDTH), "linear.bias": torch.randn(10)}
    from safetensors.torch import save_file

    save_file(wide, tmp_path / "two/3_Dense/model.safetensors")
    config = read_json(tmp_path / "two/3_Dense/config.json") | {"in_features": WIDTH, "out_features": 10}
    (tmp_path / "two/3_Dense/config.json").write_text(json.dumps(config))
    found.insert(3, {**found[2], "path": "3_Dense"})
    (tmp_path / "two/modules.json").write_text(
        json.dumps([{**m, "idx": i, "name": str(i)} for i, m in enumerate(found)])
    )
    encoder, texts = Encoder.load(tmp_path / "two"), tiny_embed.texts(5)
    assert encoder.width == 10
    assert np.allclose(encoder.encode(texts), by_sentence_transformers(tmp_path / "two", texts), atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "lora"])
def test_they_train_with_all_weights_and_stay_under_an_adapter(folder, tmp_path, kind):
    config = EmbedConfig.model_validate(
        {
            "base": str(folder),
            "train": {"files": [str(tiny_embed.write_set(tmp_path / "set"))]},
            "adapter": {"kind": kind},
            "dimensions": [8],
            "trainer": {
                "num_steps": 3,
                "global_batch_size": 8,
                "microbatch_size": 4,
                "learning_rate": 1e-3,
                "threads": 1,
            },
        }
    )
    result = embed(config, Run.open(tmp_path / "runs", config.name, config.model_dump(mode="json")))
    before, after = (load_file(path / "2_Dense/model.safetensors") for path in (folder, result.model_folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) == (kind == "lora") for name in before)
    texts, made = tiny_embed.texts(6), Encoder.load(result.model_folder)
    assert made.layout.dimensions == (WIDTH, 8)
    assert np.allclose(made.encode(texts), by_sentence_transformers(result.model_folder, texts), atol=1e-5)
    assert not np.allclose(made.encode(texts), Encoder.load(folder).encode(texts), atol=1e-3)


def test_an_export_carries_them_and_is_measured_through_them(folder, tmp_path):
    from adaptkit.export.driver import Options, export
    from adaptkit.export.resolve import resolve

    done, texts = export(resolve(folder), "fp32", Options(out=tmp_path / "out")), tiny_embed.texts(6)
    assert np.allclose(Encoder.load(done.folder).encode(texts), Encoder.load(folder).encode(texts), atol=1e-6)
    assert done.parity.passed and len(read_json(done.folder / "reference.json")["vectors"][0]) == WIDTH


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"activation_function": "torch.nn.modules.activation.Softplus"},
            "activation torch.nn.modules.activation.Softplus",
        ),
        ({"use_residual": True}, "with a residual"),
        ({"module_input_name": "token_embeddings"}, "over single tokens"),
        ({"out_features": 7}, "weights cannot be read"),
    ],
)
def test_what_a_dense_module_must_not_be_is_told(folder, tmp_path, changes, match):
    shutil.copytree(folder, tmp_path / "odd")
    path = tmp_path / "odd/2_Dense/config.json"
    path.write_text(json.dumps(read_json(path) | changes))
    with pytest.raises(ModelError, match=match):
        Encoder.load(tmp_path / "odd")


@pytest.mark.parametrize(
    ("order", "match"),
    [
        ((0, 1, 3, 2), "order Transformer, Pooling, Normalize, Dense"),
        ((0, 2, 3), "order Transformer, Dense"),
        ((1, 3), "order Pool"),
    ],
)
def test_an_order_that_is_not_supported_is_told(folder, tmp_path, order, match):
    shutil.copytree(folder, tmp_path / "odd")
    found = read_json(folder / "modules.json")
    (tmp_path / "odd/modules.json").write_text(json.dumps([found[place] for place in order]))
    with pytest.raises(ModelError, match=match):
        Encoder.load(tmp_path / "odd")


def test_other_modules_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "odd")
    found = read_json(folder / "modules.json")
    found[2]["type"] = "sentence_transformers.models.LSTM"
    (tmp_path / "odd/modules.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match="has a LSTM module"):
        Encoder.load(tmp_path / "odd")
