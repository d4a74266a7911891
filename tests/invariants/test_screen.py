"""The demo in a real browser over a real vLLM: what the tabs show is what the models say.

The page against a fake server, with every failure there is, is in test_demo_browser.py. This file's name puts
it right before test_serve.py, so that both use one server without its idling through other tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import demo_site
import pytest
from demo_site import Site
from fake_study import LABELS

pytest.importorskip("vllm", reason="vLLM is not installed: `make serve-cpu`")
pytest.importorskip("gradio", reason="the demo extra is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if demo_site.CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)

from real_server import KEY, Served

from adaptkit.demo.served_models import Server


@pytest.fixture(scope="module")
def site(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with (
        demo_site.page_of(Server(served.url, KEY), tmp_path_factory.mktemp("study")) as url,
        demo_site.browser_at(url) as site,
    ):
        demo_site.log_in(site)
        yield site


def test_the_head_counts_what_is_really_served(site: Site) -> None:
    head = site.text("#head")
    assert "6 models ready" in head and "2 to write, 2 to classify, 1 to search, 1 to rank" in head


def test_answers_of_a_model_and_of_its_adapter_stream_side_by_side(site: Site, served: Served) -> None:
    site.page.fill("#prompt textarea", "the engine reads")
    site.page.click("#ask")
    site.page.wait_for_function("document.querySelectorAll('[data-state=done]').length == 2")
    longest = int(site.page.locator(".plain-slider input[type=range]").first.input_value())
    assert longest < 128
    for name in ("writer", "tuned"):
        written = site.page.locator(f"[data-model={name}] .written").evaluate("shown => shown.textContent")
        # the slider ends at half of what the model can read
        assert written == served.client.complete(name, "the engine reads", max_tokens=longest).text
    site.shoot("real-compare")


def test_classes_are_the_classifiers_and_calibrated(site: Site, served: Served) -> None:
    site.tab("Classify")
    text = "the engine measures seven samples"
    site.page.fill("#to-classify textarea", text)
    site.page.click("#classify")
    site.page.wait_for_selector("[data-state=calibrated]")
    _, probabilities = served.client.classify("classes", [text])[0]
    shown = site.page.locator(".bars .label").all_inner_texts()
    assert shown == [LABELS[i] for i in sorted(range(5), key=lambda i: -probabilities[i])], (
        "temperature keeps the order"
    )
    marks = site.page.locator(".bars .raw").evaluate_all(
        "marks => marks.map(mark => parseFloat(mark.style.left))"
    )
    assert sorted(marks) == pytest.approx(sorted(100 * value for value in probabilities), abs=0.02)
    assert "fitted on 60 development items" in site.text("#classified"), (
        "one of them is longer than the model's window"
    )
    site.shoot("real-classify")
    site.page.fill("#to-classify textarea", "the engine measures " * 100)
    mark = "document.querySelector('.bars .raw')?.style.left"
    before = site.page.evaluate(mark)
    site.page.click("#classify")
    site.page.wait_for_function(f"{mark} && {mark} != '{before}'")


def test_search_finds_by_the_embedding_models_vectors_and_by_words(site: Site, served: Served) -> None:
    site.tab("Search")
    site.page.fill("#query input, #query textarea", "adults with asthma")
    site.page.click("#search")
    site.page.wait_for_function("document.querySelectorAll('#found [data-model=words] .hits li').length >= 1")
    by_meaning = site.page.locator("#found [data-model=vectors]")
    passages = by_meaning.locator(".passage").all_inner_texts()
    (query,) = served.client.embed("vectors", ["adults with asthma"], prompt_name="query")
    found = served.client.embed("vectors", passages, prompt_name="passage")
    cosines = [sum(a * b for a, b in zip(query, vector, strict=True)) for vector in found]
    shown = [float(text) for text in by_meaning.locator(".near").all_inner_texts()]
    assert len(shown) == 5 and shown == sorted(shown, reverse=True)
    assert shown == pytest.approx(cosines, abs=0.006)
    assert all(site.page.locator(f"#search-{side}").is_visible() for side in ("left", "right"))
    site.shoot("real-search")


def test_nothing_went_wrong_and_no_key_was_shown(site: Site) -> None:
    assert site.told == [] and KEY not in site.page.content()
    assert [url for url in site.asked if not url.startswith((f"{site.url}/", "data:", "blob:"))] == []
