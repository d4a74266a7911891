"""A whole adaptkit server over stand-ins of vLLM, in a thread or as a process of its own.

python -m fake_serving FOLDER             # prints its port, then serves: for signals and kills
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_engine
import pytest

from adaptkit.client.identity import ModelIdentity
from adaptkit.client.openai import Client
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import ServedKind, Source
from adaptkit.serve.address import listen
from adaptkit.serve.api_keys import Keys
from adaptkit.serve.engine import supervisor
from adaptkit.serve.engine.adapter_folder import AdapterFolder
from adaptkit.serve.engine.command import Launch
from adaptkit.serve.engine.lora_flags import Adapter
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.search_answers import SearchAnswers
from adaptkit.serve.limits import Limits
from adaptkit.serve.server import Server
from adaptkit.serve.status import StatusLine

KEY = "k" * 20
PATIENCE_S = 60.0


@dataclass(frozen=True)
class FakeLaunch(Launch):
    """A `Launch` that starts this file instead of vLLM."""

    mode: str = "good"

    def command(self, port: int, host: str = "127.0.0.1") -> list[str]:
        return [sys.executable, fake_engine.__file__, str(port), self.name, self.mode]

    def child_environment(self, key: str) -> dict[str, str]:
        return {**os.environ, "ADAPTKIT_API_KEY": key}


def fake_launch(
    folder: Path,
    mode: str = "good",
    name: str = "fake",
    kind: ServedKind = "generate",
    adapters: tuple[str, ...] = (),
    **fields: Any,
) -> FakeLaunch:
    """A launch of a stand-in; `fields` are those of its `Source`."""
    riding = tuple(Adapter(each, folder, 4, ModelIdentity(role="finetuned")) for each in adapters)
    return FakeLaunch(Source(folder, kind, name, "", **fields), Hardware(), riding, mode=mode)


async def no_inspection(source: object) -> None: ...


def fake_server(
    launches: list[FakeLaunch],
    folder: Path,
    *,
    index: Path | None = None,
    adapters: AdapterFolder | None = None,
    **limits: int,
) -> Server:
    """A whole server over fakes on a free port, not running yet."""
    engines = [
        Engine(launch, folder / f"{launch.label}.log", StatusLine(), inspect=no_inspection)
        for launch in launches
    ]
    return Server(
        engines,
        listen("127.0.0.1", 0),
        Keys((KEY,), "test"),
        Limits(**limits),
        at_once=len(launches) if adapters else 1,
        search=None if index is None else SearchAnswers(index, engines).answer,
        adapters=adapters,
    )


def eventually(holds: Callable[[], object], what: str) -> None:
    """Wait until something holds; the machine may be busy."""
    until = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def running(
    launches: list[FakeLaunch],
    folder: Path,
    *,
    index: Path | None = None,
    adapters: AdapterFolder | None = None,
    **limits: int,
) -> Iterator[tuple[Client, Server]]:
    """A whole server in a thread, impatient, ready."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "BACKOFF_S", 0.2)
        patch.setattr(supervisor, "POLL_S", 0.05)
        patch.setattr(supervisor, "HEALTH_EVERY_S", 0.2)
        patch.setattr(signal, "signal", lambda *_: None)  # threads may not
        server = fake_server(launches, folder, index=index, adapters=adapters, **limits)
        thread = threading.Thread(target=server.run)
        thread.start()
        url = f"http://127.0.0.1:{server.listening.getsockname()[1]}"
        try:
            with Client(url, KEY) as client:
                eventually(client.healthy, "ready")
                yield client, server
        finally:
            server.uvicorn.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()
            assert all(engine.state in ("stopped", "failed") for engine in server.engines)


def main() -> None:
    """Serve one stand-in until a signal comes."""
    folder = Path(sys.argv[1])
    server = fake_server([fake_launch(folder)], folder)
    print(server.listening.getsockname()[1], flush=True)
    server.run()


if __name__ == "__main__":
    main()
