"""Tab "Compare": one prompt to several models side by side, streaming, with speed and cost of each answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from adaptkit.client.openai import Model
from adaptkit.demo.blind import BUTTONS, CONSENT, BlindVotes, Pair
from adaptkit.demo.html import render
from adaptkit.demo.sample_prompts import SamplePrompts
from adaptkit.demo.second_click import draw_note, say_while_busy
from adaptkit.demo.served_models import Server
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.streaming import Answer, AnswerStream, Prompt
from adaptkit.errors import AdaptkitError
from adaptkit.study.vote_record import Choice

CONTINUE, CHAT = "Continue the text", "Answer as chat"
TOGETHER, IN_TURN = "All at once", "One after another"
MAX_PROMPT_CHARS, SHOWN_CHARS, MOST_MODELS = 8000, 160, 6
ANSWER_STEP, USUAL_ANSWER, LONGEST_ANSWER = 16, 128, 512
"""Tokens."""
AT_ONCE = 16  # visitors that may be answered at the same time


@dataclass
class Compare:
    """The tab's components, and what they do.

    Attributes:
        samples: prompts to begin with.
        votes: the file that votes are kept in; None: there is no blind mode.
        models: by name; filled whenever the server is looked at.
    """

    server: Server
    samples: SamplePrompts
    votes: Path | None = None
    models: dict[str, ShownModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blind = BlindVotes(self.server, self.votes) if self.votes is not None else None

    def build(self, usd_per_hour: gr.State) -> tuple[gr.CheckboxGroup, gr.Slider]:
        """Draw the tab; `usd_per_hour` holds the server's price. Returns the choices of models and length."""
        text = gr.Textbox(
            label="Prompt",
            value=self.samples.next(chat=False),
            lines=3,
            max_lines=8,
            max_length=MAX_PROMPT_CHARS,
            placeholder="Write the beginning of a text, or a question.",
            elem_id="prompt",
        )
        models = gr.CheckboxGroup([], label="Models", elem_id="models", elem_classes="chips")
        settings = _draw_settings()
        with gr.Row(elem_classes="actions"):
            ask = gr.Button("Ask the models", variant="primary", elem_id="ask")
            stop = gr.Button("Stop", elem_id="stop")
            another = gr.Button("Another example", elem_id="another", visible=bool(self.samples))
        note = draw_note("cards")
        cards = gr.HTML(render("cards", cards=[], note=""), elem_id="cards", apply_default_css=False)
        blind, pair, voting = self._draw_voting(cards)
        answering = gr.on(
            [ask.click, text.submit],
            self.answer,
            [blind, text, models, *settings, usd_per_hour],
            [cards, pair, voting],
            concurrency_limit=AT_ONCE,
            show_progress="hidden",
            api_visibility="private",
        )
        stop.click(None, cancels=[answering], show_progress="hidden", api_visibility="private")
        say_while_busy(
            note,
            [ask.click, text.submit],
            answering,
            "cards",
            "The models are still answering: wait for them, or press Stop and ask anew.",
            stops=[stop.click],
        )
        gr.on(
            [another.click, settings[0].change],
            lambda how: self.samples.next(chat=how == CHAT),
            settings[0],
            text,
            show_progress="hidden",
            api_visibility="private",
        )
        return models, settings[-1]

    def _draw_voting(self, cards: gr.HTML) -> tuple[gr.Checkbox, gr.State, gr.Column]:
        """Draw the blind mode below the answers; all of it is hidden where no file of votes was named.

        Returns: whether it is on, the pair that waits for a vote, and what is shown while one waits.
        """
        pair, voter = gr.State(None), gr.State("")
        blind = gr.Checkbox(
            label="Blind: two of the models answer without names, and you vote",
            visible=self.votes is not None,
            elem_id="blind",
        )
        with gr.Column(visible=False, elem_id="voting") as voting:
            agreed = gr.Checkbox(label=CONSENT, elem_id="consent")
            with gr.Row(elem_classes="actions"):
                for choice, label in BUTTONS.items():
                    gr.Button(label, elem_id=f"vote-{choice}").click(
                        partial(self.vote, choice),
                        [pair, agreed, voter],
                        [cards, pair, voter, voting],
                        show_progress="hidden",
                        api_visibility="private",
                    )
        return blind, pair, voting

    def answer(
        self, blind: bool, text: str, models: list[str], *settings: Any
    ) -> Iterator[tuple[str, Pair | None, Any]]:
        """Draw the answers, with or without names: HTML, the pair to vote on, and whether there is one."""
        if not (blind and self.blind):
            for drawn in self.ask(text, models, *settings):
                yield drawn, None, gr.update(visible=False)
            return
        how, _, length, _ = settings
        chosen = [model for model in models if model in self.models]
        if problem := self._problem(text, chosen):
            yield render("cards", cards=[], note=problem), None, gr.update(visible=False)
            return
        prompt = Prompt(text[:MAX_PROMPT_CHARS], int(length), chat=how == CHAT)
        for drawn, pair in self.blind.ask(prompt, chosen, self.models):
            yield drawn, pair, gr.update(visible=pair is not None)

    def vote(self, choice: Choice, pair: Pair | None, agreed: bool, voter: str) -> tuple[Any, None, str, Any]:
        """Take a vote: the answers with their names, no pair any more, and the voter's random name."""
        voter = voter or secrets.token_hex(8)
        if pair is None or self.blind is None:
            return gr.skip(), None, voter, gr.update(visible=False)
        try:
            drawn = self.blind.vote(choice, pair, self.models, agreed=agreed, voter=voter)
        except AdaptkitError as error:
            drawn = render("cards", cards=[], note=f"Your vote could not be kept: {error.what}.")
        return drawn, None, voter, gr.update(visible=False)

    def ask(
        self, text: str, models: list[str], how: str, pace: str, length: float, usd_per_hour: float
    ) -> Iterator[str]:
        """Draw the answers as they grow, as HTML."""
        chosen = [model for model in models if model in self.models][:MOST_MODELS]
        if problem := self._problem(text, chosen):
            yield render("cards", cards=[], note=problem)
            return
        prompt = Prompt(text[:MAX_PROMPT_CHARS], int(length), chat=how == CHAT, together=pace == TOGETHER)
        last = ""
        with AnswerStream(self.server, chosen, prompt) as stream:
            for answers in stream.progress():
                drawn = self._draw(answers, prompt, usd_per_hour)
                if drawn != last:
                    yield drawn
                last = drawn

    def _problem(self, text: str, chosen: Sequence[str]) -> str:
        """Say what must be done before the models can be asked; empty if nothing."""
        if not self.models:
            return "No model that writes is served: \u201cadaptkit serve STUDY\u201d serves the study\u2019s."
        if not chosen:
            return "Choose at least one model."
        if not text.strip():
            return "Write a prompt first."
        return ""

    def _draw(self, answers: Sequence[Answer], prompt: Prompt, usd_per_hour: float) -> str:
        fastest = max((answer.tokens_per_s or 0.0 for answer in answers), default=0.0)
        cards = [self._card(answer, fastest, usd_per_hour) for answer in answers]
        note = ""
        if prompt.together and len(answers) > 1:
            note = "The models share the server: their speeds are lower than alone."
        if len(prompt.text) >= MAX_PROMPT_CHARS:
            note += f" The prompt ends after its first {MAX_PROMPT_CHARS:,} characters: no more was asked."
        beginning = "" if prompt.chat else prompt.text
        return render(
            "cards",
            cards=cards,
            note=note,
            beginning=beginning[-SHOWN_CHARS:],
            cut=len(beginning) > SHOWN_CHARS,
            usd_per_hour=usd_per_hour,
            following=self.samples.following(prompt.text),
        )

    def _card(self, answer: Answer, fastest: float, usd_per_hour: float) -> dict[str, object]:
        """Collect the values of one answer's card; `share` is its speed as a part of the fastest one's."""
        share, usd = 0.0, None
        if fastest:
            share = (answer.tokens_per_s or 0.0) / fastest
        if usd_per_hour:
            usd = answer.usd(usd_per_hour)
        return {"model": self.models[answer.model], "answer": answer, "share": share, "usd": usd}


def _draw_settings() -> tuple[gr.Radio, gr.Radio, gr.Slider]:
    """Draw the settings: how to ask, in which pace, and how many tokens."""
    with gr.Row(elem_classes="controls"):
        how = gr.Radio([CONTINUE, CHAT], value=CONTINUE, label="How", elem_classes="segmented")
        pace = gr.Radio([TOGETHER, IN_TURN], value=TOGETHER, label="Pace", elem_classes="segmented")
        length = gr.Slider(
            ANSWER_STEP,
            LONGEST_ANSWER,
            value=USUAL_ANSWER,
            step=ANSWER_STEP,
            label="Longest answer, in tokens",
            buttons=[],
            elem_classes="plain-slider",
        )
    return how, pace, length


def longest_answer(models: Sequence[Model]) -> int:
    """Tokens that every one of these models can write after a prompt of some words."""
    lengths = [model.max_len for model in models if model.max_len]
    room = min(lengths, default=2 * LONGEST_ANSWER) // 2
    return max(ANSWER_STEP, min(LONGEST_ANSWER, room - room % ANSWER_STEP))
