"""Starts the page: the gate before Gradio, on one port, until it is told to end."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adaptkit.demo.html import style
from adaptkit.demo.login import LOOPBACK_NAMES, Gate
from adaptkit.errors import ConfigError, MissingDependency, ServerError
from adaptkit.serve import api_keys, preflight
from adaptkit.serve.status import Teller

if TYPE_CHECKING:
    from adaptkit.demo.page import Page
    from adaptkit.demo.served_models import Server
    from adaptkit.demo.study_view import Study

PASSWORD_VARIABLE = "ADAPTKIT_DEMO_PASSWORD"
SHORTEST_PASSWORD = 10
MOST_THREADS = 40
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_SHARE": "False",
    "DO_NOT_TRACK": "1",
}
DARK_BY_SYSTEM = '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'


@dataclass(frozen=True)
class Door:
    """Where the page listens and what opens it; a password of None means no login."""

    host: str
    port: int
    password: str | None
    made: bool = False
    """The password was made here, so it must be told."""
    share: bool = False

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def door(host: str, port: int, password_file: Path | None, share: bool) -> Door:
    """Whether a login is needed, and its password: from the file, the environment, or made.

    On loopback there is none unless a password is given; everywhere else there always is one.
    Raises: ConfigError for a password that is too short or a file that cannot be read.
    """
    given = _given(password_file)
    if given is None and preflight.is_loopback(host) and not share:
        return Door(host, port, None)
    return Door(host, port, given or secrets.token_urlsafe(12), made=given is None, share=share)


def _given(password_file: Path | None) -> str | None:
    if password_file is None:
        where, text = f"${PASSWORD_VARIABLE}", os.environ.get(PASSWORD_VARIABLE, "")
    else:
        try:
            where, text = str(password_file), password_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"no password can be read: {error}", where=str(password_file), fix="write it in one line"
            ) from None
    password = text.strip()
    if not password and password_file is None:
        return None
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigError(
            f"a password must have at least {SHORTEST_PASSWORD} characters",
            where=where,
            fix="choose a longer one",
        )
    return password


def check_installed() -> None:
    """Raises: MissingDependency without Gradio."""
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise MissingDependency("the demo page needs Gradio", fix="pip install 'adaptkit[demo]'")


def page(server: Server, study: Study, passages: list[tuple[str, str]], door: Door, card: str = "") -> Page:
    """The page, ready to be served; Gradio is loaded here, told to ask nothing of the network."""
    os.environ.update(QUIET)
    from adaptkit.demo.page import Page

    return Page(server, study, passages, card, signed_in=door.password is not None)


def application(page: Page, door: Door) -> Gate:
    """The ASGI application: the gate, then Gradio with what it could leak or load switched off."""
    import fastapi
    import gradio as gr

    from adaptkit.demo.page import theme

    blocks = page.build()
    blocks.queue(default_concurrency_limit=32, max_size=64, api_open=False)
    inner = fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app = gr.mount_gradio_app(
        inner,
        blocks,
        path="",
        server_name=door.host,
        server_port=door.port,
        footer_links=[],
        allowed_paths=[],
        blocked_paths=["/"],
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        run_history=False,
        theme=theme(),
        css=style(),
        head=DARK_BY_SYSTEM,
    )
    hosts = LOOPBACK_NAMES | {door.host} if door.password is None else frozenset()
    return Gate(app, door.password, hosts)


def server(url: str, key_file: Path | None = None) -> Server:
    """The server at `url` with its key: from the file or the environment; this machine's own key goes to
    loopback only.

    Raises: ConfigError for an address that is none, or a key that cannot be read.
    """
    from adaptkit.demo.served_models import Server

    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError(
            "not an address of a server", where=f"--server {url[:80]}", fix="give http://HOST:PORT"
        )
    own = (
        preflight.is_loopback(parts.hostname)
        or key_file
        or any(map(os.environ.get, (api_keys.KEY_VARIABLE, api_keys.FILE_VARIABLE)))
    )
    base = url.rstrip("/").removesuffix("/v1")
    return Server(base, api_keys.load(key_file).values[0] if own else "")


def tell(door: Door, address: str) -> None:
    """Say on standard error where the page is and how it opens; a made password goes to a terminal or into a
    file."""
    teller = Teller()
    teller.note("demo", f"ready: {address}")
    if door.password is None or not door.made:
        teller.note(
            "demo",
            "opens without a login, on this machine only"
            if door.password is None
            else "opens with your password",
        )
    elif sys.stderr.isatty():
        teller.note("demo", f"password: {door.password}")
    else:
        path = api_keys.state_folder() / f"demo-password-{door.port}"
        path.unlink(missing_ok=True)
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as file:
            file.write(f"{door.password}\n")
        teller.note("demo", f"the password is in {path}")
    if not preflight.is_loopback(door.host):
        teller.note("demo", f"listens on {door.host} without encryption: put a TLS proxy in front of it")


def run(page: Page, door: Door) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises: ConfigError for a port that is taken, ServerError where a public address was asked for and cannot
        be had.
    """
    import uvicorn

    listening = preflight.listen(door.host, door.port)
    config = uvicorn.Config(
        application(page, door),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=3,
    )

    class Telling(uvicorn.Server):
        async def startup(self, sockets: list | None = None) -> None:
            await super().startup(sockets)
            tell(door, _public(door) if door.share else door.url)

    # uvicorn hands a signal on to the handler that was there before; the default one would end us with its
    # number.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    Telling(config).run([listening])


def _public(door: Door) -> str:
    """A public address through Gradio's own relay, which sees what passes."""
    from gradio.networking import setup_tunnel

    try:
        return setup_tunnel("127.0.0.1", door.port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # whatever the relay's client raises: offline, blocked, refused
        what = f"there is no public address to be had: {type(error).__name__}"
        raise ServerError(
            what, where="gradio's relay", fix="leave --share-publicly out, and put a TLS proxy in front"
        ) from None
