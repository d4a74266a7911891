"""Questions by a served generator: asked once, kept through kills, filtered by rules that are counted,
without the key."""

from __future__ import annotations

import itertools
import json
import re
import threading
from pathlib import Path

import pytest
import tiny_embed
from fake_openai import KEY, FakeServer

from adaptkit.cli.console import run as run_command
from adaptkit.data.readers import DataConfig
from adaptkit.embed.examples import read_examples
from adaptkit.embed.questions import MAX_WORDS, questions_of, write_questions
from adaptkit.errors import ConfigError, DataError, ServerError
from adaptkit.run import read_json, read_jsonl

NUM = 20
GENERATOR = {"model": "writer", "server": "127.0.0.1:1"}


def document(number: int) -> str:
    given = f"Patient {number} was given the blue drug number {number}"
    return f"{given} and was well again after {number + 3} weeks of rest."


@pytest.fixture
def files(tmp_path) -> list[str]:
    rows = [{"_id": f"d{i}", "text": document(i)} for i in range(NUM)]
    return [str(tiny_embed.write(tmp_path / "docs.jsonl", rows))]


def answering(request: str) -> str:
    """Two questions of the text, each about its number."""
    number = re.search(r"Patient (\d+)", request)[1]
    return f"1. How did case {number} end?\n2. Which pill did case {number} get?\n"


def test_answers_become_questions():
    thought = "<think>1. a plan?</think>\n"
    lines = '1. What is it?\n- "How long does it take?"\n\n  Q3: Why?\n***\n(4) Where\n* 2019 in figures'
    assert questions_of(thought + lines) == [
        "What is it?",
        "How long does it take?",
        "Why?",
        "Where",
        "2019 in figures",
    ]
    assert questions_of("<think>never ends") == [] and questions_of(" \n") == []


def test_pairs_are_what_training_reads(files, tmp_path):
    found = write_questions(files, tmp_path / "out", answering, GENERATOR, count=2)
    rows = list(read_jsonl(tmp_path / "out/pairs.jsonl"))
    assert [row["from"] for row in rows] == [f"d{i}" for i in range(NUM) for _ in range(2)]
    assert rows[3] == {"anchor": "Which pill did case 1 get?", "positive": document(1), "from": "d1"}
    assert found["counts"] == {"documents": NUM, "pairs": 2 * NUM, "answers without a question": 0}
    assert (
        found["model"] == "writer"
        and "{text}" in found["prompt"]
        and re.fullmatch(r"\d{4}-\d\d-\d\d", found["finished"])
    )
    examples = read_examples(DataConfig(files=[str(tmp_path / "out/pairs.jsonl")]), "infonce")
    assert examples.rows[3].texts == (rows[3]["anchor"], rows[3]["positive"])


def test_every_question_that_is_left_out_is_counted(tmp_path):
    texts = [document(1), document(2), document(2), "too short", "word " * (MAX_WORDS + 50)]
    path = tiny_embed.write(tmp_path / "docs.jsonl", [{"text": text} for text in texts])
    answers = {
        "Patient 1": "How did it end?\nhow did it END\nthe blue drug number 1\n"
        + "why " * 41
        + "\nWho was ill?\nWho got well?",
        "Patient 2": "How did it end?",
        "word word": "   \n",
    }
    requests = []

    def ask(request: str) -> str:
        requests.append(request)
        return next(answer for start, answer in answers.items() if start in request)

    found = write_questions([str(path)], tmp_path / "out", ask, GENERATOR, count=2, jobs=1)
    assert found["counts"] == {
        "documents": 5,
        "documents too short": 1,
        "documents seen before": 1,
        "pairs": 2,
        "questions asked before": 2,
        "questions copied from the text": 1,
        "questions too long": 1,
        "questions beyond the count": 1,
        "answers without a question": 1,
    }
    assert len(requests) == 3 and max(len(request.split()) for request in requests) < MAX_WORDS + 60


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn line"])
def test_a_killed_run_asks_only_for_what_is_missing(files, tmp_path, torn):
    whole = write_questions(files, tmp_path / "whole", answering, GENERATOR, jobs=1)
    asked, count = [], itertools.count()

    def dying(request: str) -> str:
        if next(count) >= 7:
            raise KeyboardInterrupt
        return answering(request)

    with pytest.raises(KeyboardInterrupt):
        write_questions(files, tmp_path / "cut", dying, GENERATOR, jobs=1)
    kept = tmp_path / "cut/answers.jsonl"
    done = len(list(read_jsonl(kept)))
    assert (
        0 < done <= 7
        and not (tmp_path / "cut/pairs.jsonl").exists()
        and not read_json(tmp_path / "cut/questions.json")["finished"]
    )
    if torn:
        kept.write_text(kept.read_text() + '{"passage": "12')

    def asking(request: str) -> str:
        asked.append(request)
        return answering(request)

    again = write_questions(files, tmp_path / "cut", asking, GENERATOR, jobs=3)
    assert len(asked) == NUM - done and again["counts"] == whole["counts"]
    assert (tmp_path / "cut/pairs.jsonl").read_bytes() == (tmp_path / "whole/pairs.jsonl").read_bytes()
    assert write_questions(files, tmp_path / "cut", dying, GENERATOR) == again, (
        "what is finished is not asked again"
    )


def test_a_failure_loses_no_answer_that_was_under_way(files, tmp_path):
    together = threading.Barrier(4, timeout=30)

    def ask(request: str) -> str:
        number = int(re.search(r"Patient (\d+)", request)[1])
        if number < 4:
            together.wait()
        if number == 0:
            raise ServerError("gone")
        return answering(request)

    with pytest.raises(ServerError, match="gone"):
        write_questions(files, tmp_path / "out", ask, GENERATOR, jobs=4)
    kept = " ".join(row["answer"] for row in read_jsonl(tmp_path / "out/answers.jsonl"))
    assert all(f"case {number} " in kept for number in (1, 2, 3)) and "case 0 " not in kept


def test_requests_go_out_together(files, tmp_path):
    gate = threading.Barrier(4, timeout=30)

    def ask(request: str) -> str:
        gate.wait()
        return answering(request)

    assert write_questions(files, tmp_path / "out", ask, GENERATOR, jobs=4)["counts"]["pairs"] == 2 * NUM


def test_what_cannot_go_on_is_told(files, tmp_path):
    write_questions(files, tmp_path / "out", answering, GENERATOR)
    with pytest.raises(DataError, match="another model"):
        write_questions(files, tmp_path / "out", answering, {**GENERATOR, "model": "other"})
    with pytest.raises(DataError, match="another prompt"):
        write_questions(files, tmp_path / "out", answering, GENERATOR, prompt="Ask: {text}")
    with pytest.raises(ConfigError, match="where the text goes"):
        write_questions(files, tmp_path / "new", answering, GENERATOR, prompt="Ask something")
    with pytest.raises(DataError, match="no answer holds a question"):
        write_questions(files, tmp_path / "none", lambda request: "", GENERATOR)


@pytest.mark.parametrize("mode", ["", "no-template"])
def test_the_command_asks_a_server_and_keeps_its_key_to_itself(files, tmp_path, capsys, monkeypatch, mode):
    from adaptkit.cli.app import app

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "prompt").write_text("Ask {count} things of: {text}")
    with FakeServer([("vectors", "embed"), ("writer", "generate")]) as server:
        server.answer, server.behave["writer"] = answering, mode
        words = [
            "embed",
            "questions",
            *files,
            "--server",
            f"{server.url}/v1",
            "--out",
            str(tmp_path / "out"),
            "--count",
            "2",
        ]
        assert run_command(app, [*words, "--json"]) == 2 and "401" in capsys.readouterr().err
        words += ["--key-file", str(tmp_path / "key"), "--prompt-file", str(tmp_path / "prompt")]
        assert run_command(app, [*words, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        asked = [body for _, body in server.requests if "messages" in body or "prompt" in body]
    assert (
        told["counts"]["pairs"] == 2 * NUM
        and told["model"] == "writer"
        and told["server"] == server.url.removeprefix("http://")
    )
    plain = [
        body["prompt"] if mode else body["messages"][0]["content"]
        for body in asked
        if ("prompt" in body) == bool(mode)
    ]
    assert sorted(plain) == sorted(f"Ask 2 things of: {document(i)}" for i in range(NUM))
    written = "".join(path.read_text() for path in Path(tmp_path / "out").rglob("*") if path.is_file())
    assert KEY not in written
