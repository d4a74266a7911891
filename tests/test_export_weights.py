"""Model folders as written, and the model as it was trained, put together again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_exports import check_named as check
from tiny_exports import finetuned

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.resolve import resolve
from adaptkit.export.weights import load_unmerged
from adaptkit.run import Run, read_json


def test_an_adapter_is_merged_and_the_merge_measured_again(mood: Run) -> None:
    source = resolve(mood.path)
    assert source.adapter is not None and source.kind == "classify"
    done = export(source, "fp32")
    assert check(done.parity, "by merging").loss <= 1e-5 and done.parity.merge.startswith("base and adapter")
    assert check(done.parity, "accuracy").before == read_json(mood.scores("mood"))["metrics"]["accuracy"]
    assert (done.parity.data.items_origin, done.parity.data.num_items) == ("test rows of the run", 40)


def test_a_qlora_export_is_the_model_over_its_four_bit_base(
    runs_root: Path, notes: Run, tmp_path: Path
) -> None:
    run = finetuned(runs_root, notes.model, adapter="qlora", kind="label_words")
    source = resolve(run.path)
    done = export(source, "fp32", Options(out=tmp_path / "out"))
    assert check(done.parity, "by merging").loss <= 1e-5
    model = load_unmerged(source, len(models.load_tokenizer(source.folder)))
    assert model.get_base_model().is_loaded_in_4bit
    ids = torch.arange(5, 25)[None]
    plain = models.load(notes.model, "causal").eval()
    with torch.no_grad():
        trained, merged, other = (
            m(input_ids=ids).logits for m in (model, models.load(done.folder, "causal"), plain)
        )
    assert (trained - merged).abs().max() < 1e-4 < (trained - other).abs().max()


def test_a_base_that_is_gone_is_said_and_a_wrong_adapter_is_refused(
    notes: Run, mood: Run, tmp_path: Path
) -> None:
    shutil.copytree(notes.path, tmp_path / "runs" / notes.path.name)  # the base of `mood`
    moved = shutil.copytree(mood.path, tmp_path / "runs" / mood.path.name)
    shutil.rmtree(moved / "export", ignore_errors=True)
    source = resolve(moved)
    gone = dataclasses.replace(source, base=str(tmp_path / "nowhere"))
    assert "is not here" in load_unmerged(gone, 384)

    file = source.adapter / "adapter_model.safetensors"
    save_file({name: value * 1.5 for name, value in load_file(file).items()}, file)
    with pytest.raises(ModelError, match="by merging the adapter"):
        export(source, "fp32")
    assert not Run(moved).export("fp32").exists() and not read_json(Run(moved).parity_path)["fp32"]["passed"]


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_an_encoder_gets_its_pooling_written_down_and_no_invented_weights(
    model_folders, tmp_path: Path, name: str
) -> None:
    from transformers import AutoModel

    done = export(resolve(model_folders[name]), "fp32", Options(out=tmp_path / "out"))
    source = resolve(done.folder)
    assert source.kind == "embed" and check(done.parity, "cosine").loss < 1e-9
    modules = read_json(done.folder / "modules.json")
    assert [module["type"].rpartition(".")[2] for module in modules] == [
        "Transformer",
        "Pooling",
        "Normalize",
    ]
    assert read_json(done.folder / "1_Pooling" / "config.json")["pooling_mode_mean_tokens"]
    _, info = AutoModel.from_pretrained(done.folder, output_loading_info=True)
    assert not info["unexpected_keys"] and all("pooler" in key for key in info["missing_keys"])
    again = export(source, "int8", Options(out=tmp_path / "again"))
    assert (again.folder / "1_Pooling" / "config.json").is_file() and again.parity.passed
