"""Tab "Search": the domain's text searched by words, or with embedding models, two side by side.

Words need no model, so the tab works beside any server; what a model finds can be held against them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.search_index import Hit, Index, in_both
from adaptkit.demo.second_click import draw_note, say_while_busy
from adaptkit.demo.served_models import Failure, Server, explain
from adaptkit.demo.shown_models import ShownModel
from adaptkit.demo.text_window import cut_sentence
from adaptkit.errors import ServerError

MAX_QUERY_CHARS = 1000
WORDS = "words"
"""Stands among the models for the search without one."""
BY_WORDS = ShownModel(WORDS, "By words", arm="BM25, no model")


@dataclass
class Column:
    """One model's list of passages, or why there is none."""

    model: ShownModel
    hits: list[Hit] | None = None
    failure: Failure | None = None
    cut: str = ""


@dataclass
class Search:
    """The tab's components, and what they do.

    Attributes:
        models: by name; filled whenever the server is looked at.
    """

    server: Server
    index: Index
    models: dict[str, ShownModel] = field(default_factory=dict)

    def choices(self) -> list[tuple[str, str]]:
        """List (what is shown, name) of what can be searched with: the models, then words."""
        if not self.index.passages:
            return []
        return [*((name, name) for name in self.models), (BY_WORDS.title, WORDS)]

    def build(self) -> tuple[gr.Dropdown, gr.Dropdown, gr.HTML]:
        """Draw the tab. Returns the choices of both models, and where the lists stand."""
        text = gr.Textbox(
            label="Search for",
            lines=1,
            max_length=MAX_QUERY_CHARS,
            elem_id="query",
            placeholder="What would you ask your own documents?",
        )
        with gr.Row(elem_classes="actions"):
            left = gr.Dropdown([], label="Generic model", elem_id="search-left", filterable=False)
            right = gr.Dropdown([], label="Domain model", elem_id="search-right", filterable=False)
            go = gr.Button("Search", variant="primary", elem_id="search")
        note = draw_note("found")
        lists = gr.HTML(self.empty(), elem_id="found", apply_default_css=False)
        searching = gr.on(
            [go.click, text.submit],
            self.search,
            [text, left, right],
            lists,
            concurrency_limit=8,
            show_progress="hidden",
            api_visibility="private",
        )
        say_while_busy(
            note,
            [go.click, text.submit],
            searching,
            "found",
            "The passages are still being searched: wait a moment.",
        )
        return left, right, lists

    def search(self, query: str, left: str | None, right: str | None) -> Iterator[str]:
        """Draw progress while passages get their vectors, then both lists, as HTML."""
        known = {**self.models, WORDS: BY_WORDS}
        names = dict.fromkeys(name for name in (left, right) if name in known)
        columns = [Column(known[name]) for name in names if name is not None]
        if not columns or not self.index.passages or not query.strip():
            yield self.empty()
            return
        begun = time.monotonic()
        with self.server.client() as client:
            for column in columns:
                name = column.model.name
                if name == WORDS:
                    column.hits = self.index.by_words(query[:MAX_QUERY_CHARS])
                    continue
                try:
                    column.cut = cut_sentence(client, column.model, query, MAX_QUERY_CHARS)
                    yield self._draw(columns, name, 0, begun)
                    for done in self.index.fill(client, name, column.model.prompts):
                        yield self._draw(columns, name, done, begun)
                    column.hits = self.index.nearest(
                        client, name, query[:MAX_QUERY_CHARS], column.model.prompts
                    )
                except (ServerError, ValueError, KeyError, TypeError) as error:
                    column.failure = explain(error, self.server.url, name)
        yield self._draw(columns)

    def _draw(self, columns: Sequence[Column], filling: str = "", done: int = 0, begun: float = 0.0) -> str:
        lists = [column.hits for column in columns if column.hits]
        both: set[str] = set()
        if len(lists) == 2:
            both = in_both(*lists)
        seconds = time.monotonic() - begun
        values: dict[str, object] = {
            "filling": filling,
            "done": done,
            "total": len(self.index.passages),
            "both": both,
        }
        values |= {"seconds": seconds, "sampled": self.index.sampled(), "models": len(self.models)}
        return render("found", state="found", columns=columns, words=WORDS, **values)

    def empty(self) -> str:
        """Draw the tab before anything was asked, as HTML."""
        state = "ask" if self.index.passages else "no-text"
        models, total = len(self.models), len(self.index.passages)
        return render("found", state=state, models=models, total=total, sampled=self.index.sampled())
