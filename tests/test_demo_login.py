"""The login before the page: nothing answers without it, and it cannot be tried for ever."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import httpx
import pytest
from demo_study import FakeStudy
from fake_openai import KEY, FakeServer

pytest.importorskip("gradio", reason="the demo extra is not installed")

import fastapi  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from adaptkit.demo import launch  # noqa: E402
from adaptkit.demo.login import LOOPBACK_NAMES, MAX_BODY_BYTES, SESSION_S, Gate  # noqa: E402
from adaptkit.demo.served_models import Server  # noqa: E402
from adaptkit.demo.visitor_requests import SHARE  # noqa: E402

PASSWORD = "correct horse battery"
STUDY_WORDS = ("clinical-trials", "the verdict", "Compare", "about it", "gradio", KEY)
LEAKED_ELSEWHERE = (
    "/",
    "/config",
    "/info",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/file=/etc/passwd",
    "/file=/etc/passwd",
    "/gradio_api/heartbeat/x",
    "/theme.css",
    "/docs",
    "/logout",
    "/assets/../config",
    "//config",
)
ODD_FORMS = (
    "",
    "password",
    "password=",
    "password=%ff%fe",
    f"password=a&password={PASSWORD}",
    "%%%",
    "&" * 50,
    "&" * 4000,
)


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    """The real page behind a login."""
    study = FakeStudy()
    with FakeServer([("clinical-trials-generic-lora", "generate")]) as fake:
        address = launch.ListenAddress("0.0.0.0", 7860, PASSWORD)
        page = launch.make_page(Server(fake.url, KEY), study, [], address)
        yield launch.application(page, address)


@pytest.fixture(scope="module")
def paths(gate: Gate) -> list[tuple[str, str]]:
    """Every (method, path) of the running application, and what has leaked elsewhere."""
    listed = set()
    app = gate.app
    assert isinstance(app, fastapi.FastAPI)
    pending = [("", route) for route in app.routes]
    while pending:
        prefix, route = pending.pop()
        inner = getattr(getattr(route, "app", None), "routes", None)
        if inner is not None:
            pending += [(prefix + route.path, each) for each in inner]
        for method in getattr(route, "methods", None) or (["GET"] if inner is None else []):
            listed.add((method, re.sub(r"\{[^}]*\}", "x", prefix + route.path) or "/"))
    of_gradio = {("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/cancel")} | {
        ("GET", path) for path in LEAKED_ELSEWHERE
    }
    return sorted(listed | of_gradio)


def client_of(gate: Gate, **options: object) -> TestClient:
    return TestClient(gate, base_url="http://demo.example:7860", follow_redirects=False, **options)


def log_in(client: TestClient, password: str = PASSWORD) -> httpx.Response:
    return client.post("/login", data={"password": password})


def test_the_application_has_many_routes(paths: list[tuple[str, str]]) -> None:
    assert len(paths) > 50 and ("POST", "/gradio_api/upload") in paths


def test_without_a_login_every_route_answers_the_same_nothing(
    gate: Gate, paths: list[tuple[str, str]]
) -> None:
    client = client_of(gate)
    for method, path in paths:
        if path in ("/login", "/health"):
            continue
        answer = client.request(method, path)
        assert (answer.status_code, answer.text if method != "HEAD" else "") in (
            (401, '{"error": "log in first"}'),
            (401, ""),
        ), (method, path)
        assert not any(word in str(answer.headers) for word in STUDY_WORDS)
    page = client.get("/", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["location"], page.text) == (303, "/login", "")


def test_the_login_page_names_neither_study_nor_server(gate: Gate) -> None:
    page = client_of(gate).get("/login")
    assert page.status_code == 200 and "Log in" in page.text
    visible = re.sub(r"<style>.*?</style>", "", page.text, flags=re.S)
    assert not any(word in visible for word in STUDY_WORDS) and "http" not in visible
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_after_the_login_the_page_opens_and_holds_no_key(gate: Gate) -> None:
    client = client_of(gate)
    answer = log_in(client)
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and PASSWORD not in cookie
    pages = [client.get(path) for path in ("/", "/config")]
    assert all(page.status_code == 200 for page in pages)
    assert "clinical-trials" in pages[0].text
    assert not any(secret in page.text for page in pages for secret in (KEY, PASSWORD))
    assert pages[0].headers["cache-control"] == "no-store" and pages[0].headers["x-frame-options"] == "DENY"


def test_files_uploads_and_descriptions_stay_closed_even_after_the_login(
    gate: Gate, paths: list[tuple[str, str]]
) -> None:
    client = client_of(gate)
    log_in(client)
    for method, path in [
        *paths,
        ("GET", "/gradio_api/file=../../etc/passwd"),
        ("POST", "/gradio_api/upload"),
    ]:
        if re.match(
            r"/(gradio_api/)?(file|upload|stream|proxy|info|openapi|deep_link|run|call|monitoring|component_server)",
            path,
        ):
            assert client.request(method, path).status_code == 404, (method, path)


def test_a_large_body_is_refused(gate: Gate) -> None:
    client = client_of(gate)
    log_in(client)
    assert client.post("/gradio_api/queue/join", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413
    chunks = (b"x" * 50_000 for _ in range(21))  # announces no length
    assert client.post("/gradio_api/queue/join", content=chunks).status_code == 413
    assert client.post("/login", content=b"password=" + b"x" * 5000).status_code == 401


def test_logging_out_ends_the_session(gate: Gate) -> None:
    client = client_of(gate)
    log_in(client)
    cookie = client.cookies["adaptkit_demo"]
    assert client.get("/logout").headers["location"] == "/login"
    assert client.get("/config", headers={"cookie": f"adaptkit_demo={cookie}"}).status_code == 401


async def _inner(scope: dict, receive: object, send: object) -> None:
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"secret"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_wrong_passwords_are_slowed_down_and_the_right_one_must_wait_too(clock: Clock) -> None:
    client = client_of(Gate(_inner, PASSWORD, clock=clock))
    assert [log_in(client, f"wrong{i}").status_code for i in range(5)] == [401] * 5
    stopped = log_in(client)
    assert (
        stopped.status_code == 429
        and int(stopped.headers["retry-after"]) == 30
        and "30 seconds" in stopped.text
    )
    clock.now += 31
    assert log_in(client, "wrong again").status_code == 401
    assert int(log_in(client).headers["retry-after"]) == 60
    clock.now += 61
    assert log_in(client).status_code == 303
    assert client.get("/").text == "secret"


def test_wrong_passwords_of_many_addresses_lock_nobody_out(clock: Clock) -> None:
    gate = Gate(_inner, PASSWORD, clock=clock)
    for i in range(40):
        stranger = TestClient(gate, base_url="http://demo.example:7860", client=(f"10.0.0.{i}", 1))
        assert log_in(stranger, "wrong").status_code == 401
        assert log_in(stranger, "wrong").status_code == (401 if i < 15 else 429)
    newcomer = client_of(gate, client=("10.9.9.9", 1))
    assert log_in(newcomer).status_code == 303
    mistyped = client_of(gate, client=("10.9.9.8", 1))
    assert log_in(mistyped, "wrong").status_code == 401 and log_in(mistyped).status_code == 429
    clock.now += 61
    assert log_in(mistyped).status_code == 303


def test_a_browser_that_has_logged_in_is_not_stopped_by_its_address(clock: Clock) -> None:
    gate = Gate(_inner, PASSWORD, clock=clock)
    known, neighbour = client_of(gate), client_of(gate)
    assert log_in(known).status_code == 303
    known.get("/logout")
    assert [log_in(neighbour, "wrong").status_code for _ in range(6)] == [401] * 5 + [429]
    assert log_in(neighbour).status_code == 429 and log_in(known).status_code == 303
    known.get("/logout")
    assert [log_in(known, "wrong").status_code for _ in range(6)] == [401] * 5 + [429], "it guesses no more"
    forged = client_of(gate, cookies={"adaptkit_demo_browser": "x" * 43})
    assert log_in(forged).status_code == 429


def test_tries_at_the_same_time_are_counted_one_by_one(clock: Clock) -> None:
    gate = Gate(_inner, PASSWORD, clock=clock)

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(gate)
        async with httpx.AsyncClient(transport=transport, base_url="http://demo.example") as client:
            tries = [client.post("/login", data={"password": f"wrong{i}"}) for i in range(50)]
            return [answer.status_code for answer in await asyncio.gather(*tries)]

    assert sorted(asyncio.run(all_at_once())) == [401] * 5 + [429] * 45


def join(client: TestClient, **fields: object) -> httpx.Response:
    return client.post("/gradio_api/queue/join", json={"data": [], "session_hash": "s", **fields})


@pytest.mark.parametrize("number", [9999, -1, 2**62, 1.5, "0", True, [0], {}])
def test_a_function_that_does_not_exist_is_404(gate: Gate, number: object) -> None:
    client = client_of(gate)
    log_in(client)
    assert join(client, fn_index=number).status_code == 404


def test_one_session_cannot_fill_gradios_queue(gate: Gate) -> None:
    greedy, other = client_of(gate), client_of(gate)
    log_in(greedy)
    log_in(other)
    statuses = [join(greedy, fn_index=0, session_hash=f"s{i}").status_code for i in range(12)]
    assert statuses == [200] * SHARE + [429] * (12 - SHARE), "nobody works on the queue here"
    assert join(other, fn_index=0).status_code == 200


def test_a_session_ends_by_itself(clock: Clock) -> None:
    client = client_of(Gate(_inner, PASSWORD, clock=clock))
    log_in(client)
    cookie = {"cookie": f"adaptkit_demo={client.cookies['adaptkit_demo']}"}
    clock.now += SESSION_S - 1
    assert client.get("/", headers=cookie).status_code == 200
    clock.now += 2
    assert client.get("/", headers=cookie).status_code == 401


@pytest.mark.parametrize(
    "cookie", ["", "adaptkit_demo=", "adaptkit_demo=x", "adaptkit_demo=\u00e9", 'adaptkit_demo="', "a b;;=,"]
)
def test_no_made_up_cookie_opens(cookie: str) -> None:
    client = client_of(Gate(_inner, PASSWORD))
    assert client.get("/", headers={"cookie": cookie.encode("latin-1")}).status_code == 401


@pytest.mark.parametrize("sent", ODD_FORMS)
def test_no_odd_form_opens_or_breaks(sent: str) -> None:
    client = client_of(Gate(_inner, PASSWORD))
    answer = client.post("/login", content=sent.encode())
    assert answer.status_code == 401 and "set-cookie" not in answer.headers


def test_web_sites_cannot_use_a_page_on_loopback() -> None:
    gate = Gate(_inner, None, LOOPBACK_NAMES)
    client = TestClient(gate, base_url="http://127.0.0.1:7860")
    assert client.get("/").text == "secret"
    assert client.get("/", headers={"host": "rebound.example"}).status_code == 421
    assert client.get("/", headers={"host": "127.0.0.1.rebound.example:7860"}).status_code == 421
    foreign = {"origin": "http://evil.example"}
    assert client.post("/gradio_api/queue/join", headers=foreign).status_code == 403
    assert (
        client.post("/gradio_api/queue/join", headers={"origin": "http://127.0.0.1:7860"}).status_code == 200
    )
    assert client.get("/", headers={"origin": "null"}).status_code == 403


def test_foreign_sites_cannot_log_visitors_in_or_use_their_session() -> None:
    client = client_of(Gate(_inner, PASSWORD))
    assert (
        client.post(
            "/login", data={"password": PASSWORD}, headers={"origin": "http://evil.example"}
        ).status_code
        == 403
    )


def test_web_sockets_are_closed() -> None:
    client = client_of(Gate(_inner, None))
    with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/"):
        pass
    assert closed.value.code == 1008
