"""The whole page: it follows the server, draws what is empty or failed, and needs no study.

Home of demo.second_click, whose clicks the browser test makes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo_study import DOMAIN_VECTORS, GENERIC_VECTORS, IDENTITIES, MODELS, SORTER, STUDENT, FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

from adaptkit.demo import launch
from adaptkit.demo.page import Page
from adaptkit.demo.served_models import Look, Server
from adaptkit.demo.study_view import NoStudy
from adaptkit.demo.tab_search import WORDS


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.002) as server:
        yield server


@pytest.fixture
def server(fake: FakeServer) -> Server:
    return Server(fake.url, KEY)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def page(server: Server, state: Path) -> Page:
    page = launch.make_page(server, FakeStudy(), [], launch.ListenAddress("127.0.0.1", 7860, None))
    page.look(Look())
    return page


def test_empty_and_failed_states_are_drawn(page: Page, fake: FakeServer) -> None:
    assert "Write a prompt first" in next(page.compare.ask(" ", [STUDENT], "", "", 16, 1.0))
    assert "Choose at least one model" in next(page.compare.ask("Once", [], "", "", 16, 1.0))
    fake.behave[DOMAIN_VECTORS] = fake.behave[SORTER] = "busy"
    *_, drawn = page.search.search("asthma", GENERIC_VECTORS, DOMAIN_VECTORS)
    assert "failure busy" in drawn and drawn.count('<ol class="hits">') == 1
    *_, classified = page.classify.classify("text", SORTER)
    assert "failure busy" in classified
    fake.models = [(STUDENT, "generate")]
    page.look(Look())
    none_served = next(page.classify.classify("text", SORTER))
    assert "No classifier is served" in none_served and "choose a label on rct_role" in none_served
    assert "<code>adaptkit serve clinical-trials</code>" in none_served


def test_no_tab_is_dead_whatever_the_server_offers(page: Page, fake: FakeServer, tmp_path: Path) -> None:
    *_, compare, classify = page.look(Look())
    assert compare["visible"] and classify["visible"]
    fake.models = [(SORTER, "classify")]
    _, _, _, _, left, right, *_, compare, classify = page.look(Look())
    assert not compare["visible"] and classify["visible"], "a study of encoders has nothing that writes"
    assert left["value"] == WORDS and left["interactive"] and not right["visible"]
    page.study = page.classify.study = NoStudy(tmp_path)
    fake.models = [(STUDENT, "generate"), (DOMAIN_VECTORS, "embed")]
    _, _, _, _, left, right, *_, compare, classify = page.look(Look())
    assert compare["visible"] and not classify["visible"], "no task has labels, no model gives any"
    assert (left["value"], right["value"], right["visible"]) == (DOMAIN_VECTORS, WORDS, True)
    fake.loading = True
    *_, compare, classify = page.look(Look())
    assert compare["visible"] and classify["visible"], "a server that is away takes no tab away"


def test_the_head_follows_the_server_and_leaves_the_page_alone_while_nothing_changes(
    page: Page, fake: FakeServer
) -> None:
    seen, head, *_ = page.look(Look())
    assert "7 models ready" in head and "4 to write, 1 to classify, 2 to search" in head
    assert page.look(seen) == page.look(seen) and page.look(seen)[1] != head
    *_, classified, hits, _, _ = page.look(Look())
    assert "Which class, and how sure?" in classified and "two ways of understanding" in hits
    fake.loading = True
    assert "loading or restarting" in page.look(seen)[1]


def test_a_model_that_loads_is_not_counted_as_ready(page: Page, server: Server) -> None:
    models = server.look().models
    loading = dataclasses.replace(models[0], ready=False)
    head = page._head(Look((loading, *models[1:])))
    assert "6 models ready, 1 loading" in head and "loading" not in page._head(Look(models))


def test_a_folder_with_one_model_gets_a_page_without_a_verdict(server: Server, tmp_path: Path) -> None:
    address = launch.ListenAddress("127.0.0.1", 7860, None)
    page = launch.make_page(server, NoStudy(tmp_path), [], address, "# a card")
    page.build()
    assert "Nothing was compared yet" in page.study.verdict() and page.card == "# a card"
    page.look(Look())
    assert "no cost is shown" in list(page.compare.ask("Once", [STUDENT], "", "", 16, 0.0))[-1]


def test_models_are_shown_by_what_the_server_tells_of_them(page: Page, fake: FakeServer) -> None:
    _, _, models, classifier, left, right, *_ = page.look(Look())
    assert [title for title, _ in models["choices"]] == [
        "Generic",
        "Fine-tuned",
        "Domain-pretrained",
        "Distilled",
    ]
    assert models["value"] == ["plain", "taught", "own", "student"]
    assert (classifier["value"], left["value"], right["value"]) == (SORTER, GENERIC_VECTORS, DOMAIN_VECTORS)
    fake.identities = {}
    _, _, models, *_ = page.look(Look())
    assert [title for title, _ in models["choices"]] == ["own", "plain", "student", "taught"]


def test_one_title_for_several_models_says_which(page: Page, fake: FakeServer) -> None:
    fake.identities["taught"] = {"role": "generic", "origin": "generic"}
    _, _, models, *_ = page.look(Look())
    assert models["choices"][:2] == [("Generic: generic+prompt", "plain"), ("Generic: taught", "taught")]


def test_each_button_says_something_while_its_first_click_is_at_work(page: Page) -> None:
    config = page.build().get_config_file()
    looks = [str(each["js"]) for each in config["dependencies"] if "querySelector" in str(each.get("js"))]
    messages = {"cards": "still answering", "classified": "being classified", "found": "being searched"}
    for area, message in messages.items():
        assert any(f"#{area} [data-state=" in look and message in look for look in looks), area


def test_the_page_is_built_with_its_tabs_and_no_key(page: Page) -> None:
    config = page.build().get_config_file()
    labels = [part["props"].get("label") for part in config["components"] if part["type"] == "tabitem"]
    assert labels == ["Compare", "Classify", "Search", "Decide", "About"]
    assert KEY not in str(config) and "the verdict" in str(config)
