"""The first answers of a healthy server: that there are some, and that they are those of transformers.

Home of serve.engine.expected_answers.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")

from tiny_served import SMALL, write_model

from adaptkit.client.connection import Refusal
from adaptkit.client.openai import Completion
from adaptkit.errors import ServerError
from adaptkit.export.source import Source
from adaptkit.run import read_json, write_json
from adaptkit.serve.engine import expected_answers
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.expected_answers import Expected, expect
from adaptkit.serve.engine.first_answers import check_answer, compare_with_transformers


class Says:
    """A client whose every answer is the one given."""

    def __init__(self, answer: object):
        self.answer = answer

    def complete(self, *_: object, **__: object) -> object:
        return self.answer

    embed = classify = rerank = complete


def completion(tokens: int = 1, logprob: float = -0.5) -> Completion:
    return Completion("x", "length", 1, tokens, logprobs=(logprob,))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("generate", completion(), [completion(tokens=0), completion(logprob=math.nan)]),
        ("embed", [[0.5, 0.0]], [[[]], [[0.0, 0.0]], [[math.inf, 0.1]]]),
        ("classify", [("a", [0.25, 0.75])], [[("a", [0.5, 0.2])], [("a", [0.2, 0.3, 0.5])]]),
        ("rerank", [0.5], [[math.nan]]),
    ],
)
def test_only_a_real_answer_is_one(tmp_path: Path, kind: str, good: object, bad: list[object]) -> None:
    source = Source(tmp_path, kind, "m", "", labels=("a", "b") if kind == "classify" else ())
    check_answer(Says(good), source, "m")
    for answer in bad:
        with pytest.raises(ServerError, match="its first answer is none"):
            check_answer(Says(answer), source, "m")


class Generates:
    """A client whose continuations are the ones given, each `off` by as many nats."""

    def __init__(self, answers: dict, off: float = 0.0):
        self.answers, self.off = answers, off

    def complete(self, name: str, prompt: list[int], **options: object) -> Completion:
        if self.off == math.inf:
            raise Refusal("400: too long", status=400)
        place = self.answers["prompts"].index(prompt)
        logprobs = tuple(value - self.off for value in self.answers["logprobs"][place])
        return Completion("", "length", 1, 2, tuple(self.answers["tokens"][place]), logprobs)


ANSWERS = {"kind": "generate", "prompts": [[1, 2]], "tokens": [[3, 4]], "logprobs": [[-1.0, -2.0]]}


def test_answers_of_other_weights_are_refused(tmp_path: Path) -> None:
    launch, expected = Launch(write_model(tmp_path / "m"), SMALL), Expected(ANSWERS)
    assert launch.exact
    assert compare_with_transformers(Generates(ANSWERS, 0.001), launch, expected) is expected
    for off in (0.05, math.nan, -0.05):
        with pytest.raises(ServerError, match="does not answer as transformers does"):
            compare_with_transformers(Generates(ANSWERS, off), launch, expected)
    rounded = Launch(write_model(tmp_path / "m"), SMALL, extra=("--dtype", "bfloat16"))
    assert compare_with_transformers(Generates(ANSWERS, 0.3), rounded, expected) is expected
    with pytest.raises(ServerError, match="as transformers does"):
        compare_with_transformers(Generates(ANSWERS, 0.7), rounded, expected)


def test_what_is_not_compared_is_said(tmp_path: Path) -> None:
    launch = Launch(write_model(tmp_path / "m"), SMALL)
    assert compare_with_transformers(Generates(ANSWERS), launch, Expected(unchecked="why")).unchecked == "why"
    refused = compare_with_transformers(Generates(ANSWERS, math.inf), launch, Expected(ANSWERS))
    assert "refuses the sentences" in refused.unchecked and "refuses" in refused.in_words()
    changed = Launch(write_model(tmp_path / "m"), SMALL, extra=("--hf-overrides", "{}"))
    other = compare_with_transformers(Generates(ANSWERS, 5.0), changed, Expected(ANSWERS))
    assert "flags after" in other.unchecked
    assert Expected(ANSWERS).in_words() == "; it answers as transformers does" and Expected().in_words() == ""


@pytest.mark.parametrize("name", ["llama", "bert-classes", "bert-pairs"])
def test_transformers_is_asked_for_each_kind(model_folders: dict[str, Path], name: str) -> None:
    expected = expect(model_folders[name])
    assert expected.answers is not None and not expected.unchecked
    assert expected.answers["kind"] == {"llama": "generate", "bert-classes": "classify"}.get(name, "rerank")


def test_folders_whose_answers_would_not_tell_are_left_out(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "modules.json" in expect(model_folders["bert"]).unchecked
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in model_folders["llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "quantization_config": {"quant_method": "x"}})
    assert "quantised" in expect(folder).unchecked
    write_json(folder / "config.json", {**config, "problem_type": "multi_label_classification"})
    assert "multi_label" in expect(folder).unchecked
    write_json(folder / "config.json", config)
    (folder / "tokenizer.json").write_text("{}")
    assert "no answers to compare with" in expect(folder).unchecked
    monkeypatch.setattr(expected_answers, "MOST_PARAMETERS", 10)
    assert "parameters, over" in expect(folder).unchecked
    (folder / "reference.json").write_text("{}")
    assert expect(folder) == Expected()
