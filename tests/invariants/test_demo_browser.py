"""The demo in a real browser: one session, one page, clicked through tab by tab against a fake server.

Nothing is asked of the network beyond the page's own address, nothing is an error in the console. Skipped
without Chromium. With ADAPTKIT_SCREENSHOTS=FOLDER the pictures are kept, in two widths, light and dark.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import demo_site
import pytest
from demo_site import Site
from demo_study import IDENTITIES, MODELS
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
if demo_site.CHROMIUM is None:
    pytest.skip("no Chromium on this machine", allow_module_level=True)

from adaptkit.demo.served_models import Server

STUDY = "clinical-trials"
SMALLEST_WORDS = """() => Math.min(...[...document.querySelectorAll(".drawing svg text")]
    .filter(each => each.getBoundingClientRect().width)
    .map(each => parseFloat(getComputedStyle(each).fontSize) *
        each.ownerSVGElement.getBoundingClientRect().width / each.ownerSVGElement.viewBox.baseVal.width))"""


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with FakeServer(MODELS, identities=IDENTITIES, delay_s=0.015) as server:
        yield server


@pytest.fixture(scope="module")
def site(fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One browser, logged in after one wrong try."""
    with (
        demo_site.page_of(Server(fake.url, KEY), tmp_path_factory.mktemp("study")) as url,
        demo_site.browser_at(url) as site,
    ):
        assert site.page.url == f"{url}/login"
        site.page.fill("#password", "not this one")
        site.page.click("button")
        assert site.page.inner_text(".problem") == "That is not the password."
        site.shoot("login")
        demo_site.log_in(site)
        yield site


def test_the_head_says_what_is_served(site: Site) -> None:
    assert "7 models ready" in site.text("#head") and STUDY in site.text("#head")
    assert site.page.title() == f"{STUDY} \u00b7 adaptkit"
    assert site.page.locator("footer").count() == 0 or not site.page.locator("footer").first.is_visible()
    site.shoot("empty")


def test_answers_stream_side_by_side(site: Site) -> None:
    site.tab("Compare")
    assert site.page.locator("#models input:checked").count() == 4
    site.page.fill("#prompt textarea", "The patients were")
    site.page.click("#ask")
    site.page.wait_for_selector("[data-state=writing]")
    lengths = []
    while site.page.locator("[data-state=writing]").count() and len(lengths) < 400:
        lengths.append(
            site.page.evaluate(
                "(document.querySelector('.card .written') || {innerText: ''}).innerText.length"
            )
        )
        time.sleep(0.05)
    site.page.wait_for_function("document.querySelectorAll('[data-state=done]').length == 4")
    assert len(set(lengths)) > 3, "the answer came in one piece"
    assert [site.page.locator(".card h3").nth(i).inner_text() for i in range(4)] == [
        "Generic",
        "Fine-tuned",
        "Domain-pretrained",
        "Distilled",
    ]
    meters = site.page.locator(".card .meter").all_inner_texts()
    assert all(
        re.search(r"Tokens per second\s+[\d.]+\s[^$]*1,000 answers\s+\$[\d.]+", meter) for meter in meters
    )
    assert "$0.40 an hour" in site.text("#cards .note")
    site.shoot("compare")


def test_what_a_model_writes_stays_text(site: Site, fake: FakeServer) -> None:
    fake.behave[MODELS[0][0]] = "hostile"
    site.page.click("#ask")
    site.page.wait_for_function("document.querySelector('.card .written')?.innerText.includes('${1+1}')")
    written = site.page.locator(".card .written").first
    assert "<b>bold</b> ${1+1} {{2}}" in written.inner_text() and written.locator("b").count() == 0
    site.page.wait_for_function("document.querySelectorAll('[data-state=done]').length == 4")
    fake.behave.clear()


def test_failures_stand_in_their_own_cards(site: Site, fake: FakeServer) -> None:
    names = [name for name, _ in MODELS]
    fake.behave.update({names[0]: "busy", names[1]: "cut", names[2]: "slow"})
    site.page.click("#ask")
    site.page.wait_for_selector(".failure.busy")
    site.page.wait_for_selector(".failure.cut")
    assert "Try again in 9 s" in site.text(".failure.busy") and "broke off" in site.text(".failure.cut")
    assert site.page.locator(f"[data-model='{names[2]}'][data-state=asked] .spinner").count() == 1
    site.page.wait_for_function(
        "document.querySelector('[data-state=asked]').innerText.includes('no word yet, 2 s')"
    )
    site.shoot("failures")
    site.page.wait_for_function("document.querySelectorAll('[data-state=done]').length == 2")
    fake.behave.clear()


def test_stop_ends_an_answer(site: Site, fake: FakeServer) -> None:
    fake.delay_s = 0.2
    site.page.click("#ask")
    site.page.wait_for_selector("[data-state=writing]")
    assert site.text("#cards-busy").strip() == ""
    site.page.click("#ask")
    site.page.wait_for_function("document.querySelector('#cards-busy').innerText.includes('still answering')")
    site.shoot("second-click")
    site.page.click("#stop")
    time.sleep(1.0)
    before = site.text("#cards")
    time.sleep(1.0)
    assert site.text("#cards") == before and site.text("#cards-busy").strip() == ""
    assert site.page.locator("#cards [data-state=stopped]").count() > 0, "nothing is under way any more"
    fake.delay_s = 0.015


def test_classes_come_with_calibrated_probabilities(site: Site) -> None:
    site.tab("Classify")
    site.shoot("classify-empty")
    site.page.click("#classify")
    site.page.wait_for_selector("[data-state=calibrated]")
    assert "calibration error (ECE) falls from" in site.text("#classified")
    shares = [float(text.rstrip(" %")) for text in site.page.locator(".bars .share").all_inner_texts()]
    assert len(shares) == 5 and sum(shares) == pytest.approx(100, abs=0.3) and shares[0] < 96
    site.shoot("classify")


def test_search_shows_generic_against_domain(site: Site) -> None:
    site.tab("Search")
    assert "The same question, two ways of understanding it" in site.text("#found")
    site.shoot("search-empty")
    site.page.fill("#query input, #query textarea", "adults with asthma")
    site.page.click("#search")
    site.page.wait_for_function("document.querySelectorAll('#found .hits').length == 2")
    assert site.page.locator("#found .hits li").count() == 10
    assert "asthma" in site.page.locator("#found [data-model=domain-vectors] .passage").first.inner_text()
    site.shoot("search")


def test_the_verdict_stands_first_in_plain_words(site: Site) -> None:
    site.tab("Decide")
    site.page.wait_for_selector(".ak-verdict h1")
    assert site.text(".ak-verdict h1") == "Pretrain a small model of your own."
    assert "VERDICT: " in site.text(".ak-verdict .line")
    assert site.page.locator("svg.plot").count() > 5
    site.shoot("decide")


@pytest.mark.parametrize(
    ("dial", "key", "is_lower"), [("usd_per_hour", "PageUp", False), ("usd_out", "PageUp", True)]
)
def test_sliders_move_the_break_even(site: Site, dial: str, key: str, is_lower: bool) -> None:
    site.tab("Decide")
    before, said = break_even(site), site.text(f"#said-{dial} b")
    slider = site.page.locator(f"#dial-{dial} input[type=range]")
    slider.focus()
    for _ in range(3):
        slider.press(key)
    site.page.wait_for_function(
        f"document.querySelector('[data-break-even]').dataset.breakEven != '{before}'"
    )
    after = break_even(site)
    assert after != before and site.text(f"#said-{dial} b") != said
    assert "set on this page" in site.text(f"#said-{dial}")
    assert (float(after) < float(before)) == is_lower


def test_the_text_slider_asks_the_forecast_and_moves_no_money(site: Site) -> None:
    site.tab("Decide")
    before, said = break_even(site), site.text("#said-data_bytes b")
    slider = site.page.locator("#dial-data_bytes input[type=range]")
    slider.focus()
    slider.press("PageDown")
    site.page.wait_for_function(
        "document.querySelector('#said-data_bytes').innerText.includes('set on this page')"
    )
    assert site.text("#said-data_bytes b") != said and break_even(site) == before


def test_the_requests_slider_moves_the_bills_and_not_the_break_even(site: Site) -> None:
    site.tab("Decide")
    before, bill = break_even(site), site.text("#weighed .tiles")
    slider = site.page.locator("#dial-requests_per_month input[type=range]")
    slider.focus()
    slider.press("PageUp")
    site.page.wait_for_function(f"document.querySelector('#weighed .tiles').innerText != {bill!r}")
    assert break_even(site) == before


def test_back_goes_back_and_the_price_reaches_the_other_tab(site: Site) -> None:
    site.tab("Compare")
    site.page.click("#ask")
    new_note = (
        "(note => note && !note.innerText.includes('$0.40 an hour'))(document.querySelector('#cards .note'))"
    )
    site.page.wait_for_function(new_note)  # the note of an earlier answer may still stand there
    site.tab("Decide")
    site.page.click("#back")
    site.page.wait_for_function("document.querySelector('#said-usd_per_hour b').innerText == '$0.40'")
    site.page.wait_for_function(
        "document.querySelector('#said-data_bytes small').innerText == 'as in the study'"
    )


def break_even(site: Site) -> str:
    return site.page.locator("[data-break-even]").get_attribute("data-break-even")


def test_about_tells_data_and_limits(site: Site) -> None:
    site.tab("About")
    page = site.text("#component-0, .gradio-container")
    for text in ("What this study cannot tell", "CC BY 4.0", "What was held equal", "The strategies"):
        assert text in page
    assert site.text("#card td") == "train" and site.text("#card h1") == "The winner"
    site.shoot("about")


@pytest.mark.parametrize("width", [390, 320])
def test_nothing_is_wider_than_a_phone(site: Site, width: int) -> None:
    site.page.set_viewport_size({"width": width, "height": 844})
    for tab in ("Compare", "Decide"):
        if site.page.get_by_role("tab", name=tab).first.is_visible():
            site.tab(tab)
        assert site.page.evaluate("document.documentElement.scrollWidth") <= width
    site.page.set_viewport_size({"width": 1400, "height": 900})


def test_figures_keep_words_of_at_least_12_pixels_on_a_phone(site: Site) -> None:
    site.page.set_viewport_size({"width": 390, "height": 900})
    site.tab("Decide")
    site.page.wait_for_selector(".drawing svg text")
    assert site.page.evaluate(SMALLEST_WORDS) >= 12
    note = "getComputedStyle(document.querySelector('.drawing + figcaption'), '::before').content"
    assert "Swipe the figure" in site.page.evaluate(note)
    site.page.set_viewport_size({"width": 1400, "height": 900})


def test_the_page_follows_a_server_that_goes_and_comes(site: Site, fake: FakeServer) -> None:
    fake.loading = True
    site.page.wait_for_selector("#head .dot.off")
    assert "loading or restarting" in site.text("#head") and "Try again in 7 s" in site.text("#head")
    site.shoot("away")
    fake.loading = False
    site.page.wait_for_selector("#head .dot.on")


def test_nothing_was_asked_of_the_network_and_nothing_went_wrong(site: Site) -> None:
    assert len(site.asked) > 50
    assert [url for url in site.asked if not url.startswith((f"{site.url}/", "data:", "blob:"))] == []
    assert site.told == []
    assert KEY not in site.page.content()


def test_logging_out_leads_back_to_the_login(site: Site) -> None:
    site.page.click(".out")
    site.page.wait_for_url(f"{site.url}/login")
