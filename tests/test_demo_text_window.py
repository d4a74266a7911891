"""What is said of a text that a model reads in part, in the classify and the search tab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from demo_study import IDENTITIES, MODELS, SORTER
from fake_openai import KEY, FakeServer

from adaptkit.demo.served_models import Server
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.text_window import cut_sentence


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES) as server:
        yield server


@pytest.mark.parametrize(
    ("text", "max_len", "said"),
    [
        ("word " * 30, 20, "Only the first 20 of 30 tokens were read"),
        ("word " * 30, 30, ""),
        ("word " * 200, 512, "The text ends after its first 1,000 characters"),
        ("word " * 30, None, ""),
        ("word " * 199, None, ""),
    ],
)
def test_a_cut_is_said_with_its_place(fake: FakeServer, text: str, max_len: int | None, said: str) -> None:
    model = ShownModel(SORTER, "Sorter", max_len=max_len)
    with Server(fake.url, KEY).client() as client:
        sentence = cut_sentence(client, model, text, 1000)
    assert sentence.startswith(said) and bool(sentence) == bool(said)


def test_short_texts_cost_no_request_and_a_server_that_counts_none_is_no_failure(fake: FakeServer) -> None:
    model = ShownModel(SORTER, "Sorter", max_len=64)
    with Server(fake.url, KEY).client() as client:
        assert cut_sentence(client, model, "a short text", 1000) == "" and fake.requests == []
        assert cut_sentence(client, replace(model, name="unknown"), "word " * 40, 1000) == ""
