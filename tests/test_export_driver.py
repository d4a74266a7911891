"""Exports: the same bytes twice, whole or not at all, refused where they lose too much. Home of
cli.export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_exports import bytes_of
from tiny_exports import check_named as check

from adaptkit.errors import ConfigError, ModelError
from adaptkit.export import driver
from adaptkit.export.driver import Options, export
from adaptkit.export.papers.provenance import verify
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json

FILES = {
    "README.md",
    "config.json",
    "manifest.json",
    "model.safetensors",
    "parity.json",
    "sbom.cdx.json",
    "tokenizer.json",
}


@pytest.mark.parametrize(("format", "method"), [("bf16", "rtn"), ("int4", "gptq")])
def test_two_exports_of_a_run_are_the_same_bytes(
    notes: Run, tmp_path: Path, format: str, method: str
) -> None:
    folders = [
        export(resolve(notes.path), format, Options(out=tmp_path / name, method=method)).folder
        for name in "ab"
    ]
    first, second = map(bytes_of, folders)
    assert first == second and first.keys() >= FILES
    assert all((folder / "model.safetensors").stat().st_mode & 0o044 == 0o044 for folder in folders)


def test_an_fp32_export_answers_exactly_as_the_model_that_was_trained(notes: Run) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = export(resolve(notes.path), "fp32")
    assert done.folder == notes.export("fp32") and verify(done.folder) is None
    ids = torch.tensor([AutoTokenizer.from_pretrained(done.folder)("the nurse reads the dose")["input_ids"]])
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(f)(ids).logits for f in (done.folder, notes.model)]
    assert torch.equal(*logits)
    assert (done.folder / "generation_config.json").is_file() and not list(done.folder.parent.glob(".*"))
    assert read_json(notes.parity_path)["fp32"]["passed"]


def test_an_export_is_refused_past_its_loss_and_leaves_only_the_figures(notes: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ModelError, match=r"bits per byte: \d.* became .* allowed") as refused:
        export(resolve(notes.path), "int4", Options(out=out, max_loss_bpb=-1.0))
    assert "--method gptq" in refused.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["out.parity.json"]
    assert not read_json(tmp_path / "out.parity.json")["passed"]
    export(resolve(notes.path), "int4", Options(out=out))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_refused_export_leaves_the_older_one(notes: Run) -> None:
    folder = export(resolve(notes.path), "int8").folder
    before = bytes_of(folder)
    with pytest.raises(ModelError):
        export(resolve(notes.path), "int8", Options(max_loss_bpb=-1.0))
    assert bytes_of(folder) == before and [p.name for p in folder.parent.glob(".int8*")] == []


def test_a_failure_while_writing_leaves_nothing(
    notes: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(driver, "write_card", fail)
    with pytest.raises(RuntimeError):
        export(resolve(notes.path), "bf16", Options(out=tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_a_plain_folder_is_measured_on_built_in_text_or_on_what_is_given(
    model_folders, tmp_path: Path, tiny_text: list[str]
) -> None:
    source = resolve(model_folders["llama"])
    with pytest.raises(ConfigError, match="no run directory") as refused:
        export(source, "bf16")
    assert "--out llama-bf16" in refused.value.fix
    done = export(source, "bf16", Options(out=tmp_path / "a"))
    assert (
        "built-in sentences" in done.parity.data.origin
        and "Unknown" in (done.folder / "README.md").read_text()
    )
    with pytest.raises(ConfigError, match="none is known for this model") as refused:
        export(source, "int4", Options(out=tmp_path / "b", method="gptq"))
    assert "--calibration FILE" in refused.value.fix
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": line}) + "\n" for line in tiny_text))
    done = export(source, "int4", Options(out=tmp_path / "b", method="gptq", calibration=text))
    assert (
        done.parity.data.origin == "a tenth of text.jsonl, held out" and done.record.calibration.tokens > 500
    )
    done = export(source, "int8", Options(out=tmp_path / "c", evaluation=text))
    assert done.parity.data.origin == "the file text.jsonl"


def test_requests_that_make_no_sense_are_refused(notes: Run, tmp_path: Path) -> None:
    source = resolve(notes.path)
    with pytest.raises(ConfigError, match="gptq rounds weights"):
        export(source, "bf16", Options(method="gptq"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something else in it"):
        export(source, "bf16", Options(out=tmp_path / "mine"))
    done = export(source, "int8", Options(out=tmp_path / "int8"))
    with pytest.raises(ModelError, match="quantised already"):
        export(resolve(done.folder), "int4", Options(out=tmp_path / "int4"))


@pytest.mark.parametrize("damage", ["zeroed", "noisy", "swapped"])
@pytest.mark.parametrize("format", ["fp32", "bf16", "int8"])
def test_damaged_weights_do_not_get_through(
    notes: Run, tmp_path: Path, monkeypatch, format: str, damage: str
) -> None:
    real = driver.write_model

    def damaged(source, model, tokenizer, folder: Path) -> None:
        name = "model.layers.0.self_attn.o_proj.weight"
        weight = model.get_submodule(name.removesuffix(".weight")).weight
        other = model.model.layers[1].self_attn.o_proj.weight
        real(source, model, tokenizer, folder)
        state = load_file(folder / "model.safetensors")
        generator = torch.Generator().manual_seed(0)
        noisy = weight + weight.std() * torch.randn(weight.shape, generator=generator).to(weight.dtype)
        state[name] = (
            {"zeroed": torch.zeros_like(weight), "noisy": noisy, "swapped": other}[damage]
            .detach()
            .clone()
            .contiguous()
        )
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    if format == "int8":
        monkeypatch.setattr("adaptkit.export.quantise.compressed_tensors.stored", _shrunk(damage))
    else:
        monkeypatch.setattr(driver, "write_model", damaged)
    with pytest.raises(ModelError, match="too far from its source"):
        export(resolve(notes.path), format, Options(out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def _shrunk(damage: str):
    from adaptkit.export.quantise.compressed_tensors import stored

    factor = {"zeroed": 0.0, "noisy": 3.0, "swapped": -1.0}[damage]

    def wrong(rounded, format):
        tensors = stored(rounded, format)
        return {**tensors, "weight_scale": tensors["weight_scale"] * factor}

    return wrong


def test_the_task_score_is_measured_on_items_nobody_trained_on(mood: Run) -> None:
    done = export(resolve(mood.path), "int8")
    accuracy = check(done.parity, "accuracy")
    assert accuracy.before == read_json(mood.scores("mood"))["metrics"]["accuracy"]
    assert accuracy.limit == pytest.approx(1 / 40)


@pytest.mark.parametrize("format", ["fp32", "int8"])
def test_a_reranker_is_measured_on_pairs(model_folders, tmp_path: Path, format: str) -> None:
    from transformers import AutoModelForSequenceClassification

    source = resolve(model_folders["bert-pairs"])
    assert source.kind == "rerank" and source.labels == ()
    done = export(source, format, Options(out=tmp_path / "out"))
    figure = check(done.parity, "correlation of scores")
    assert figure.ok and figure.after > (0.99 if format == "int8" else 0.9999999)
    reference = read_json(done.folder / "reference.json")
    assert reference["kind"] == "rerank" and len(set(reference["logits"])) == 3
    assert resolve(done.folder).kind == "rerank"
    assert "scores how well a text answers a query" in (done.folder / "README.md").read_text()
    if format == "fp32":
        assert AutoModelForSequenceClassification.from_pretrained(done.folder).config.num_labels == 1


def test_the_command_exports_lists_and_explains(
    notes: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from adaptkit.cli.app import app
    from adaptkit.cli.console import run

    assert (
        run(app, ["export", str(notes.path), "--format", "int8", "--out", str(tmp_path / "out"), "--json"])
        == 0
    )
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert (
        printed["format"] == "int8"
        and printed["parity"]["passed"]
        and Path(printed["folder"]) == tmp_path / "out"
    )
    assert all(json.loads(line) for line in shown.err.splitlines() if line.startswith("{"))
    assert run(app, ["export", "--list"]) == 0 and "int4" in capsys.readouterr().out
    assert run(app, ["export", "--format", "int8"]) == 2
    assert "no model was given" in capsys.readouterr().err
    assert (
        run(app, ["export", str(tmp_path / "nothing")]) == 2 and "no such folder" in capsys.readouterr().err
    )
