"""Comparing: what must be chosen first, cards with speed and cost, prompts that no model was trained on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo_study import IDENTITIES, MODELS, PLAIN, TAUGHT, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

from adaptkit.client.openai import Model
from adaptkit.demo.served_models import GENERATE, Server
from adaptkit.demo.shown_models import show_models
from adaptkit.demo.tab_compare import CHAT, CONTINUE, IN_TURN, TOGETHER, Compare, _beginnings, longest_answer


@pytest.fixture
def tab() -> Iterator[Compare]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as fake:
        server = Server(fake.url, KEY)
        tab = Compare(server, FakeStudy().documents())
        tab.models = {model.name: model for model in show_models(server.look().of_kind(GENERATE))}
        yield tab


def test_what_is_missing_is_said_in_order(tab: Compare) -> None:
    def said(text: str, models: list[str]) -> str:
        return next(tab.ask(text, models, CONTINUE, TOGETHER, 16, 1.0))

    assert "Write a prompt first." in said(" ", [PLAIN])
    assert "Choose at least one model." in said("Once", []) and "Choose" in said("Once", ["another"])
    tab.models = {}
    assert "No model is served yet." in said("Once", [PLAIN])


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


def test_prompts_are_the_first_words_of_held_out_passages() -> None:
    texts = ["one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen", "no"]
    assert _beginnings([("a", text) for text in texts]) == [texts[0].removesuffix(" fifteen")]
    assert len(_beginnings([("a", texts[0])] * 30)) == 12


@pytest.mark.parametrize(
    ("lengths", "longest"), [([64], 32), ([8192, 300], 144), ([8192], 512), ([None], 512), ([20], 16)]
)
def test_the_slider_ends_where_the_shortest_model_ends(lengths: list[int | None], longest: int) -> None:
    models = [Model("m", "generate", max_len=length) for length in lengths]
    assert longest_answer(models) == longest


def test_prompts_of_code_keep_their_lines() -> None:
    code = "def f(x):\n    return x + 1  # one more than was given to it\n\n\ndef g(x):\n    return f(f(x))\n"
    assert "\n    return" in _beginnings([("a", code)])[0]
