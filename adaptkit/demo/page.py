"""The whole page: a head that says how the server is, and five tabs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from adaptkit.demo import roles
from adaptkit.demo.html import render
from adaptkit.demo.search_index import Index, Passages, sample
from adaptkit.demo.served_models import CLASSIFY, EMBED, GENERATE, RERANK, Look, Server, names
from adaptkit.demo.study_view import Study
from adaptkit.demo.tab_classify import Classify
from adaptkit.demo.tab_compare import Compare
from adaptkit.demo.tab_decide import PRICE, Decide
from adaptkit.demo.tab_search import Search

LOOK_EVERY_S = 10.0
SANS = [
    "Inter",
    "Segoe UI",
    "system-ui",
    "Helvetica Neue",
    "Noto Sans",
    "Liberation Sans",
    "Arial",
    "sans-serif",
]
MONO = ["ui-monospace", "SF Mono", "Cascadia Mono", "Liberation Mono", "Menlo", "Consolas", "monospace"]


def theme() -> gr.themes.Base:
    """Fonts of the visitor's own machine: none is fetched."""
    return gr.themes.Base(font=SANS, font_mono=MONO, radius_size=gr.themes.sizes.radius_sm)


@dataclass
class Page:
    """The page of one study and one server.

    Args:
        passages: text to search in; the study's held-out passages if empty.
        card: the model card, Markdown; empty for none.
        signed_in: a way out is shown.
    """

    server: Server
    study: Study
    passages: Passages = field(default_factory=list)
    card: str = ""
    signed_in: bool = False

    def __post_init__(self) -> None:
        documents = self.study.documents()
        self.compare = Compare(self.server, documents)
        self.classify = Classify(self.server, self.study)
        self.search = Search(self.server, Index(self.passages or sample(documents)))
        self.decide = Decide(self.study)

    def build(self) -> gr.Blocks:
        """The application; whatever it sends to a browser holds no key."""
        first = next((dial.value for dial in self.study.dials() if dial.name == PRICE), 0.0)
        with gr.Blocks(
            title=f"{self.study.name} \u00b7 adaptkit", analytics_enabled=False, fill_width=True
        ) as page:
            price, seen = gr.State(first), gr.State(Look())
            head = gr.HTML(self._head(Look()), elem_id="head", apply_default_css=False)
            with gr.Tabs(elem_id="tabs"):
                with gr.Tab("Compare", id="compare"):
                    models = self.compare.build(price)
                with gr.Tab("Classify", id="classify"):
                    classifier, classified = self.classify.build()
                with gr.Tab("Search", id="search"):
                    left, right, hits = self.search.build()
                with gr.Tab("Decide", id="decide"):
                    self.decide.build(price)
                with gr.Tab("About", id="about"):
                    gr.HTML(self.study.about(), elem_classes="ak-html", apply_default_css=False)
                    if self.card:
                        gr.HTML(render("card"), apply_default_css=False)
                        gr.Markdown(self.card, elem_id="card")
            outputs = [seen, head, models, classifier, left, right, classified, hits]
            quiet = {"show_progress": "hidden", "api_visibility": "private", "queue": True}
            gr.on(
                [page.load, gr.Timer(LOOK_EVERY_S).tick],
                self.look,
                [seen],
                outputs,
                trigger_mode="once",
                **quiet,
            )
        return page

    def look(self, seen: Look) -> list[Any]:
        """What the server offers now; components are touched only where that has changed."""
        found = self.server.look()
        if found == seen:
            return [gr.skip()] * 8
        parts = roles.cast(names(found.models), self.study.name, self.study.arms, self.study.tasks)
        by_kind = {}
        for tab, kind in ((self.compare, GENERATE), (self.classify, CLASSIFY), (self.search, EMBED)):
            by_kind[kind] = [part for part in parts if part.model in names(found.of_kind(kind))]
            tab.parts = {part.model: part for part in by_kind[kind]}
        (generic, domain), single = _two(by_kind[EMBED]), len(by_kind[EMBED]) == 1
        return [
            found,
            self._head(found),
            gr.update(choices=_choices(by_kind[GENERATE]), value=roles.first_of_each(by_kind[GENERATE])),
            _dropdown(by_kind[CLASSIFY], next((part.model for part in by_kind[CLASSIFY]), None)),
            _dropdown(by_kind[EMBED], generic, label="Embedding model" if single else "Generic model"),
            _dropdown(by_kind[EMBED], domain, visible=not single),
            self.classify.empty() if _changed(seen, found, CLASSIFY) else gr.skip(),
            self.search.empty() if _changed(seen, found, EMBED) else gr.skip(),
        ]

    def _head(self, look: Look) -> str:
        tasks = {GENERATE: "to write", CLASSIFY: "to classify", EMBED: "to search", RERANK: "to rank"}
        counts = [f"{len(found)} {task}" for kind, task in tasks.items() if (found := look.of_kind(kind))]
        return render(
            "head",
            name=self.study.name,
            look=look,
            counts=counts,
            url=self.server.url,
            signed_in=self.signed_in,
        )


def _changed(before: Look, now: Look, kind: str) -> bool:
    """Whether a tab that had a model has none, or the other way: only then is what it shows replaced."""
    return bool(before.of_kind(kind)) != bool(now.of_kind(kind)) or before == Look()


def _choices(parts: list[roles.Part]) -> list[tuple[str, str]]:
    """(what is shown, model): the role, and the model's name where one role has several."""
    titles = [part.title for part in parts]
    several = {title for title in titles if titles.count(title) > 1}
    return [
        (f"{part.title}: {part.arm or part.model}" if part.title in several else part.title, part.model)
        for part in parts
    ]


def _dropdown(parts: list[roles.Part], value: str | None, **look: Any) -> Any:
    return gr.update(choices=[part.model for part in parts], value=value, interactive=bool(parts), **look)


def _two(parts: list[roles.Part]) -> tuple[str | None, str | None]:
    """The generic and the domain model among embedding models; a single one stands first, whatever it is."""
    if len(parts) == 1:
        return parts[0].model, None
    domain = next(
        (part.model for part in parts if part.role.place in (roles.DOMAIN.place, roles.TUNED.place)), None
    )
    generic = next((part.model for part in parts if part.model != domain), None)
    return generic, domain
