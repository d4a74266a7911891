"""Whether an adapter changes the base it is served over, told from the headers of their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import MODULE, pair, write_adapter, write_bases, write_shapes

from adaptkit.errors import ModelError
from adaptkit.run import read_json
from adaptkit.serve.engine import lora
from adaptkit.serve.engine.adapter_check import check_fit, other_base, stored_rank, whole_tensors


def adapter(folder: Path, tensors: dict[str, list[int]], **settings: object) -> Path:
    write_adapter(folder, **settings)
    write_shapes(folder / "adapter_model.safetensors", tensors)
    return folder


def check(folder: Path, base: Path) -> None:
    check_fit(folder, base, read_json(folder / "adapter_config.json"))


@pytest.mark.parametrize(
    ("module", "part"),
    [
        ("_orig_mod." + MODULE, "_orig_mod."),
        ("module." + MODULE, "module."),
        (MODULE.replace("model.", "model.language_model."), "language_model."),
        ("base_model.model." + MODULE, "base_model.model."),
        (MODULE.removeprefix("model."), None),
        ("model.layers.7.self_attn.q_proj", None),
        ("transformer.h.0.attn.c_attn", None),
    ],
)
def test_names_that_no_module_of_the_base_has_are_refused(
    tmp_path: Path, module: str, part: str | None
) -> None:
    base, _ = write_bases(tmp_path)
    folder = adapter(tmp_path / "a", pair(module, 8))
    with pytest.raises(ModelError, match="1 of its 1 modules are not in one.*without their effect") as caught:
        check(folder, base.folder)
    assert (f"without '{part}'" if part else "trained on") in (caught.value.fix or "")


def test_one_module_that_is_not_there_is_enough(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    folder = adapter(tmp_path / "a", {**pair(MODULE, 8), **pair("model.layers.9.self_attn.q_proj", 8)})
    with pytest.raises(ModelError, match="1 of its 2 modules .* first model.layers.9"):
        check(folder, base.folder)


@pytest.mark.parametrize(
    ("tensors", "settings"),
    [
        (pair(MODULE, 8), {}),
        (pair(MODULE, 8, outputs=6, inputs=4), {}),  # GPT-2 stores its matrices turned
        (pair(MODULE, 3), {"rank_pattern": {"q_proj": 3}}),
        ({name.replace(".weight", ".default.weight"): shape for name, shape in pair(MODULE, 8).items()}, {}),
        (pair("lm_head", 8, outputs=9, inputs=4), {}),
        (pair("model.embed_tokens", 8, outputs=4, inputs=9), {}),
    ],
)
def test_what_fits_is_served(tmp_path: Path, tensors: dict[str, list[int]], settings: dict) -> None:
    base, _ = write_bases(tmp_path)
    check(adapter(tmp_path / "a", tensors, **settings), base.folder)


def test_a_base_that_was_saved_without_its_head_is_the_same_base(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    shapes = {f"{MODULE.removeprefix('model.')}.weight": [4, 6]}
    write_shapes(base.folder / "model.safetensors", shapes)
    check(write_adapter(tmp_path / "a"), base.folder)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        (pair(MODULE, 8, outputs=5), "is 4 x 6 in one, and the adapter's is 5 x 6"),
        (pair(MODULE, 8, inputs=12), "4 x 12"),
        (pair(MODULE, 16), "rank 16, and adapter_config.json says 8"),
        ({f"base_model.model.{MODULE}.lora_A.weight": [8, 6]}, "do not fit each other"),
        ({**pair(MODULE, 8), f"base_model.model.{MODULE}.lora_B.weight": [4, 7]}, "do not fit each other"),
        ({}, "no adapter weights"),
    ],
)
def test_shapes_and_ranks_of_another_base_or_adapter_are_refused(
    tmp_path: Path, tensors: dict[str, list[int]], said: str
) -> None:
    base, _ = write_bases(tmp_path)
    with pytest.raises(ModelError, match=said):
        check(adapter(tmp_path / "a", tensors), base.folder)


def test_packed_and_foreign_quantised_bases_are_compared_as_far_as_they_tell(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    config = base.folder / "config.json"
    settings = json.loads(config.read_text())
    write_shapes(base.folder / "model.safetensors", {f"{MODULE}.weight_packed": [8, 4]})
    wide = adapter(tmp_path / "a", pair(MODULE, 8, outputs=8, inputs=32))
    check(wide, base.folder)
    with pytest.raises(ModelError, match="8 x 32"):
        check(adapter(tmp_path / "b", pair(MODULE, 8)), base.folder)
    config.write_text(json.dumps({**settings, "quantization_config": {"quant_method": "bitsandbytes"}}))
    write_shapes(base.folder / "model.safetensors", {f"{MODULE}.weight": [128, 1]})
    check(wide, base.folder)


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        ("models/one", None),
        ("one@sha256:0123456789ab", None),
        (None, "records no base"),
        ("some-org/Another-7B", "another base, some-org/Another-7B"),
        ("some-org/Another-7B-bnb-4bit", "a quantised one"),
        ("x/y-GPTQ-Int4", "a quantised one"),
    ],
)
def test_another_recorded_base_is_told(tmp_path: Path, recorded: str | None, said: str | None) -> None:
    clause = other_base(tmp_path / "one", {"base_model_name_or_path": recorded})
    assert (said in clause) if said and clause else clause is said


def test_modules_saved_whole_are_known_by_their_tensors(tmp_path: Path) -> None:
    whole = {"base_model.model.lm_head.weight": [9, 4]}
    folder = adapter(tmp_path / "a", {**pair(MODULE, 8), **whole})
    assert whole_tensors(folder) == list(whole)
    assert "lm_head.weight" in (lora.cannot_be_served(folder) or "")
    assert whole_tensors(write_adapter(tmp_path / "b")) == []
    assert stored_rank(adapter(tmp_path / "c", pair(MODULE, 300))) == 300
    assert "rank 300" in (lora.cannot_be_served(tmp_path / "c") or "")


def test_an_adapter_without_effect_is_not_merged_either(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    folder = adapter(tmp_path / "a", pair("_orig_mod." + MODULE, 8), use_dora=True)
    with pytest.raises(ModelError, match="without their effect"):
        lora.merged("a", folder, [base])


def test_an_adapter_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    base, _ = write_bases(tmp_path)
    folder = adapter(tmp_path / "a", pair(MODULE, 8))
    check(folder, base.folder)
    write_shapes(folder / "adapter_model.safetensors", pair(MODULE, 8), fill=b"\0")
    with pytest.raises(ModelError, match="is untrained: one matrix of each of its pairs is zero"):
        check(folder, base.folder)
    whole = {"base_model.model.lm_head.weight": [9, 4]}
    write_shapes(folder / "adapter_model.safetensors", {**pair(MODULE, 8), **whole}, fill=b"\0")
    check(folder, base.folder)
