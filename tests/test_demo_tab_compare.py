"""Comparing: what must be chosen first, cards with speed and cost, prompts that no model was trained on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from demo_study import IDENTITIES, MODELS, PLAIN, TAUGHT, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

from adaptkit.client.openai import Model
from adaptkit.demo.html import style
from adaptkit.demo.sample_prompts import SamplePrompts
from adaptkit.demo.served_models import GENERATE, Server
from adaptkit.demo.shown_models import show_models
from adaptkit.demo.streaming import Answer, Prompt
from adaptkit.demo.tab_compare import CHAT, CONTINUE, IN_TURN, TOGETHER, Compare, longest_answer


@pytest.fixture
def tab() -> Iterator[Compare]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as fake:
        server = Server(fake.url, KEY)
        study = FakeStudy()
        tab = Compare(server, SamplePrompts(study.documents(), study.questions()))
        tab.models = {model.name: model for model in show_models(server.look().of_kind(GENERATE))}
        yield tab


def test_what_is_missing_is_said_in_order(tab: Compare) -> None:
    def said(text: str, models: list[str]) -> str:
        return next(tab.ask(text, models, CONTINUE, TOGETHER, 16, 1.0))

    assert "Write a prompt first." in said(" ", [PLAIN])
    assert "Choose at least one model." in said("Once", []) and "Choose" in said("Once", ["another"])
    tab.models = {}
    assert "No model that writes is served" in said("Once", [PLAIN])


def test_answers_stand_in_cards_with_title_arm_speed_and_cost(tab: Compare) -> None:
    *_, last = tab.ask("Once upon", [PLAIN, TAUGHT], CONTINUE, TOGETHER, 16, 3.6)
    assert last.count('data-state="done"') == 2 and last.count('class="card o-generic"') == 2
    for text in ("<h3>Generic</h3>", "<p>generic+prompt</p>", "<h3>Fine-tuned</h3>", "<p>generic+lora</p>"):
        assert text in last
    assert "The models share the server" in last and "$3.60 an hour" in last and "Once upon" in last


def test_one_after_another_shares_nothing_and_chat_has_no_beginning(tab: Compare) -> None:
    *_, last = tab.ask("Once upon", [PLAIN, TAUGHT], CHAT, IN_TURN, 16, 0.0)
    assert "share the server" not in last and "no cost is shown" in last
    assert 'class="beginning"' not in last and "no more was asked" not in last
    *_, last = tab.ask("word " * 2000, [PLAIN], CHAT, IN_TURN, 16, 0.0)
    assert "ends after its first 8,000 characters: no more was asked" in last


def test_what_the_text_itself_says_stands_under_the_answers(tab: Compare) -> None:
    prompt = tab.samples.next(chat=False)
    *_, last = tab.ask(prompt, [PLAIN], CONTINUE, TOGETHER, 16, 0.0)
    assert "How the text itself goes on" in last or not tab.samples.following(prompt)
    *_, last = tab.ask(tab.samples.next(chat=True), [PLAIN], CHAT, TOGETHER, 16, 0.0)
    assert "The answer in the test data" in last and "Drug 0." in last
    *_, last = tab.ask("words of one's own", [PLAIN], CONTINUE, TOGETHER, 16, 0.0)
    assert "goes on" not in last and "test data" not in last


def test_a_spinner_goes_on_where_it_was_when_it_is_drawn_again(tab: Compare) -> None:
    prompt = Prompt("Once", 16)
    drawn = [tab._draw([Answer(PLAIN, "asked", seconds=s)], prompt, 0.0) for s in (0.25, 1.75)]
    delays = [re.search(r"animation-delay: -([\d.]+)s", html) for html in drawn]
    assert [delay[1] for delay in delays if delay] == ["0.25", "0.75"]
    assert ".spinner { " in style() and "animation: turn 1s linear infinite" in style()


@pytest.mark.parametrize(
    ("lengths", "longest"), [([64], 32), ([8192, 300], 144), ([8192], 512), ([None], 512), ([20], 16)]
)
def test_the_slider_ends_where_the_shortest_model_ends(lengths: list[int | None], longest: int) -> None:
    models = [Model("m", "generate", max_len=length) for length in lengths]
    assert longest_answer(models) == longest
