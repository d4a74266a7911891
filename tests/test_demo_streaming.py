"""Asking several models at once: answers that stream, their speed and cost, and each failure by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from demo_study import IDENTITIES, MODELS, PLAIN, STUDENT, TAUGHT
from fake_openai import KEY, FakeServer

from adaptkit.demo.served_models import Server
from adaptkit.demo.streaming import Answer, AnswerStream, Prompt


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def the_last(stream: AnswerStream) -> dict[str, Answer]:
    with stream:
        *_, last = stream.progress()
    return {answer.model: answer for answer in last}


def test_answers_stream_side_by_side_and_carry_speed_and_cost(fake: FakeServer, server: Server) -> None:
    fake.delay_s = 0.02
    prompt, models = Prompt("Once", max_tokens=30), [PLAIN, TAUGHT]
    with AnswerStream(server, models, prompt) as stream:
        seen = list(stream.progress())
    assert any(
        0 < len(answer.text) < len(last.text)
        for answers in seen
        for answer, last in zip(answers, seen[-1], strict=True)
    )
    for answer in seen[-1]:
        assert answer.state == "done" and answer.tokens == 30 and answer.text.startswith(" the trial of")
        assert answer.tokens_per_s == pytest.approx(30 / answer.seconds)
        assert answer.usd(3.6) == pytest.approx(answer.seconds)
    assert [path for path, _ in fake.requests] == ["/v1/completions"] * 2
    assert fake.requests[0][1]["max_tokens"] == 30


def test_one_after_another_means_that_the_second_waits(server: Server) -> None:
    models = [PLAIN, TAUGHT]
    with AnswerStream(server, models, Prompt("Once", max_tokens=20, together=False)) as stream:
        for first, second in stream.progress():
            assert second.state == "waiting" or first.state == "done"


def test_chat_goes_to_the_chat_route(fake: FakeServer, server: Server) -> None:
    answer = the_last(AnswerStream(server, [STUDENT], Prompt("Hello", max_tokens=4, chat=True)))[STUDENT]
    assert answer.state == "done" and answer.tokens == 4
    path, body = fake.requests[0]
    assert path == "/v1/chat/completions" and body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [
        ("busy", "busy", "Try again in 9 s"),
        ("cut", "cut", "broke off"),
        ("no-template", "refused", "never taught to chat"),
    ],
)
def test_each_failure_is_told_in_its_own_words_beside_answers_that_succeed(
    fake: FakeServer, server: Server, mode: str, kind: str, words: str
) -> None:
    fake.behave[STUDENT] = mode
    answers = the_last(AnswerStream(server, [STUDENT, TAUGHT], Prompt("Hello", max_tokens=12, chat=True)))
    failure = answers[STUDENT].failure
    assert failure is not None and failure.kind == kind and words in f"{failure.what} {failure.do}"
    assert answers[TAUGHT].state == "done"
    assert bool(answers[STUDENT].text) == (mode == "cut")


def test_leaving_ends_the_work_on_the_server(fake: FakeServer, server: Server) -> None:
    fake.delay_s = 0.05
    begun = time.monotonic()
    with AnswerStream(server, [STUDENT], Prompt("Once", max_tokens=400)) as stream:
        for answers in stream.progress():
            if answers[0].tokens > 2:
                break
    assert stream.answers[STUDENT].tokens < 100 and time.monotonic() - begun < 15
    for thread in stream._threads:
        thread.join(5)
        assert not thread.is_alive()
