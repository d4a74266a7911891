"""The whole way of a newcomer: an own CSV, a study, its report, a served model, the page that asks it.

The commands run in `walk`; the model is served beside the others of the one real server.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from real_server import KEY
from walk import ARM, NAME

if TYPE_CHECKING:
    from real_server import Served
    from walk import Walk

    from adaptkit.demo.page import Page

TEXTS = ("the printer eats the paper", "my card was charged twice")


def test_every_command_takes_what_the_one_before_left(walked: Walk) -> None:
    assert walked.problem == ""
    assert "next: adaptkit compare study.yaml" in walked.shown["init"]
    assert "tfidf, no language model" in walked.shown["init"]
    assert "VERDICT: " in walked.shown["compare"] and "report.html" in walked.shown["compare"]
    assert (walked.study / "report/report.html").is_file() and "VERDICT: " in walked.shown["report"]
    assert len(answers(walked)) == 2
    assert (walked.export / "README.md").is_file() and (walked.export / "model.safetensors").is_file()


def test_the_served_model_answers_as_it_did_without_a_server(walked: Walk, served: Served) -> None:
    assert walked.problem == ""
    [row] = [row for row in served.client.models() if row.name == "tickets"]
    assert row.identity is not None and (row.identity.arm, row.identity.study) == (ARM, NAME)
    found = served.client.classify("tickets", TEXTS)
    labels = ("account", "billing", "hardware", "network")
    chosen = [labels[probabilities.index(max(probabilities))] for _, probabilities in found]
    assert chosen == answers(walked)


def test_what_serve_takes_of_the_study_leaves_no_tab_of_its_page_without_a_model(walked: Walk) -> None:
    from adaptkit.export.hardware import Hardware
    from adaptkit.serve.engine.launches import Choice, ModelWord, make_launches

    assert walked.problem == ""
    roomy = Hardware(cores=2, free_bytes=64 * 2**30)
    launches, _ = make_launches([ModelWord(None, walked.study)], roomy, Choice(for_demo=True))
    assert [launch.source.kind for launch in launches] == ["classify", "generate"]


@pytest.fixture(scope="module")
def page(walked: Walk, served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of the study over the real server."""
    pytest.importorskip("gradio", reason="the demo extra is not installed")
    from adaptkit.demo import launch
    from adaptkit.demo.served_models import Look, Server
    from adaptkit.report.demo_view import StudyView

    assert walked.problem == ""
    address = launch.ListenAddress("127.0.0.1", 7860, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        page = launch.make_page(Server(served.url, KEY), StudyView(walked.study), [], address)
        page.look(Look())
        yield page


def test_the_page_answers_to_a_browser(page: Page) -> None:
    from starlette.testclient import TestClient

    from adaptkit.demo import launch

    address = launch.ListenAddress("127.0.0.1", 7860, None)
    with TestClient(launch.application(page, address), base_url="http://127.0.0.1:7860") as browser:
        shown = browser.get("/")
    assert shown.status_code == 200 and f"{NAME} " in shown.text


def test_its_tabs_classify_search_and_go_on_with_the_studys_own_texts(page: Page) -> None:
    *_, classified = page.classify.classify(TEXTS[0], "tickets")
    assert all(label in classified for label in ("account", "billing", "hardware", "network"))
    *_, found = page.search.search("the printer is broken", "vectors", None)
    assert 'class="hits"' in found and "passages were searched" in found
    prompt = page.compare.samples.next(chat=False)
    *_, answered = page.compare.ask(prompt, ["writer"], "Continue the text", "All at once", 16, 0.0)
    assert prompt and 'data-state="done"' in answered and "How the text itself goes on" in answered
    assert "is left out" in page.study.weigh(), "nobody gave a price"


def answers(walked: Walk) -> list[str]:
    """The labels that `try` gave, one to a text."""
    labels = ("account", "billing", "hardware", "network")
    lines = [line for line in walked.shown["try"].splitlines() if any(label in line for label in labels)]
    return [next(word for word in line.split() if word in labels) for line in lines][:2]
