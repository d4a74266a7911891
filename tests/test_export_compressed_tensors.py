"""Quantised folders: transformers reads what the gate measures; GPTQ beats nearest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from adaptkit import models
from adaptkit.errors import ModelError
from adaptkit.export.formats import FORMATS
from adaptkit.export.quantise import compressed_tensors
from adaptkit.export.quantise.gptq import gptq_layers
from adaptkit.export.quantise.rounding import round_to_nearest
from adaptkit.export.resolve import resolve
from adaptkit.export.weights import MODEL_KINDS, write_model

QUANTISED = ("int8", "int4", "fp8")
HEADS = ("lm_head", "embed_out", "score", "classifier", "cls", "decoder", "pooler", "head", "embed", "wte")


def exported(
    model_folders: dict[str, Path], name: str, format: str, out: Path, method: str = "rtn"
) -> tuple[object, compressed_tensors.Scheme]:
    """A quantised folder, and the scheme it was written with."""
    source = resolve(model_folders[name])
    model, tokenizer = (
        models.load(source.folder, MODEL_KINDS[source.kind]).eval(),
        models.load_tokenizer(source.folder),
    )
    scheme = compressed_tensors.plan_scheme(model, FORMATS[format], str(source.folder))
    if method == "gptq":
        batches = [
            {"input_ids": torch.randint(5, 300, (1, 32), generator=torch.Generator().manual_seed(i))}
            for i in range(4)
        ]
        rounded = gptq_layers(model, scheme, batches)
    else:
        grid = FORMATS[format].grid
        rounded = {
            n: round_to_nearest(model.get_submodule(n).weight.data, grid, scheme.group_size)
            for n in scheme.layers
        }
    write_model(source, model.bfloat16(), tokenizer, out)
    compressed_tensors.compress(out, scheme, rounded)
    return source, scheme


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "neox", "bert", "modernbert", "bert-classes", "llama-classes", "bert-pairs"]
)
def test_transformers_reads_from_the_folder_what_the_gate_measures(
    model_folders, tmp_path, name: str, format: str
) -> None:
    pytest.importorskip("compressed_tensors")
    import transformers

    if (name, format) == ("modernbert", "int4"):
        with pytest.raises(ModelError, match="cannot load a 4-bit modernbert.*`weight_packed`") as refused:
            exported(model_folders, name, format, tmp_path / "out")
        assert refused.value.fix == "export it as int8"
        return
    source, scheme = exported(model_folders, name, format, tmp_path / "out")
    ours = compressed_tensors.restore(
        models.load(source.folder, MODEL_KINDS[source.kind]).eval(), tmp_path / "out", scheme
    )
    auto = {"generate": "AutoModelForCausalLM", "embed": "AutoModel"}.get(
        source.kind, "AutoModelForSequenceClassification"
    )
    quantization = transformers.utils.quantization_config.CompressedTensorsConfig(dequantize=True)
    theirs = (
        getattr(transformers, auto)
        .from_pretrained(tmp_path / "out", dtype=torch.float32, quantization_config=quantization)
        .eval()
    )
    state, linear = theirs.state_dict(), dict(theirs.named_modules())
    assert len(scheme.layers) >= 8
    for layer in scheme.layers:
        assert torch.equal(state[f"{layer}.weight"], ours.get_submodule(layer).weight), layer
        assert getattr(linear[layer], "quantization_scheme", None) is not None
    for key, value in ours.state_dict().items():
        if key in state and "pooler" not in key:
            assert torch.equal(state[key], value), key


def test_what_keeps_modernbert_from_int4_is_still_there(model_folders, tmp_path, monkeypatch) -> None:
    """When this fails, transformers has mended it: take modernbert out of UNREADABLE_INT4."""
    import transformers

    monkeypatch.setattr(compressed_tensors, "UNREADABLE_INT4", ())
    exported(model_folders, "modernbert", "int4", tmp_path / "out")
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):
        transformers.AutoModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "neox", "bert", "modernbert", "bert-classes", "llama-classes"]
)
def test_heads_and_embeddings_stay_and_every_other_linear_layer_is_rounded(
    model_folders, tmp_path, name: str
) -> None:
    source, scheme = exported(model_folders, name, "int8", tmp_path / "out")
    model = models.load(source.folder, MODEL_KINDS[source.kind])
    linear = {n for n, m in model.named_modules() if type(m) is torch.nn.Linear}
    assert set(scheme.layers) | set(scheme.ignore) == linear and not set(scheme.layers) & set(scheme.ignore)
    assert all(any(head in n.split(".") for head in HEADS) for n in scheme.ignore), scheme.ignore
    assert not any(n.split(".")[-1] in HEADS for n in scheme.layers)
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["ignore"] == list(scheme.ignore) and config["quant_method"] == "compressed-tensors"


@pytest.mark.parametrize(
    ("name", "format"),
    [("llama", "int4"), ("modernbert", "int8"), ("bert-classes", "int4"), ("neox", "int4")],
)
def test_gptq_runs_through_causal_and_bidirectional_stacks(
    model_folders, tmp_path, name: str, format: str
) -> None:
    source, scheme = exported(model_folders, name, format, tmp_path / "out", method="gptq")
    restored = compressed_tensors.restore(
        models.load(source.folder, MODEL_KINDS[source.kind]).eval(), tmp_path / "out", scheme
    )
    ids = torch.randint(5, 300, (2, 24), generator=torch.Generator().manual_seed(9))
    before = models.load(source.folder, MODEL_KINDS[source.kind]).eval()(input_ids=ids)[0]
    after = restored(input_ids=ids)[0]
    assert float((after - before).norm() / before.norm()) < 0.2


def test_shapes_that_int4_cannot_hold_are_refused_and_smaller_groups_taken(model_folders) -> None:
    model = models.load(model_folders["llama"], "causal")
    assert compressed_tensors.plan_scheme(model, FORMATS["int4"], "here").group_size == 64
    layer = model.model.layers[0].mlp
    layer.down_proj = torch.nn.Linear(100, 64, bias=False)
    with pytest.raises(ModelError, match="multiples of 32.*down_proj is 64 x 100") as refused:
        compressed_tensors.plan_scheme(model, FORMATS["int4"], "here")
    assert "int8" in refused.value.fix
    assert compressed_tensors.plan_scheme(model, FORMATS["int8"], "here").group_size is None


def test_models_without_a_stack_of_linear_layers_are_refused(model_folders) -> None:
    with pytest.raises(ModelError, match="no stack of linear layers"):
        compressed_tensors.plan_scheme(torch.nn.Sequential(torch.nn.Linear(4, 4)), FORMATS["int8"], "here")
    model = models.load(model_folders["llama"], "causal")
    model.model.layers[1].mlp.experts = torch.nn.Parameter(torch.zeros(2, 4, 4))
    with pytest.raises(ModelError, match="experts as one tensor"):
        compressed_tensors.plan_scheme(model, FORMATS["int8"], "here")


def test_a_folder_that_names_a_layer_otherwise_is_refused(model_folders, tmp_path) -> None:
    source = resolve(model_folders["llama"])
    model = models.load(source.folder, "causal")
    scheme = compressed_tensors.plan_scheme(model, FORMATS["int8"], "here")
    shutil.copytree(source.folder, tmp_path / "other")
    odd = compressed_tensors.Scheme(
        scheme.format, (*scheme.layers, "model.layers.9.mlp.up_proj"), scheme.stack, scheme.ignore, None
    )
    rounded = {n: round_to_nearest(model.get_submodule(n).weight.data, "int8") for n in scheme.layers}
    with pytest.raises(ModelError, match=r"no model.layers.9.mlp.up_proj.weight"):
        compressed_tensors.compress(tmp_path / "other", odd, rounded)
