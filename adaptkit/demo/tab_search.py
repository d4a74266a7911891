"""Tab 3: search in the domain's text with a generic and a domain embedding model, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import gradio as gr

from adaptkit.demo.html import render
from adaptkit.demo.roles import Part
from adaptkit.demo.search_index import Hit, Index, shared
from adaptkit.demo.served_models import Server, explain
from adaptkit.errors import ServerError

MAX_QUERY_CHARS = 1000


@dataclass
class Search:
    """The tab's components, and what they do."""

    server: Server
    index: Index
    parts: dict[str, Part] = field(default_factory=dict)

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
        found = gr.HTML(self.empty(), elem_id="found", apply_default_css=False)
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on([go.click, text.submit], self.search, [text, left, right], found, concurrency_limit=8, **quiet)
        return left, right, found

    def search(self, query: str, left: str | None, right: str | None) -> Iterator[str]:
        """HTML: progress while passages get their vectors, then both lists."""
        models = list(dict.fromkeys(model for model in (left, right) if model in self.parts))
        if not models or not self.index.passages or not query.strip():
            yield self.empty()
            return
        columns: list[dict[str, object]] = [
            {"part": self.parts[model], "hits": None, "failure": None} for model in models
        ]
        with self.server.client() as client:
            for column, model in zip(columns, models, strict=True):
                try:
                    yield self._draw(columns, model, 0)
                    for done in self.index.fill(client, model):
                        yield self._draw(columns, model, done)
                    column["hits"] = self.index.nearest(client, model, query[:MAX_QUERY_CHARS])
                except (ServerError, ValueError, KeyError, TypeError) as error:
                    column["failure"] = explain(error, self.server.url, model)
        yield self._draw(columns)

    def _draw(self, columns: list[dict[str, object]], filling: str = "", done: int = 0) -> str:
        lists: list[list[Hit]] = [column["hits"] for column in columns if column["hits"]]  # type: ignore[misc]
        both = shared(*lists) if len(lists) == 2 else set()
        values = {"filling": filling, "done": done, "total": len(self.index.passages), "both": both}
        return render("found", state="found", columns=columns, **values)

    def empty(self) -> str:
        """HTML before anything was asked."""
        state = "ask" if self.parts else "none"
        return render(
            "found", state=state if self.index.passages else "no-text", total=len(self.index.passages)
        )
