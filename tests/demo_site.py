"""The demo's page, running over any server, and a headless browser that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fake_study import LABELS, PRICES, write_bench, write_study

from adaptkit.demo import launch
from adaptkit.demo.served_models import Server
from adaptkit.run import write_jsonl

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PASSWORD = "open for the browser"
WAIT_MS = 60_000
CARD = """# The winner

| set | documents |
|---|---|
| train | 1,816 |

Made with `adaptkit`.

- for trials only
"""


class Site:
    """The browser's view of the page: what its console told, and every address that it asked for."""

    def __init__(self, url: str, page: Any):
        self.url, self.page = url, page
        self.told: list[str] = []
        self.asked: list[str] = []

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def shoot(self, name: str) -> None:
        """Pictures for people, where they are asked for."""
        if folder := os.environ.get("ADAPTKIT_SCREENSHOTS"):
            for width, theme in ((1400, "light"), (1400, "dark"), (390, "light"), (390, "dark")):
                self.page.set_viewport_size({"width": width, "height": 900})
                self.page.evaluate(f"document.body.classList.toggle('dark', {str(theme == 'dark').lower()})")
                self.page.screenshot(path=Path(folder) / f"{name}-{width}-{theme}.png", full_page=True)
            self.page.evaluate("document.body.classList.remove('dark')")
            self.page.set_viewport_size({"width": 1400, "height": 900})


def write_texts(study: Path) -> None:
    """What a study's first stage leaves for the page: labelled rows and held-out passages."""
    for part in ("dev", "test"):
        rows = [
            {"text": f"class{i % 5} patients, group {i}, {part}", "label": LABELS[i % 5], "from": f"r:{i}"}
            for i in range(60)
        ]
        rows[7]["text"] *= 30  # longer than some models' windows
        write_jsonl(study.parent / "prepared" / f"rct_role.{part}.jsonl", rows)
    subjects = ("asthma", "sleep", "pain", "diet", "vision")
    texts = [
        {"text": f"Adults with {subjects[i % 5]} took drug {i} for twelve weeks.", "from": f"notes:{i}"}
        for i in range(50)
    ]
    texts[8]["text"] *= 30
    write_jsonl(study.parent / "prepared" / "domain.test.jsonl", texts)


@contextmanager
def page_of(server: Server, root: Path) -> Iterator[str]:
    """The real application behind its login, on a free port, in a thread; its address."""
    import uvicorn

    from adaptkit.report.demo_view import StudyView

    os.environ["XDG_STATE_HOME"] = str(root / "state")
    study, prices = write_study(root, num_rows=60), root / "prices.yaml"
    write_texts(study)
    write_bench(study)
    prices.write_text(PRICES)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = launch.ListenAddress("127.0.0.1", listening.getsockname()[1], PASSWORD)
        page = launch.make_page(server, StudyView(study, prices), [], address, CARD)
        config = uvicorn.Config(
            launch.application(page, address), log_level="warning", ws="none", timeout_graceful_shutdown=1
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, args=([listening],), daemon=True)
        thread.start()
        try:
            yield address.url
        finally:
            running.should_exit = True
            thread.join(20)
            del os.environ["XDG_STATE_HOME"]


@contextmanager
def browser_at(url: str) -> Iterator[Site]:
    """A browser at the login."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(WAIT_MS)
        site = Site(url, page)
        page.on("request", lambda request: site.asked.append(request.url))
        page.goto(url)
        yield site
        browser.close()


def log_in(site: Site) -> None:
    """The right password, and everything that the browser complains about from here on."""

    def complained(said: Any) -> None:
        # a wrong password is answered by 401, which a browser calls an error, now or a little later
        if said.type == "error" and said.location.get("url") != f"{site.url}/login":
            site.told.append(said.text)

    site.page.on("console", complained)
    site.page.on("pageerror", lambda error: site.told.append(str(error)))
    site.page.fill("#password", PASSWORD)
    site.page.click("button")
    site.page.wait_for_selector("#head .dot.on")
