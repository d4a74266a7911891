"""The whole page: a head that says how the server is, and five tabs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.sample_prompts import SamplePrompts
from adaptkit.demo.search_index import Index, Passages
from adaptkit.demo.served_models import CLASSIFY, EMBED, GENERATE, RERANK, Look, Server
from adaptkit.demo.shown_models import ShownModel, first_of_each_role, generic_and_domain, show_models
from adaptkit.demo.study_view import Study
from adaptkit.demo.tab_classify import Classify
from adaptkit.demo.tab_compare import USUAL_ANSWER, Compare, longest_answer
from adaptkit.demo.tab_decide import PRICE, Decide
from adaptkit.demo.tab_search import WORDS, Search

LOOK_EVERY_S = 10.0
PURPOSES = {GENERATE: "to write", CLASSIFY: "to classify", EMBED: "to search", RERANK: "to rank"}


@dataclass
class Page:
    """The page of one study and one server.

    Args:
        passages: text to search in; the study's held-out passages if empty.
        card: the model card, Markdown; empty for none.
        signed_in: a way out is shown.
        votes: a file to keep votes on blind answers in; None: there are none.
    """

    server: Server
    study: Study
    passages: Passages = field(default_factory=list)
    card: str = ""
    signed_in: bool = False
    votes: Path | None = None

    def __post_init__(self) -> None:
        documents = self.study.documents()
        samples = SamplePrompts(documents, self.study.questions())
        self.compare = Compare(self.server, samples, self.votes)
        self.classify = Classify(self.server, self.study)
        self.search = Search(self.server, Index.of(self.passages or documents))
        self.decide = Decide(self.study)

    def build(self) -> gr.Blocks:
        """Build the application; whatever it sends to a browser holds no key."""
        first_price = next((dial.value for dial in self.study.dials() if dial.name == PRICE), 0.0)
        title = f"{self.study.name} \u00b7 adaptkit"
        with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
            price, seen = gr.State(first_price), gr.State(Look())
            head = gr.HTML(self._head(Look()), elem_id="head", apply_default_css=False)
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Compare", id="compare") as compare:
                    models, length = self.compare.build(price)
                with gr.Tab("Classify", id="classify") as classify:
                    classifier, classified = self.classify.build()
                with gr.Tab("Search", id="search"):
                    left, right, hits = self.search.build()
                with gr.Tab("Decide", id="decide"):
                    self.decide.build(price)
                with gr.Tab("About", id="about"):
                    self._draw_about()
            gr.on(
                [page.load, gr.Timer(LOOK_EVERY_S).tick],
                self.look,
                [seen],
                [seen, head, models, classifier, left, right, length, classified, hits, compare, classify],
                trigger_mode="once",
                show_progress="hidden",
                api_visibility="private",
                queue=True,
            )
        return page

    def look(self, seen: Look) -> list[Any]:
        """Look at the server, and touch components only where what it offers has changed."""
        now = self.server.look()
        if now == seen:
            return [gr.skip()] * 11
        writers, classifiers, embedders = (
            show_models(now.of_kind(kind)) for kind in (GENERATE, CLASSIFY, EMBED)
        )
        self.compare.models = {model.name: model for model in writers}
        self.classify.models = {model.name: model for model in classifiers}
        self.search.models = {model.name: model for model in embedders}
        left, right = self._searches(embedders)
        first_classifier = next((model.name for model in classifiers), None)
        classified, hits = gr.skip(), gr.skip()
        if _appeared_or_vanished(seen, now, CLASSIFY):
            classified = self.classify.empty()
        if _appeared_or_vanished(seen, now, EMBED):
            hits = self.search.empty()
        return [
            now,
            self._head(now),
            gr.update(choices=_choices(writers), value=first_of_each_role(writers)),
            _dropdown(classifiers, first_classifier),
            left,
            right,
            _lengths(longest_answer(now.of_kind(GENERATE))),
            classified,
            hits,
            gr.update(visible=bool(writers) or not now.models),
            gr.update(visible=bool(classifiers or self.classify.labelled_tasks()) or not now.models),
        ]

    def _searches(self, embedders: list[ShownModel]) -> tuple[Any, Any]:
        """Choose what searches on the left and on the right: two models, or one, or none, beside words."""
        choices = self.search.choices()
        interactive = bool(choices)
        generic, domain = generic_and_domain(embedders)
        labels = ("Generic model", "Domain model")
        if len(embedders) < 2:
            labels = ("Search with", "and beside it")
            domain = WORDS if embedders else None
            generic = generic or (WORDS if choices else None)
        left = gr.update(choices=choices, value=generic, interactive=interactive, label=labels[0])
        visible = bool(embedders)
        right = gr.update(
            choices=choices, value=domain, interactive=interactive, label=labels[1], visible=visible
        )
        return left, right

    def _head(self, look: Look) -> str:
        numbers = {purpose: len(look.of_kind(kind)) for kind, purpose in PURPOSES.items()}
        return render(
            "head",
            name=self.study.name,
            look=look,
            ready=sum(model.ready for model in look.models),
            counts=[f"{number} {purpose}" for purpose, number in numbers.items() if number],
            signed_in=self.signed_in,
        )

    def _draw_about(self) -> None:
        gr.HTML(self.study.about(), elem_classes="ak-html", apply_default_css=False)
        if self.card:
            gr.HTML(render("card"), apply_default_css=False)
            gr.Markdown(self.card, elem_id="card")


def _appeared_or_vanished(before: Look, now: Look, kind: str) -> bool:
    """Say whether a tab lost its only models or got its first: only then what it shows is replaced."""
    return bool(before.of_kind(kind)) != bool(now.of_kind(kind)) or before == Look()


def _choices(models: list[ShownModel]) -> list[tuple[str, str]]:
    """List (what is shown, model): the title, and which model it is where one title stands for several."""
    titles = [model.title for model in models]
    choices = []
    for model in models:
        shown = model.title
        if titles.count(model.title) > 1:
            shown += f": {model.arm or model.name}"
        choices.append((shown, model.name))
    return choices


def _lengths(longest: int) -> Any:
    return gr.update(maximum=longest, value=min(USUAL_ANSWER, longest))


def _dropdown(models: list[ShownModel], value: str | None) -> Any:
    names = [model.name for model in models]
    return gr.update(choices=names, value=value, interactive=bool(names))
