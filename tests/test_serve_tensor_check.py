"""Tensors against the model that config.json describes: missing, renamed, misshapen and packed ones."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_served import quantised

from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.serve.engine import tensor_check


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers saves it; tied."""
    from tiny_training import llama as make

    folder = tmp_path_factory.mktemp("llama")
    make().save_pretrained(folder)
    return folder


def spoiled(llama: Path, folder: Path, change) -> Path:
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    (folder / "config.json").write_text((llama / "config.json").read_text())
    tensors = load_file(llama / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


DOWN = "model.layers.0.mlp.down_proj.weight"


def test_a_missing_or_misshapen_tensor_is_found(llama: Path, tmp_path: Path) -> None:
    assert tensor_check.compare(llama) == {"missing": [], "mismatched": []}
    missing = spoiled(llama, tmp_path / "a", lambda tensors: tensors.pop(DOWN))
    renamed = spoiled(llama, tmp_path / "b", lambda tensors: tensors.update({"x" + DOWN: tensors.pop(DOWN)}))
    cut = spoiled(llama, tmp_path / "c", lambda tensors: tensors.update({DOWN: tensors[DOWN][:, :4].clone()}))
    assert tensor_check.compare(missing)["missing"] == tensor_check.compare(renamed)["missing"] == [DOWN]
    assert tensor_check.compare(cut)["mismatched"] == [DOWN]
    with pytest.raises(ModelError, match=DOWN):
        tensor_check.judge({"missing": [DOWN], "mismatched": []}, "generate", missing)
    tensor_check.judge({"missing": ["pooler.dense.weight"], "mismatched": []}, "embed", missing)
    with pytest.raises(ModelError, match="pooler"):
        tensor_check.judge({"missing": ["bert.pooler.dense.weight"], "mismatched": []}, "classify", missing)


def test_packed_weights_are_held_against_the_plain_model(llama: Path, tmp_path: Path) -> None:
    import torch

    def pack(tensors: dict) -> None:
        for name in [name for name in tensors if "proj" in name]:
            rows, columns = tensors.pop(name).shape
            stem = name.removesuffix("weight")
            tensors[stem + "weight_packed"] = torch.zeros(rows, columns // 8, dtype=torch.int32)
            tensors[stem + "weight_scale"] = torch.ones(rows, 1)
            tensors[stem + "weight_shape"] = torch.tensor([rows, columns])

    def quantise(folder: Path) -> Path:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "quantization_config": quantised(4, "pack-quantized")})
        )
        return folder

    good = quantise(spoiled(llama, tmp_path / "good", pack))
    assert tensor_check.compare(good) == {"missing": [], "mismatched": []}
    stem = DOWN.removesuffix("weight")

    def lose(tensors: dict) -> None:
        pack(tensors)
        del tensors[stem + "weight_packed"]

    def cut(tensors: dict) -> None:
        pack(tensors)
        tensors[stem + "weight_packed"] = tensors[stem + "weight_packed"][:, :1].clone()

    assert tensor_check.compare(quantise(spoiled(llama, tmp_path / "lost", lose)))["missing"] == [DOWN]
    assert tensor_check.compare(quantise(spoiled(llama, tmp_path / "cut", cut)))["mismatched"] == [DOWN]


def test_the_inspection_runs_in_another_process(llama: Path, tmp_path: Path) -> None:
    broken = spoiled(llama, tmp_path / "broken", lambda tensors: tensors.pop(DOWN))
    asyncio.run(tensor_check.check(SimpleNamespace(folder=llama, kind="generate")))
    with pytest.raises(ModelError, match="tensors missing: 1"):
        asyncio.run(tensor_check.check(SimpleNamespace(folder=broken, kind="generate")))
    (broken / "config.json").write_text('{"architectures": ["Nothing"], "model_type": "nothing"}')
    with pytest.raises(AdaptkitError, match="cannot be read by transformers"):
        asyncio.run(tensor_check.check(SimpleNamespace(folder=broken, kind="generate")))
