"""Round a whole model: which layers, by which method, and on which rows of text. Home of
export.quantise.model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_exports import write_models
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from adaptkit import models
from adaptkit.data import DataConfig, read
from adaptkit.data.heldout import CALIBRATION_ROWS, Calibration
from adaptkit.errors import ConfigError
from adaptkit.export.formats import FORMATS
from adaptkit.export.parity.evaluation_data import EvaluationData
from adaptkit.export.quantise.model import quantise
from adaptkit.export.quantise.rounding import round_to_nearest
from adaptkit.run import write_jsonl

Tiny = tuple[PreTrainedModel, PreTrainedTokenizerFast]
LENGTH = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_text: list[str]) -> Path:
    return write_models(tmp_path_factory.mktemp("quantise"), tiny_text)["llama"]


@pytest.fixture
def tiny(folder: Path) -> Tiny:
    return models.load(folder, "causal").eval(), models.load_tokenizer(folder)


def data_of(tmp_path: Path, texts: list[str]) -> EvaluationData:
    """Text to calibrate on, in windows of LENGTH tokens."""
    write_jsonl(tmp_path / "text.jsonl", [{"text": text} for text in texts])
    rows = read(DataConfig(files=[str(tmp_path / "text.jsonl")]), "text")
    calibration = Calibration(rows, rows.digest)
    return EvaluationData(
        [], "a test", seq_len=LENGTH, calibration=calibration, calibration_file="text.jsonl"
    )


def test_rounding_to_the_nearest_leaves_the_model_as_it_is(tiny: Tiny) -> None:
    model, tokenizer = tiny
    said: list[str] = []
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantised = quantise(
        model, tokenizer, FORMATS["int8"], "rtn", EvaluationData([], ""), "here", said.append
    )
    assert quantised.calibration is None and tuple(quantised.layers) == quantised.scheme.layers
    name = quantised.scheme.layers[0]
    nearest = round_to_nearest(before[f"{name}.weight"], "int8")
    assert torch.equal(quantised.layers[name].values, nearest.values)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert said == [f"rounding {len(quantised.layers)} matrices to int8"]


def test_gptq_leaves_the_rounded_weights_in_the_model_and_says_what_it_read(
    tiny: Tiny, tmp_path: Path, tiny_text: list[str]
) -> None:
    model, tokenizer = tiny
    said: list[str] = []
    data = data_of(tmp_path, tiny_text[:20])
    quantised = quantise(model, tokenizer, FORMATS["int8"], "gptq", data, "here", said.append)
    for name, rounded in quantised.layers.items():
        assert torch.equal(model.get_submodule(name).weight, rounded.dequantised())
    record = quantised.calibration
    assert record is not None and (record.origin, record.file) == ("training rows of the run", "text.jsonl")
    assert data.calibration is not None and record.digest == data.calibration.digest
    assert 1 < record.rows <= CALIBRATION_ROWS and record.tokens == record.rows * LENGTH
    assert said == ["rounded 1 of 2 layers", "rounded 2 of 2 layers"]


def test_a_text_shorter_than_one_window_is_one_short_row(tiny: Tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    data = data_of(tmp_path, ["a short text"])
    record = quantise(model, tokenizer, FORMATS["int8"], "gptq", data, "here", lambda text: None).calibration
    assert record is not None and record.rows == 1 and 0 < record.tokens < LENGTH


def test_gptq_without_text_says_what_to_give(tiny: Tiny, tmp_path: Path) -> None:
    model, tokenizer = tiny
    data = replace(data_of(tmp_path, ["x"]), calibration=None)
    with pytest.raises(ConfigError, match="none is known for this model") as caught:
        quantise(model, tokenizer, FORMATS["int8"], "gptq", data, "here", lambda text: None)
    assert "--calibration FILE" in (caught.value.fix or "")
