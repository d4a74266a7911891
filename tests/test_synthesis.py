"""Rows by a generator: asked for once, kept through kills, judged by what is not the generator, apart from
tests, and everything that is left out counted with its reason.

Home of synthesis.driver, synthesis.record, synthesis.answer_log, synthesis.generators, synthesis.kind,
synthesis.row_filters, synthesis.synthetic_rows, synthesis.synthetic_questions, synthesis.synthetic_labelled,
synthesis.synthetic_instructions and cli.synthesise.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_embed
from fake_openai import KEY, FakeServer
from paid_server import KEY as PAID_KEY
from paid_server import PaidServer

from adaptkit.cli.app import app
from adaptkit.cli.console import run as run_command
from adaptkit.client.paid import TokenPrice
from adaptkit.data.readers import DataConfig, Row, read
from adaptkit.embed.examples import read_examples
from adaptkit.errors import ConfigError, DataError, ServerError
from adaptkit.run import read_jsonl
from adaptkit.synthesis import row_filters
from adaptkit.synthesis.driver import Order, Synthesis
from adaptkit.synthesis.generators import FolderGenerator, Written
from adaptkit.synthesis.kind import stands_in
from adaptkit.synthesis.record import SynthesisRecord
from adaptkit.synthesis.synthetic_instructions import pairs_of
from adaptkit.synthesis.synthetic_labelled import text_of
from adaptkit.synthesis.synthetic_questions import questions_of
from adaptkit.synthesis.synthetic_rows import Candidate, Passage, Request

NUM = 12
DRUGS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu")


class Script:
    """A generator that answers by a function."""

    price: TokenPrice | None = None

    def __init__(self, answer: Callable[[str], str], *, at_once: int = 1, cut: bool = False):
        self.identity, self.at_once, self.batch = "writer at here", at_once, 1
        self.answer, self.cut, self.asked = answer, cut, list[str]()

    def write(self, requests: Sequence[str], max_tokens: int) -> list[Written]:
        self.asked += requests
        return [Written(self.answer(request), self.cut) for request in requests]


def document(number: int) -> str:
    given = f"Patient {number} was given the drug {DRUGS[number]}"
    return f"{given} and was well again after {number + 3} weeks of rest."


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rows = [{"_id": f"d{i}", "text": document(i)} for i in range(NUM)]
    return [str(tiny_embed.write(tmp_path / "docs.jsonl", rows))]


def number_in(request: str) -> int:
    found = re.search(r"Patient (\d+)", request)
    assert found is not None
    return int(found[1])


def asking(request: str) -> str:
    """Two questions of the text, each about its drug."""
    drug = DRUGS[number_in(request)]
    return f"1. How did {drug} end?\n2. Which pill was {drug} then?\n"


def questions(files: list[str], **order: Any) -> Order:
    return Order(files=files, kind="questions", **{"count": 2, "top": 1, **order})


def written(out: Path, name: str = "rows") -> list[dict[str, Any]]:
    return list(read_jsonl(out / f"{name}.jsonl"))


def test_answers_become_questions() -> None:
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


def test_pairs_are_what_training_reads_and_say_that_they_are_synthetic(
    files: list[str], tmp_path: Path
) -> None:
    record = Synthesis(questions(files)).write(tmp_path / "out", Script(asking))
    rows = written(tmp_path / "out")
    assert sorted(row["group"] for row in rows) == sorted(f"d{i}" for i in range(NUM) for _ in range(2))
    row = next(row for row in rows if "pill" in row["anchor"] and row["group"] == "d1")
    assert row["anchor"] == "Which pill was beta then?" and row["positive"] == document(1)
    assert (row["source"], row["synthetic_kind"]) == ("synthetic", "questions")
    assert row["generator"] == "writer at here" and len(row["request_sha256"]) == 64
    assert record.num_rows == 2 * NUM and {"documents": NUM, "passages asked about": NUM}.items() <= (
        record.counts.items()
    )
    stored = json.loads((tmp_path / "out/synthesis.json").read_text())
    assert SynthesisRecord.model_validate(stored) == record and "{text}" in record.prompt
    examples = read_examples(DataConfig(files=[str(tmp_path / "out/rows.jsonl")]), "infonce")
    assert (row["anchor"], row["positive"]) in [example.texts for example in examples.rows]


def test_every_question_that_is_left_out_is_counted_and_kept(tmp_path: Path) -> None:
    texts = [document(1), document(2), document(2), "too short", document(5)]
    path = tiny_embed.write(tmp_path / "docs.jsonl", [{"text": text} for text in texts])
    answers = {
        1: "given the drug beta\n" + "why " * 41 + "\nWhich patient had beta?\nWho got well after?",
        2: "Who has red hair?\nwhich patient had BETA\nHow was gamma after rest",
        5: "   \n",
    }
    script = Script(lambda request: answers[number_in(request)])
    record = Synthesis(questions([str(path)], count=3)).write(tmp_path / "out", script)
    left = {reason: number for reason, number in record.counts.items() if number}
    assert left == {
        "documents": 5,
        "passages too short": 1,
        "passages seen before": 1,
        "passages asked about": 3,
        "answers without a row": 1,
        "copied from the passage": 1,
        "too long": 1,
        "beyond the count": 1,
        "do not find their passage": 2,
    }
    assert record.num_rows == 2 and len(script.asked) == 3
    rejected = {row["anchor"]: row["reason"] for row in written(tmp_path / "out", "rejected")}
    assert rejected["Who has red hair?"] == "do not find their passage", "no word of it is in any passage"
    assert rejected["which patient had BETA"] == "do not find their passage", "it finds another"
    assert len(rejected) == 5


def test_an_answer_that_was_cut_loses_its_last_question(files: list[str], tmp_path: Path) -> None:
    record = Synthesis(questions(files)).write(tmp_path / "out", Script(asking, cut=True))
    assert record.num_rows == NUM and record.counts["rows cut at the most tokens"] == NUM
    assert not [row for row in written(tmp_path / "out") if "pill" in row["anchor"]]


def test_questions_of_one_wording_stay_once(files: list[str], tmp_path: Path) -> None:
    def asks(request: str) -> str:
        return f"Which pill was {DRUGS[number_in(request)]} then?"

    same = Script(lambda request: "How many weeks of rest did it take until the patient was well?")
    with_same = Synthesis(questions(files, top=NUM)).write(tmp_path / "same", same)
    assert with_same.num_rows == 1 and with_same.counts["repeat another synthetic row"] == NUM - 1
    real = tiny_embed.write(
        tmp_path / "real.jsonl", [{"query": asks("Patient 3"), "passage": "another text, of another place"}]
    )
    order = questions(files, top=NUM, train=DataConfig(files=[str(real)]))
    record = Synthesis(order).write(tmp_path / "real", Script(asks))
    assert record.counts["repeat a training row"] == 1 and record.num_rows == NUM - 1
    assert asks("Patient 3") not in [row["query"] for row in written(tmp_path / "real")]
    assert set(written(tmp_path / "real")[0]) >= {"query", "passage"}, "columns as the real rows name theirs"


@pytest.mark.parametrize("torn", [False, True], ids=["clean", "torn line"])
def test_a_killed_run_asks_only_for_what_is_missing(files: list[str], tmp_path: Path, torn: bool) -> None:
    Synthesis(questions(files)).write(tmp_path / "whole", Script(asking))
    count = itertools.count()

    def dying(request: str) -> str:
        if next(count) >= 7:
            raise KeyboardInterrupt
        return asking(request)

    cut = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        Synthesis(questions(files)).write(cut, Script(dying))
    done = len(written(cut, "answers"))
    assert 0 < done <= 7 and not (cut / "rows.jsonl").exists()
    if torn:
        with (cut / "answers.jsonl").open("a") as file:
            file.write('{"key": "12')
    again = Script(asking, at_once=3)
    assert Synthesis(questions(files)).forecast(cut, again).missing == NUM - done
    Synthesis(questions(files)).write(cut, again)
    assert len(again.asked) == NUM - done
    assert (cut / "rows.jsonl").read_bytes() == (tmp_path / "whole/rows.jsonl").read_bytes()
    third = Script(dying)
    Synthesis(questions(files)).write(cut, third)
    assert not third.asked, "what is answered is not asked again"
    other = Script(asking)
    other.identity = "another at here"
    Synthesis(questions(files)).write(cut, other)
    assert len(other.asked) == NUM, "another model is"


def test_a_failure_loses_no_answer_that_was_under_way(files: list[str], tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=30)
    turn = itertools.count()

    def failing(request: str) -> str:
        number = next(turn)
        if number < 4:
            together.wait()
        if number == 0:
            raise ServerError("gone")
        return asking(request)

    with pytest.raises(ServerError, match="gone"):
        Synthesis(questions(files)).write(tmp_path / "out", Script(failing, at_once=4))
    assert len(written(tmp_path / "out", "answers")) >= 3


def test_fewer_passages_are_among_more(files: list[str], tmp_path: Path) -> None:
    asked = []
    for most in (3, 6):
        synthesis = Synthesis(questions(files, most_passages=most))
        asked.append({request.words for request in synthesis.requests})
        assert synthesis.counts["passages beyond --passages"] == NUM - most
    assert len(asked[0]) == 3 and asked[0] < asked[1]


def test_what_stands_in_a_test_is_not_sent_and_not_written(tmp_path: Path) -> None:
    secret = "the trial of omega found that nine of ten grown patients slept well through every single night"
    texts = [document(1), f"In a long report {secret} and so on.", document(3)]
    files = [str(tiny_embed.write(tmp_path / "docs.jsonl", [{"text": text} for text in texts]))]
    tests = [{"question": "How did beta end?", "answer": "well"}, {"question": secret, "answer": "yes"}]
    held = DataConfig(files=[str(tiny_embed.write(tmp_path / "test.jsonl", tests))])
    script = Script(asking)
    record = Synthesis(questions(files, against=(held,))).write(tmp_path / "out", script)
    assert not [request for request in script.asked if "omega" in request]
    assert record.counts["passages that overlap with a test"] == 1
    assert record.counts["overlap with a test row"] == 1
    anchors = [row["anchor"] for row in written(tmp_path / "out")]
    assert "How did delta end?" in anchors and "How did beta end?" not in anchors
    assert str(tmp_path / "test.jsonl") in record.files


def candidate(text: str) -> Candidate:
    return Candidate(Request(Passage("d", "p"), "w"), {"text": text}, text)


def test_a_row_that_nearly_equals_a_test_is_a_leak() -> None:
    words = [f"word{i}" for i in range(60)]
    near = [*words[:5], "other", *words[6:]]
    rows = read_rows([" ".join(words)])
    reasons = row_filters.leaked([candidate(" ".join(near)), candidate("nothing of it at all")], rows)
    assert reasons == ["overlap with a test row", ""]
    short = read_rows(["is it safe for children"])
    texts = ["Is it safe for children?", "is it safe for them"]
    assert row_filters.leaked([candidate(text) for text in texts], short) == ["overlap with a test row", ""]


def read_rows(texts: list[str]) -> row_filters.RealRows:
    return row_filters.RealRows([Row({"text": text}, "", str(i)) for i, text in enumerate(texts)])


BUGS = ("the screen is broken", "an error on the screen", "the program crashed with an error", "it is broken")
BILLS = ("the invoice is wrong", "please refund my money", "the invoice was paid twice", "a refund is due")


@pytest.fixture
def tickets(tmp_path: Path) -> DataConfig:
    """Real rows with columns and labels of their own."""
    rows = [{"body": text, "queue": 1} for text in BUGS] + [{"body": text, "queue": 2} for text in BILLS]
    path = tiny_embed.write(tmp_path / "tickets.jsonl", rows)
    return DataConfig(files=[str(path)], columns={"text": "body", "label": "queue"})


def test_labelled_rows_come_back_and_are_written_as_the_real_ones(
    files: list[str], tmp_path: Path, tickets: DataConfig
) -> None:
    def answer(request: str) -> str:
        number = number_in(request)
        assert "Text:" in request and request.rstrip().endswith("Text:")
        if 'label "1"' in request:
            assert "(a fault)" in request and not [text for text in BILLS if text in request]
            return f"an error on screen {DRUGS[number]}\n\nText: another"
        if number == 4:
            return "screen broken by an error"
        if number == 5:
            return BILLS[0]
        return f"Text: please refund invoice {DRUGS[number]}"

    order = Order(files, "rows", count=2, train=tickets, meanings={"1": "a fault"})
    record = Synthesis(order).write(tmp_path / "out", Script(answer))
    rows = written(tmp_path / "out")
    assert {row["queue"] for row in rows} == {1, 2}, "labels are numbers as in the real file"
    assert not [row for row in rows if "another" in row["body"] or row["body"].startswith("Text")]
    assert record.counts["judged to have another label"] == 1
    assert record.counts["repeat a training row"] == 1
    assert record.num_rows == 2 * NUM - 2
    both = DataConfig(files=[*tickets.files, str(tmp_path / "out/rows.jsonl")], columns=tickets.columns)
    together = read(both, "labelled").rows
    assert len(together) == 8 + record.num_rows
    assert [row.values["source"] for row in together[8:]] == ["synthetic"] * record.num_rows


def test_a_training_row_that_stands_in_a_test_is_not_shown(
    files: list[str], tmp_path: Path, tickets: DataConfig
) -> None:
    test = tiny_embed.write(tmp_path / "test.jsonl", [{"body": BUGS[0], "queue": 1}])
    held = DataConfig(files=[str(test)], columns=tickets.columns)
    synthesis = Synthesis(Order(files, "rows", count=2, train=tickets, against=(held,)))
    shown = "\n".join(request.words for request in synthesis.requests)
    assert BUGS[0] not in shown and BUGS[1] in shown and BILLS[0] in shown
    assert synthesis.counts["training rows not shown, as they overlap with a test"] == 1


def test_texts_end_where_the_next_example_begins() -> None:
    assert text_of(' Text: "it broke"\n\nText: next') == ("it broke", True)
    assert text_of("<think>so</think>it broke\non Monday") == ("it broke\non Monday", False)
    assert text_of("it broke\nPassage: more") == ("it broke", True)


def test_answers_become_instructions() -> None:
    plain = " What is it?\nAnswer: A drug.\n\nInstruction: Who?\nAnswer: A man\nof forty."
    expected = [("What is it?", "A drug."), ("Who?", "A man\nof forty.")]
    assert pairs_of(plain) == expected
    assert pairs_of(f"Instruction:{plain}") == expected
    assert pairs_of("1. **Question:** What is it?\n**Answer:** A drug.")[0] == ("What is it?", "A drug.")
    assert pairs_of("What is it?") == [] and pairs_of("What is it?\nAnswer:  \nInstruction: Who?") == []


def test_an_answer_must_be_supported_by_its_passage(files: list[str], tmp_path: Path) -> None:
    def answer(request: str) -> str:
        number = number_in(request)
        right = f"Patient {number} was well after {number + 3} weeks of rest."
        return f" What about {number}?\nAnswer: {right}\n\nInstruction: Is {number} old?\nAnswer: Green seas."

    order = Order(files, "instructions", count=2)
    record = Synthesis(order).write(tmp_path / "out", Script(answer))
    assert record.num_rows == record.counts["not supported by their passage"] == NUM
    rows = read(DataConfig(files=[str(tmp_path / "out/rows.jsonl")]), "sft").rows
    assert all("weeks of rest" in row.values["completion"] for row in rows)
    other = Synthesis(Order(files, "instructions", count=2, least_support=0.0))
    assert other.write(tmp_path / "all", Script(answer)).num_rows == 2 * NUM


def test_what_cannot_go_on_is_told(files: list[str], tmp_path: Path, tickets: DataConfig) -> None:
    with pytest.raises(ConfigError, match="where the text goes"):
        Synthesis(questions(files, prompt="Ask something"))
    with pytest.raises(ConfigError, match="real rows to be like"):
        Synthesis(Order(files, "rows"))
    with pytest.raises(ConfigError, match="has the label '3'"):
        Synthesis(Order(files, "rows", train=tickets, meanings={"3": "none"}))
    with pytest.raises(DataError, match="no row of 0 passes"):
        Synthesis(questions(files)).write(tmp_path / "none", Script(lambda request: ""))
    assert (tmp_path / "none/rejected.jsonl").exists()
    held = DataConfig(files=files)
    with pytest.raises(DataError, match="no passage to ask about"):
        Synthesis(questions(files, against=(held,)))


def test_a_model_in_a_folder_writes(files: list[str], model_folders: dict[str, Path]) -> None:
    generator = FolderGenerator(model_folders["llama"])
    answers = generator.write(["Ask:", "Ask something longer:"], 5)
    assert len(answers) == 2 and generator.write(["Ask:"], 5)[0] == answers[0]
    assert re.fullmatch(r"\S+ sha256:[0-9a-f]{16}", generator.identity)
    with pytest.raises(ConfigError, match="tokens at once"):
        generator.write(["Ask:"], 100_000)


@pytest.mark.parametrize("mode", ["", "no-template"])
def test_the_command_asks_a_server_and_keeps_its_key_to_itself(
    files: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "prompt").write_text("Ask {count} things of: {text}")
    out = tmp_path / "out"
    with FakeServer([("vectors", "embed"), ("writer", "generate")]) as server:
        server.answer, server.behave["writer"] = asking, mode
        words = ["data", "synthesise", *files, "--kind", "questions", "--server", f"{server.url}/v1"]
        words += ["--out", str(out), "--count", "2", "--json"]
        assert run_command(app, words) == 2 and "401" in capsys.readouterr().err
        words += ["--key-file", str(tmp_path / "key"), "--prompt-file", str(tmp_path / "prompt")]
        assert run_command(app, [*words, "--dry-run"]) == 0
        forecast = json.loads(capsys.readouterr().out)
        assert forecast["missing"] == forecast["requests"] == NUM and forecast["usd"] is None
        assert not [body for _, body in server.requests if "messages" in body or "prompt" in body]
        assert run_command(app, words) == 0
        told = json.loads(capsys.readouterr().out)
        asked = [body for _, body in server.requests if "messages" in body or "prompt" in body]
    assert told["num_rows"] == 2 * NUM and told["generator"] == f"writer at {server.url[7:]}"
    plain = [
        body["prompt"] if mode else body["messages"][0]["content"]
        for body in asked
        if ("prompt" in body) == bool(mode)
    ]
    assert sorted(plain) == sorted(f"Ask 2 things of: {document(i)}" for i in range(NUM))
    assert KEY not in "".join(path.read_text() for path in out.rglob("*") if path.is_file())


def test_spending_stops_at_the_ceiling_and_nothing_is_paid_for_twice(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(PAID_KEY)
    (tmp_path / "key").chmod(0o600)
    out = tmp_path / "out"
    with PaidServer(answer=lambda messages: asking(messages[-1]["content"])) as server:
        words = ["data", "synthesise", *files, "--kind", "questions", "--server", server.url, "--model", "m"]
        words += ["--out", str(out), "--count", "2", "--key-file", str(tmp_path / "key"), "--jobs", "1"]
        assert run_command(app, [*words, "--usd-in", "1"]) == 2 and "--ceiling" in capsys.readouterr().err
        words += ["--usd-in", "10", "--usd-out", "10"]
        assert run_command(app, [*words, "--ceiling", "0.008"]) == 2
        error = capsys.readouterr().err
        assert "raise --ceiling" in error and "--passages" in error
        first = len(server.bodies)
        spent = json.loads((out / "spent.json").read_text())["usd"]
        assert 0 < first < NUM and 0 < spent <= 0.008
        (out / "answers.jsonl").unlink()  # as a kill between a reply and its line leaves it
        assert run_command(app, [*words, "--ceiling", "5"]) == 0
        assert len(server.bodies) == NUM, "what was paid for is not asked again"
    assert len(written(out)) == 2 * NUM


def test_copies_are_told_by_whole_words() -> None:
    assert stands_in("the drug", "Of THE drug, much") and not stands_in("he drug", "of the drug")
