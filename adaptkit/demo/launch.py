"""Start the page: the login before Gradio, on one port, until it is told to end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adaptkit.demo.html import HEAD, style, theme
from adaptkit.demo.login import LOOPBACK_NAMES, MAX_BODY_BYTES, Gate
from adaptkit.demo.search_index import Passages
from adaptkit.demo.served_models import Server
from adaptkit.demo.study_view import Study
from adaptkit.demo.visitor_requests import VISITOR, VisitorRequests
from adaptkit.errors import ConfigError, ServerError
from adaptkit.serve import api_keys
from adaptkit.serve.address import http_url, is_loopback, listen
from adaptkit.serve.status import StatusLine
from adaptkit.study.vote_record import open_votes

if TYPE_CHECKING:
    import gradio as gr

    from adaptkit.demo.page import Page

PASSWORD_VARIABLE = "ADAPTKIT_DEMO_PASSWORD"
SHORTEST_PASSWORD = 10
QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "GRADIO_SHARE": "False",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True)
class ListenAddress:
    """Where the page listens and what opens it; a password of None means no login."""

    host: str
    port: int
    password: str | None
    made_password: bool = False
    """Nobody chose the password, so it must be shown."""
    share: bool = False
    """Also reachable through Gradio's public relay."""

    @property
    def url(self) -> str:
        return http_url(self.host, self.port)


def listen_address(host: str, port: int, password_file: Path | None, share: bool) -> ListenAddress:
    """Decide whether a login is needed, and its password: from the file, the environment, or made.

    On loopback there is none unless a password is given; everywhere else there always is one.
    Raises: ConfigError for a password that is too short or a file that cannot be read.
    """
    password = _chosen_password(password_file)
    if password is not None:
        return ListenAddress(host, port, password, share=share)
    if is_loopback(host) and not share:
        return ListenAddress(host, port, None)
    return ListenAddress(host, port, secrets.token_urlsafe(12), made_password=True, share=share)


def _chosen_password(file: Path | None) -> str | None:
    if file is None:
        where, text = f"${PASSWORD_VARIABLE}", os.environ.get(PASSWORD_VARIABLE, "")
        if not text.strip():
            return None
    else:
        where, text = str(file), _read_password(file)
    password = text.strip()
    if len(password) < SHORTEST_PASSWORD:
        what = f"a password must have at least {SHORTEST_PASSWORD} characters"
        raise ConfigError(what, where=where, fix="choose a longer one")
    return password


def _read_password(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"no password can be read: {error}"
        raise ConfigError(what, where=str(file), fix="write it in one line") from None


def make_page(
    server: Server,
    study: Study,
    passages: Passages,
    address: ListenAddress,
    card: str = "",
    votes: Path | None = None,
) -> Page:
    """Make the page, ready to be served; Gradio is loaded here, told to ask nothing of the network.

    Args:
        votes: a file to keep votes on blind answers in.
    Raises: DataError for one that holds something else, or cannot be written.
    """
    if votes is not None:
        there = open_votes(votes)
        StatusLine().note("demo", f"votes of visitors who agree to it are kept in {votes} ({there} there)")
    os.environ.update(QUIET)
    from adaptkit.demo.page import Page  # late: Gradio reads the variables above when it is imported

    return Page(server, study, passages, card, signed_in=address.password is not None, votes=votes)


def application(page: Page, address: ListenAddress) -> Gate:
    """Build the ASGI application: the login, then Gradio with what it could leak or load switched off."""
    import fastapi  # late: both belong to Gradio, which is optional
    import gradio as gr

    blocks = page.build()
    blocks.queue(default_concurrency_limit=32, max_size=64, api_open=False)
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None, docs_url=None, redoc_url=None),
        blocks,
        path="",
        server_name=address.host,
        server_port=address.port,
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
        head=HEAD,
    )
    bounds = {"functions": blocks.fns, "pending": partial(_pending, blocks), "most_bytes": MAX_BODY_BYTES}
    app.add_middleware(VisitorRequests, **bounds)
    hosts: frozenset[str] = frozenset()
    if address.password is None:
        hosts = LOOPBACK_NAMES | {address.host}
    return Gate(app, address.password, hosts)


def _pending(blocks: gr.Blocks, visitor: str) -> int:
    """Count the requests of a visitor that wait in Gradio's queue or run."""
    queue = blocks._queue
    waiting = [event for each in queue.event_queue_per_concurrency_id.values() for event in each.queue]
    running = [event for job in queue.active_jobs for event in job or ()]
    return sum(event.request.scope.get(VISITOR) == visitor for event in [*waiting, *running])


def find_server(url: str, key_file: Path | None = None) -> Server:
    """Find the server at `url` with its key: from the file or the environment.

    This machine's own key goes to loopback only.
    Raises: ConfigError for an address that is none, or a key that cannot be read.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        where = f"--server {url[:80]}"
        raise ConfigError("not an address of a server", where=where, fix="give http://HOST:PORT")
    variables = (api_keys.KEY_VARIABLE, api_keys.FILE_VARIABLE)
    chosen_by_user = key_file is not None or any(os.environ.get(name) for name in variables)
    may_have_key = chosen_by_user or is_loopback(parts.hostname)
    base = url.rstrip("/").removesuffix("/v1")
    if not may_have_key:
        return Server(base)
    return Server(base, api_keys.load(key_file).values[0])


def announce(address: ListenAddress, url: str) -> None:
    """Say on standard error where the page is and how it opens.

    A made password goes to a terminal, or into a file that only its owner may read; never into a log.
    """
    status = StatusLine()
    status.note("demo", f"ready: {url}")
    if address.password is None:
        status.note("demo", "opens without a login, on this machine only")
    elif not address.made_password:
        status.note("demo", "opens with your password")
    elif sys.stderr.isatty():
        status.note("demo", f"password: {address.password}")
    else:
        path = api_keys.state_folder() / f"demo-password-{address.port}"
        path.unlink(missing_ok=True)
        api_keys.write_secret(path, address.password)
        status.note("demo", f"the password is in {path}")
    if not is_loopback(address.host):
        warning = f"listens on {address.host} without encryption: put a TLS proxy in front of it"
        status.note("demo", warning)


def run(page: Page, address: ListenAddress) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises: ConfigError for a port that is taken, ServerError where a public address was asked for and cannot
        be had.
    """
    import uvicorn  # late: it comes with Gradio, which is optional

    class AnnouncingServer(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            url = _public_url(address) if address.share else address.url
            announce(address, url)

    listening = listen(address.host, address.port)
    config = uvicorn.Config(
        application(page, address),
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=3,
    )
    # uvicorn hands a signal on to the handler that was there before; the default one would end us with its
    # number.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    AnnouncingServer(config).run([listening])


def _public_url(address: ListenAddress) -> str:
    """Open a public address through Gradio's own relay, which sees what passes."""
    from gradio.networking import setup_tunnel  # late: optional

    try:
        return setup_tunnel("127.0.0.1", address.port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # whatever the relay's client raises: offline, blocked, refused
        what = f"there is no public address to be had: {type(error).__name__}"
        fix = "leave --share-publicly out, and put a TLS proxy in front"
        raise ServerError(what, where="gradio's relay", fix=fix) from None
