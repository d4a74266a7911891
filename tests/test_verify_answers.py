"""Answers are compared by what rounding explains, whatever engine gives them.

Home of export.verify.record, export.verify.answer_changes, export.verify.server_answers, cli.verify.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adaptkit.cli.app import app
from adaptkit.client.connection import Refusal
from adaptkit.client.openai import Completion, Model
from adaptkit.errors import ServerError
from adaptkit.export.source import LABEL_SET, ONE_CLASS, REGRESSION
from adaptkit.export.verify.answer_changes import (
    Given,
    Verdict,
    compare_answers,
    distance,
    overall,
    tolerances,
)
from adaptkit.export.verify.record import (
    ACTIVATIONS,
    ENDED,
    Answer,
    AnswerKind,
    AnswerRecord,
    Questions,
    log_odds,
    write_answers,
)
from adaptkit.export.verify.server_answers import ask_server

QUESTIONS = Questions(
    texts=("a", "b c"), long="a long text", openings=("once",), talk=(), new_tokens=3, last_tokens=2
)
TALK = json.dumps([{"role": "user", "content": "hello"}])


def record(noise: float = 1e-3, **extra: Any) -> AnswerRecord:
    """What a generator answered."""
    answers = {
        AnswerKind.SETTINGS: (Answer(text="padding", exact=("left",)),),
        AnswerKind.TOKENS: (
            Answer(text="a", exact=(0, 5)),
            Answer(text="b c", exact=(0, 6, 7)),
            Answer(text="a long text", exact=tuple(range(9))),
        ),
        AnswerKind.CHAT: (Answer(text=TALK, exact=(0, 8, 9)),),
        AnswerKind.STOPS: (Answer(text="1", exact=("stops",)), Answer(text="5", exact=("goes on",))),
        AnswerKind.GREEDY: (
            Answer(text="once", exact=(4, 5, ENDED), values=(-1.0, -2.0), gaps=(3.0, 0.01, 2.0)),
        ),
        AnswerKind.LOG_PROBABILITIES: (
            Answer(text="a", values=(-3.0,)),
            Answer(text="b c", values=(-5.0, -1.0)),
        ),
        AnswerKind.BITS: (Answer(text="all texts", values=(9 / math.log(2) / 4,)),),
    }
    moved = {AnswerKind.LOG_PROBABILITIES: noise, AnswerKind.BITS: noise}
    return AnswerRecord(
        kind="generate",
        stored_as="float32",
        questions=QUESTIONS,
        answers=answers,
        noise={"float32": {kind: 1e-7 for kind in moved}, "bfloat16": moved},
        **extra,
    )


class Server:
    """A client whose server answers as `record` holds, with every number moved by `off`."""

    base_url = "http://here"

    def __init__(self, off: float = 0.0, *, ends: int = 1, refuses: str = "", next_token: int = 5) -> None:
        self.off, self.ends, self.refuses, self.next_token = off, ends, refuses, next_token

    def models(self) -> list[Model]:
        return [Model("writer")]

    def tokenize(self, model: str, text: str, *, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens and text != "a long text"
        return {"a": [0, 5], "b c": [0, 6, 7]}[text]

    def tokenize_chat(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        assert messages == json.loads(TALK)
        return [0, 8, 9]

    def complete(self, model: str, prompt: str, *, max_tokens: int, **options: Any) -> Completion:
        assert model == "writer"
        if self.refuses in options:
            raise Refusal("is not allowed", status=400)
        if "logit_bias" in options:
            (token,) = options["logit_bias"]
            return Completion("", "stop" if int(token) == self.ends else "length", 1, 1)
        if "prompt_logprobs" in options:
            values = {"a": (-3.0,), "b c": (-5.0, -1.0)}[prompt]
            entries = tuple({9: value - self.off} for value in values)
            return Completion("", "length", 2, 1, prompt_logprobs=({}, *entries))
        tokens = (4, self.next_token, 1)
        return Completion("", "stop", 2, 3, tokens, (-1.0 - self.off, -2.0 - self.off, -0.1))


def asked(server: Server, precision: Any = "float32", **options: Any) -> dict[AnswerKind, Any]:
    stored = record(**options)
    given = ask_server(server, None, stored, precision)  # type: ignore[arg-type]
    results = compare_answers(stored, given, tolerances(stored, given))
    return {**{result.kind: result for result in results}, "all": overall(results)}  # type: ignore[dict-item]


def test_a_server_that_answers_alike_is_the_same() -> None:
    results = asked(Server())
    assert results.pop("all") is Verdict.SAME  # type: ignore[call-overload]
    assert results.pop(AnswerKind.SETTINGS).verdict is Verdict.CANNOT_TELL
    assert {result.verdict for result in results.values()} == {Verdict.SAME}
    assert results[AnswerKind.TOKENS].compared == 2, "the text that may be cut is left out"


def test_a_tolerance_is_what_the_precision_explains() -> None:
    assert asked(Server(off=0.004), "bfloat16")["all"] is Verdict.SAME  # type: ignore[index]
    assert asked(Server(off=0.02), "bfloat16")["all"] is Verdict.CHANGED  # type: ignore[index]
    strict = asked(Server(off=0.004), "float32")
    assert strict[AnswerKind.LOG_PROBABILITIES].verdict is Verdict.CHANGED
    assert strict[AnswerKind.LOG_PROBABILITIES].example.text == "a", "the shortest text"
    assert asked(Server(off=math.nan))["all"] is Verdict.CHANGED  # type: ignore[index]


def test_rounded_inputs_widen_a_servers_tolerance_only() -> None:
    noise = {"float32": {AnswerKind.LOG_PROBABILITIES: 0.0}, ACTIVATIONS: {AnswerKind.LOG_PROBABILITIES: 0.1}}
    stored = record().model_copy(update={"noise": noise})
    given = ask_server(Server(), None, stored, "float32")  # type: ignore[arg-type]
    assert given.rounds_activations
    assert tolerances(stored, given).of(AnswerKind.LOG_PROBABILITIES) == pytest.approx(0.25, abs=1e-4)
    local = Given("transformers", {})
    assert tolerances(stored, local).of(AnswerKind.LOG_PROBABILITIES) < 1e-5


def test_answers_that_hide_a_change_tell_nothing() -> None:
    blind = asked(Server(), "bfloat16", noise=0.2)
    assert blind[AnswerKind.LOG_PROBABILITIES].verdict is Verdict.CANNOT_TELL
    assert "texts are" in blind[AnswerKind.LOG_PROBABILITIES].note


def test_another_token_is_a_change_unless_the_choice_was_close() -> None:
    close = asked(Server(next_token=6), "bfloat16", noise=1e-3)[AnswerKind.GREEDY]
    assert close.verdict is Verdict.SAME and "closer than the tolerance" in close.note
    clear = asked(Server(next_token=6))[AnswerKind.GREEDY]
    assert clear.verdict is Verdict.CHANGED
    assert (clear.example.expected, clear.example.got) == ("4 5 -1", "4 6 -1")


def test_a_wrong_end_is_seen_from_outside() -> None:
    result = asked(Server(ends=5))[AnswerKind.STOPS]
    assert result.verdict is Verdict.CHANGED and result.changed == 2


def test_what_a_server_does_not_give_cannot_be_told() -> None:
    results = asked(Server(refuses="prompt_logprobs"))
    assert results["all"] is Verdict.CANNOT_TELL  # type: ignore[index]
    assert "is not allowed" in results[AnswerKind.LOG_PROBABILITIES].note
    assert results[AnswerKind.GREEDY].verdict is Verdict.SAME


def test_of_several_models_one_must_be_named() -> None:
    server = Server()
    server.models = lambda: [Model("a"), Model("b")]  # type: ignore[method-assign]
    with pytest.raises(ServerError, match="2 models: a, b"):
        ask_server(server, None, record(), "float32")  # type: ignore[arg-type]


def test_distances_and_log_odds() -> None:
    assert distance(AnswerKind.VECTORS, (3.0, 4.0), (3.0, 3.0)) == pytest.approx(0.2)
    assert distance(AnswerKind.LOG_PROBABILITIES, (3.0, 4.0), (3.0, 3.0)) == pytest.approx(0.5**0.5)
    assert distance(AnswerKind.VECTORS, (1.0,), (1.0, 0.0)) == math.inf
    assert distance(AnswerKind.VECTORS, (1.0,), (math.nan,)) == math.inf
    assert log_odds([0.25, 0.75], ONE_CLASS) == pytest.approx((math.log(0.25), math.log(0.75)), abs=1e-6)
    assert log_odds([0.5, 0.0], LABEL_SET) == pytest.approx((0.0, -13.8155), abs=1e-4)
    assert log_odds([7.25], REGRESSION) == (7.25,)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["{0}", "--engine", "tgi"], "no engine 'tgi'"),
        (["{0}", "{0}", "--engine", "vllm"], "two folders are compared by transformers"),
        (["{0}", "--model", "x"], "only a server serves several"),
        (["nowhere"], "is no model folder"),
        (["{0}", "--engine", "vllm", "--dtype", "float32"], "vLLM is started as"),
    ],
)
def test_words_that_do_not_go_together_are_refused(tmp_path: Path, words: list[str], problem: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["verify", *(word.format(tmp_path) for word in words)])
    assert problem in str(result.exception)


@pytest.mark.parametrize(
    ("server", "code"), [(Server(), 0), (Server(off=1.0), 1), (Server(refuses="prompt_logprobs"), 3)]
)
def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, code: int) -> None:
    from adaptkit.cli import verify

    (tmp_path / "config.json").write_text("{}")
    write_answers(tmp_path, record())
    monkeypatch.setattr(
        verify,
        "_ask_url",
        lambda url, model, key_file, stored, dtype: ask_server(server, model, stored, dtype),  # type: ignore[arg-type]
    )
    words = ["verify", str(tmp_path), "--engine", "http://here:8000", "--dtype", "float32"]
    result = CliRunner().invoke(app, words, standalone_mode=False)
    assert result.return_value == code, result.output
    assert "next: " in result.output and "tolerance: 8 times what rounding" in result.output
