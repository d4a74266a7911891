"""Tab 1: one prompt to several models side by side, streaming, with speed and cost beside each answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.roles import Part
from adaptkit.demo.served_models import Server
from adaptkit.demo.streaming import Answer, Asking, Prompt

CONTINUE, CHAT = "Continue the text", "Answer as chat"
TOGETHER, IN_TURN = "All at once", "One after another"
MAX_PROMPT_CHARS, SHOWN_CHARS, PROMPT_WORDS, MOST_MODELS = 8000, 160, 14, 6
AT_ONCE = 16  # visitors that may be answered at the same time


@dataclass
class Compare:
    """The tab's components, and what they do."""

    server: Server
    documents: Sequence[tuple[str, str]]
    parts: dict[str, Part] = field(default_factory=dict)
    """By model; filled whenever the server is looked at."""

    def build(self, usd_per_hour: Any) -> gr.CheckboxGroup:
        """Draw the tab; `usd_per_hour` is the component that holds the server's price. Returns the choice of
        models."""
        starts = itertools.cycle(_beginnings(self.documents) or [""])
        text = gr.Textbox(
            label="Prompt",
            value=next(starts),
            lines=3,
            max_lines=8,
            max_length=MAX_PROMPT_CHARS,
            placeholder="Write the beginning of a text, or a question.",
            elem_id="prompt",
        )
        models = gr.CheckboxGroup([], label="Models", elem_id="models", elem_classes="chips")
        with gr.Row(elem_classes="controls"):
            how = gr.Radio([CONTINUE, CHAT], value=CONTINUE, label="How", elem_classes="segmented")
            pace = gr.Radio([TOGETHER, IN_TURN], value=TOGETHER, label="Pace", elem_classes="segmented")
            longest = {"label": "Longest answer, in tokens", "buttons": [], "elem_classes": "plain-slider"}
            length = gr.Slider(16, 512, value=128, step=16, **longest)
        with gr.Row(elem_classes="actions"):
            ask = gr.Button("Ask the models", variant="primary", elem_id="ask")
            stop = gr.Button("Stop", elem_id="stop")
            another = gr.Button(
                "Another beginning", elem_id="another", visible=bool(_beginnings(self.documents))
            )
        cards = gr.HTML(render("cards", cards=[], note=""), elem_id="cards", apply_default_css=False)
        inputs = [text, models, how, pace, length, usd_per_hour]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        asking = gr.on([ask.click, text.submit], self.ask, inputs, cards, concurrency_limit=AT_ONCE, **quiet)
        stop.click(None, cancels=[asking], **quiet)
        another.click(lambda: next(starts), None, text, **quiet)
        return models

    def ask(
        self, text: str, models: list[str], how: str, pace: str, length: float, usd_per_hour: float
    ) -> Iterator[str]:
        """HTML of the answers as they grow."""
        chosen = [model for model in models if model in self.parts][:MOST_MODELS]
        if not text.strip() or not chosen:
            what = (
                "Write a prompt first."
                if chosen
                else "Choose at least one model."
                if self.parts
                else "No model is served yet."
            )
            yield render("cards", cards=[], note=what)
            return
        prompt = Prompt(text[:MAX_PROMPT_CHARS], int(length), chat=how == CHAT, together=pace == TOGETHER)
        shown = ""
        with Asking(self.server, chosen, prompt) as asking:
            for answers in asking.progress():
                drawn = self._draw(answers, prompt, usd_per_hour)
                if drawn != shown:
                    yield drawn
                shown = drawn

    def _draw(self, answers: Sequence[Answer], prompt: Prompt, usd_per_hour: float) -> str:
        fastest = max((answer.tokens_per_s or 0.0 for answer in answers), default=0.0)
        cards = [
            {
                "part": self.parts[answer.model],
                "answer": answer,
                "share": (answer.tokens_per_s or 0.0) / fastest if fastest else 0.0,
                "usd": answer.usd(usd_per_hour) if usd_per_hour else None,
            }
            for answer in answers
        ]
        together = prompt.together and len(answers) > 1
        note = "The models share the server: their speeds are lower than alone." if together else ""
        beginning = "" if prompt.chat else prompt.text
        told = {
            "beginning": beginning[-SHOWN_CHARS:],
            "cut": len(beginning) > SHOWN_CHARS,
            "usd_per_hour": usd_per_hour,
        }
        return render("cards", cards=cards, note=note, **told)


def _beginnings(documents: Sequence[tuple[str, str]]) -> list[str]:
    """First words of held-out passages: fair prompts, since no model was trained on them."""
    found = (" ".join(text.split()[:PROMPT_WORDS]) for _, text in documents[:12])
    return [start for start in found if len(start) > 20]
