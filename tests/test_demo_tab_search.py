"""Search: progress while passages get their vectors, then two lists side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_study import DOMAIN_VECTORS, GENERIC_VECTORS, IDENTITIES, MODELS, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

from adaptkit.demo.search_index import Index
from adaptkit.demo.served_models import EMBED, Server
from adaptkit.demo.shown_models import show_models
from adaptkit.demo.tab_search import WORDS, Search


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


def test_search_fills_the_index_then_shows_both_lists(tab: Search) -> None:
    *waiting, last = tab.search("asthma drug", GENERIC_VECTORS, DOMAIN_VECTORS)
    assert any("Reading the passages: 32 of 60" in html for html in waiting)
    assert last.count('<ol class="hits">') == 2 and "both found this" in last
    alone = list(tab.search("asthma drug", DOMAIN_VECTORS, DOMAIN_VECTORS))[-1]
    assert alone.count('<ol class="hits">') == 1 and "Choose a second one beside it" in alone
    assert "no embedding model is served" not in last + alone


def test_words_are_searched_beside_a_model_and_without_any(tab: Search) -> None:
    tab.index = Index(
        [("a:1", "the fever of a child"), ("a:2", "asthma at night"), ("a:3", "asthma, asthma")]
    )
    assert tab.choices()[-1] == ("By words", WORDS) and len(tab.choices()) == 3
    *_, beside = tab.search("asthma", DOMAIN_VECTORS, WORDS)
    assert beside.count('<ol class="hits">') == 2 and "both found this" in beside
    assert 'title="BM25 score"' in beside and 'title="cosine similarity"' in beside
    tab.models = {}
    assert "ranked by the words that they share" in tab.empty()
    [alone] = tab.search("what helps against asthma?", WORDS, None)
    assert alone.index("asthma, asthma") < alone.index("asthma at night") and "fever" not in alone
    assert "adaptkit embed train" in alone and "vectors=runs/EMBED-RUN" in alone
    [nothing] = tab.search("zebra", WORDS, None)
    assert "No passage holds any of these words" in nothing


def test_what_is_not_searched_and_not_read_is_said(tab: Search) -> None:
    tab.index = Index.of([(f"d:{i}", f"asthma {i} " + "word " * 200) for i in range(500)])
    *waiting, last = tab.search("asthma " * 200, GENERIC_VECTORS, DOMAIN_VECTORS)
    assert "400 passages were searched, drawn evenly from 500" in last
    assert "400 of them by their first 600 characters alone" in last
    assert "The text ends after its first 1,000 characters" in last
    assert 'data-state="filling"' in waiting[0] and 'class="progress"' in "".join(waiting)
    assert 'data-state="filling"' not in last


@pytest.fixture
def tab(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    tab = Search(server, Index(FakeStudy().documents()))
    tab.models = {model.name: model for model in show_models(server.look().of_kind(EMBED))}
    return tab


def test_without_text_there_is_nothing_to_search_in(server: Server, tab: Search) -> None:
    bare = Search(server, Index([]), tab.models)
    assert bare.choices() == []
    assert "There is no text to search in" in next(bare.search("asthma", GENERIC_VECTORS, None))
    assert "two ways of understanding" in next(tab.search(" ", GENERIC_VECTORS, None))
