"""Rounded weights: compressed_tensors and transformers read from the folder what was written, bit for bit;
GPTQ beats nearest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_exports import write_models

from adaptkit import models
from adaptkit.errors import ConfigError, ModelError
from adaptkit.export import formats, model_folder
from adaptkit.export.formats import FORMATS, find_format, runs_here
from adaptkit.export.hardware import Hardware
from adaptkit.export.quantise import compressed_tensors
from adaptkit.export.quantise.gptq import gptq, gptq_layers
from adaptkit.export.quantise.rounding import pack, round_activations, round_to_nearest, unpack
from adaptkit.export.source import resolve

KINDS = {"generate": "causal", "classify": "classifier", "rerank": "classifier", "embed": "encoder"}
QUANTISED = ("int8", "int4", "fp8")
HEADS = ("lm_head", "embed_out", "score", "classifier", "cls", "decoder", "pooler", "head", "embed", "wte")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"), tiny_text)


def weights(seed: int = 0, rows: int = 64, columns: int = 256) -> torch.Tensor:
    return (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
        * torch.linspace(0.01, 3, rows)[:, None]
    )


@pytest.mark.parametrize(("grid", "group"), [("int8", None), ("int4", 128), ("int4", 32), ("fp8", None)])
def test_rounding_is_what_compressed_tensors_dequantises(grid: str, group: int | None) -> None:
    lifecycle = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    arguments = pytest.importorskip("compressed_tensors.quantization").QuantizationArgs
    rounded = round_to_nearest(weights(), grid, group)
    told = {
        "num_bits": 4 if grid == "int4" else 8,
        "type": "float" if grid == "fp8" else "int",
        "symmetric": True,
    }
    args = arguments(**told, strategy="group" if group else "channel", group_size=group)
    theirs = lifecycle.dequantize(rounded.values, rounded.scale.float(), None, args, dtype=torch.float32)
    assert torch.equal(theirs, rounded.dequantised())
    assert rounded.group_size == (group or 256)


@pytest.mark.parametrize(("grid", "most"), [("int8", 0.012), ("int4", 0.14), ("fp8", 0.04)])
def test_rounding_keeps_weights_to_its_precision_whatever_a_rows_size(grid: str, most: float) -> None:
    weight = weights()
    error = (round_to_nearest(weight, grid, 128 if grid == "int4" else None).dequantised() - weight).norm(
        dim=1
    ) / weight.norm(dim=1)
    assert float(error.max()) < most


def test_searched_scales_beat_the_plain_one() -> None:
    weight = weights(3)
    groups = weight.unflatten(1, (-1, 128))
    scale = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().float()
    plain = ((groups / scale).round().clamp(-8, 7) * scale).flatten(1)
    ours = round_to_nearest(weight, "int4", 128).dequantised()
    assert (ours - weight).square().sum() < 0.97 * (plain - weight).square().sum()


def test_nibbles_pack_as_compressed_tensors_packs_them() -> None:
    helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    values = torch.randint(-8, 8, (16, 64), generator=torch.Generator().manual_seed(1)).to(torch.int8)
    assert torch.equal(pack(values), helpers.pack_to_int32(values, 4))
    assert torch.equal(unpack(pack(values)), values)


@pytest.mark.parametrize("grid", ["int8", "fp8"])
def test_an_all_zero_row_stays_zero(grid: str) -> None:
    weight = weights()
    weight[3] = 0
    assert round_to_nearest(weight, grid).dequantised()[3].abs().max() == 0
    assert torch.isfinite(round_activations(torch.zeros(2, 8), grid)).all()


def test_activations_are_rounded_row_by_row() -> None:
    x = torch.tensor([[1.0, 0.5, -0.25], [100.0, 50.0, -25.0]])
    error = (round_activations(x, "int8") - x).abs() / x.abs().amax(-1, keepdim=True)
    assert 0 < float(error.max()) <= 0.5 / 127 + 1e-6


def exported(
    folders: dict[str, Path], name: str, format: str, out: Path, method: str = "rtn"
) -> tuple[object, compressed_tensors.Scheme]:
    """A quantised folder, and the scheme it was written with."""
    source = resolve(folders[name])
    model, tokenizer = (
        models.load(source.folder, KINDS[source.kind]).eval(),
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
    model_folder.write(source, model.bfloat16(), tokenizer, out)
    compressed_tensors.compress(out, scheme, rounded)
    return source, scheme


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "neox", "bert", "modernbert", "bert-classes", "llama-classes", "bert-pairs"]
)
def test_transformers_reads_from_the_folder_what_the_gate_measures(
    folders, tmp_path, name: str, format: str
) -> None:
    pytest.importorskip("compressed_tensors")
    import transformers

    if (name, format) == ("modernbert", "int4"):
        with pytest.raises(ModelError, match="cannot load a 4-bit modernbert.*`weight_packed`") as refused:
            exported(folders, name, format, tmp_path / "out")
        assert refused.value.fix == "export it as int8"
        return
    source, scheme = exported(folders, name, format, tmp_path / "out")
    ours = compressed_tensors.restore(
        models.load(source.folder, KINDS[source.kind]).eval(), tmp_path / "out", scheme
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


def test_what_keeps_modernbert_from_int4_is_still_there(folders, tmp_path, monkeypatch) -> None:
    """When this fails, transformers has mended it: take modernbert out of UNREADABLE_INT4."""
    import transformers

    monkeypatch.setattr(compressed_tensors, "UNREADABLE_INT4", ())
    exported(folders, "modernbert", "int4", tmp_path / "out")
    with pytest.raises(AttributeError, match="has no attribute 'weight'"):
        transformers.AutoModel.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "neox", "bert", "modernbert", "bert-classes", "llama-classes"]
)
def test_heads_and_embeddings_stay_and_every_other_linear_layer_is_rounded(
    folders, tmp_path, name: str
) -> None:
    source, scheme = exported(folders, name, "int8", tmp_path / "out")
    model = models.load(source.folder, KINDS[source.kind])
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
def test_gptq_runs_through_causal_and_bidirectional_stacks(folders, tmp_path, name: str, format: str) -> None:
    source, scheme = exported(folders, name, format, tmp_path / "out", method="gptq")
    restored = compressed_tensors.restore(
        models.load(source.folder, KINDS[source.kind]).eval(), tmp_path / "out", scheme
    )
    ids = torch.randint(5, 300, (2, 24), generator=torch.Generator().manual_seed(9))
    before = models.load(source.folder, KINDS[source.kind]).eval()(input_ids=ids)[0]
    after = restored(input_ids=ids)[0]
    assert float((after - before).norm() / before.norm()) < 0.2


def test_gptq_loses_less_than_nearest_on_text_like_what_it_was_calibrated_on() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(256, 256, generator=generator) * torch.logspace(0, -2, 256)[:, None]
    seen, unseen = (torch.randn(2000, 256, generator=generator) @ mixing for _ in range(2))
    weight = weights(5)
    nearest, calibrated = round_to_nearest(weight, "int4", 128), gptq(weight, seen.T @ seen, "int4", 128)
    assert calibrated.scale.shape == nearest.scale.shape and calibrated.values.dtype == torch.int8
    errors = [(unseen @ (weight - r.dequantised()).T).square().sum() for r in (nearest, calibrated)]
    assert errors[1] < 0.6 * errors[0]


def test_gptq_survives_inputs_that_never_vary() -> None:
    hessian = torch.zeros(64, 64)
    hessian[0, 0] = 4.0
    rounded = gptq(weights(1, 8, 64), hessian, "int4", 32)
    assert torch.isfinite(rounded.dequantised()).all()


def test_shapes_that_int4_cannot_hold_are_refused_and_smaller_groups_taken(folders) -> None:
    model = models.load(folders["llama"], "causal")
    assert compressed_tensors.plan_scheme(model, FORMATS["int4"], "here").group_size == 64
    layer = model.model.layers[0].mlp
    layer.down_proj = torch.nn.Linear(100, 64, bias=False)
    with pytest.raises(ModelError, match="multiples of 32.*down_proj is 64 x 100") as refused:
        compressed_tensors.plan_scheme(model, FORMATS["int4"], "here")
    assert "int8" in refused.value.fix
    assert compressed_tensors.plan_scheme(model, FORMATS["int8"], "here").group_size is None


def test_models_without_a_stack_of_linear_layers_are_refused(folders) -> None:
    with pytest.raises(ModelError, match="no stack of linear layers"):
        compressed_tensors.plan_scheme(torch.nn.Sequential(torch.nn.Linear(4, 4)), FORMATS["int8"], "here")
    model = models.load(folders["llama"], "causal")
    model.model.layers[1].mlp.experts = torch.nn.Parameter(torch.zeros(2, 4, 4))
    with pytest.raises(ModelError, match="experts as one tensor"):
        compressed_tensors.plan_scheme(model, FORMATS["int8"], "here")


def test_a_folder_that_names_a_layer_otherwise_is_refused(folders, tmp_path) -> None:
    source = resolve(folders["llama"])
    model = models.load(source.folder, "causal")
    scheme = compressed_tensors.plan_scheme(model, FORMATS["int8"], "here")
    shutil.copytree(source.folder, tmp_path / "other")
    odd = compressed_tensors.Scheme(
        scheme.format, (*scheme.layers, "model.layers.9.mlp.up_proj"), scheme.stack, scheme.ignore, None
    )
    rounded = {n: round_to_nearest(model.get_submodule(n).weight.data, "int8") for n in scheme.layers}
    with pytest.raises(ModelError, match=r"no model.layers.9.mlp.up_proj.weight"):
        compressed_tensors.compress(tmp_path / "other", odd, rounded)


def test_what_a_machine_can_serve_is_told_with_the_reason() -> None:
    old, new, gpu = Hardware(), Hardware(flags=frozenset({"avx512f"})), Hardware(gpus=("H200",))
    here = {
        name: [row["here"] for row in formats.listing(machine)]
        for name, machine in {"old": old, "new": new, "gpu": gpu}.items()
    }
    assert here["old"] == [True, True, True, False, False]
    assert here["new"] == [True, True, True, True, False]
    assert all(here["gpu"])
    runs, why = runs_here("gpu or avx512", old)
    assert not runs and "int8" in why and "first request" in why
    with pytest.raises(ConfigError, match="did you mean 'int8'"):
        find_format("int-8")
