"""Blind comparison: nothing tells who wrote an answer before the vote, and only agreed votes are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_study import IDENTITIES, MODELS, PLAIN, TAUGHT, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

import gradio as gr

from adaptkit.demo.blind import BUTTONS, CONSENT, Pair
from adaptkit.demo.sample_prompts import SamplePrompts
from adaptkit.demo.served_models import GENERATE, Server
from adaptkit.demo.shown_models import show_models
from adaptkit.demo.tab_compare import CONTINUE, TOGETHER, Compare
from adaptkit.study.vote_record import Choice, open_votes, read_votes


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as fake:
        yield fake


@pytest.fixture
def tab(fake: FakeServer, tmp_path: Path) -> Compare:
    server, study = Server(fake.url, KEY), FakeStudy()
    fake.behave[TAUGHT] = "other"  # two that write the same leave nothing to choose
    open_votes(tmp_path / "votes.jsonl")
    tab = Compare(server, SamplePrompts(study.documents(), study.questions()), tmp_path / "votes.jsonl")
    tab.models = {model.name: model for model in show_models(server.look().of_kind(GENERATE))}
    return tab


def pieces(tab: Compare, models: list[str], text: str = "Once upon", blind: bool = True) -> list[Any]:
    return list(tab.answer(blind, text, models, CONTINUE, TOGETHER, 16, 3.6))


def test_no_piece_before_the_vote_tells_who_wrote_it(tab: Compare) -> None:
    given = pieces(tab, [PLAIN, TAUGHT])
    *earlier, (last, pair, shown) = given
    assert earlier and all(
        "Two models are writing" in html and waiting is None for html, waiting, _ in earlier
    )
    assert isinstance(pair, Pair) and shown["visible"] and last.count('class="card o-ink"') == 2
    told = " ".join(html for html, _, _ in given)
    for clue in (PLAIN, TAUGHT, "Generic", "Fine-tuned", "generic", "lora", "Tokens per second", "$"):
        assert clue not in told, clue
    assert all(answer.text in last for answer in pair.answers)


def test_which_two_answer_and_which_stands_first_is_drawn(tab: Compare, monkeypatch: Any) -> None:
    assert tab.blind is not None
    orders = {tuple(a.model for a in pieces(tab, [PLAIN, TAUGHT])[-1][1].answers) for _ in range(12)}
    assert orders == {(PLAIN, TAUGHT), (TAUGHT, PLAIN)}  # by chance alone once in 2,000 runs
    html, pair, shown = pieces(tab, [PLAIN])[-1]
    assert "Choose at least two models" in html and pair is None and not shown["visible"]


@pytest.mark.parametrize(("agreed", "kept"), [(True, 1), (False, 0)])
def test_a_vote_shows_the_names_and_is_kept_only_by_consent(tab: Compare, agreed: bool, kept: int) -> None:
    pair = pieces(tab, [PLAIN, TAUGHT])[-1][1]
    html, waiting, voter, shown = tab.vote(Choice.SECOND, pair, agreed, "")
    assert "Generic" in html and "Fine-tuned" in html and html.count("your choice") == 1
    assert waiting is None and not shown["visible"] and len(voter) == 16
    assert ("Your vote is kept." in html) == agreed
    tab.vote(Choice.FIRST, pair, agreed, voter)  # a second click
    assert tab.votes is not None
    votes = read_votes(tab.votes)
    assert len(votes) == kept
    for vote in votes:
        assert vote.choice is Choice.SECOND and vote.consent == CONSENT and vote.voter == voter
        assert vote.prompt == "Once upon" and vote.first.text == pair.answers[0].text
        assert {vote.first.model, vote.second.model} == {PLAIN, TAUGHT} and vote.first.arm.startswith(
            "generic+"
        )
    assert tab.vote(Choice.TIE, None, agreed, voter)[1:3] == (None, voter)


def test_what_cannot_be_voted_on_is_said(tab: Compare, fake: FakeServer) -> None:
    fake.behave[TAUGHT] = "cut"
    html, pair, shown = pieces(tab, [PLAIN, TAUGHT])[-1]
    assert "could not answer" in html and pair is None and not shown["visible"] and TAUGHT not in html
    assert "Write a prompt first" in pieces(tab, [PLAIN, TAUGHT], " ")[-1][0]


def test_without_a_file_of_votes_there_is_no_blind_mode(tab: Compare) -> None:
    open_mode = Compare(tab.server, tab.samples)
    open_mode.models = tab.models
    html, pair, _ = pieces(open_mode, [PLAIN, TAUGHT])[-1]
    assert "<h3>Generic</h3>" in html and pair is None and open_mode.blind is None
    assert list(BUTTONS) == list(Choice)


def test_the_page_offers_the_vote_and_agrees_to_nothing_by_itself(tab: Compare) -> None:
    def drawn(each: Compare) -> dict[str, Any]:
        with gr.Blocks() as blocks:
            each.build(gr.State(0.0))
        return {block.elem_id: block for block in blocks.blocks.values() if getattr(block, "elem_id", None)}

    shown = drawn(tab)
    assert shown["consent"].value is False and shown["consent"].label == CONSENT
    assert shown["blind"].visible and not shown["blind"].value and not shown["voting"].visible
    assert [shown[f"vote-{choice}"].value for choice in Choice] == list(BUTTONS.values())
    assert not drawn(Compare(tab.server, tab.samples))["blind"].visible
