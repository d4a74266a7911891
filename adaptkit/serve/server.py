"""Run the whole server in one event loop: guard, router and engines, from the first bind to the last kill.

The port opens at once and says 503 while models load. SIGTERM and SIGINT close it, let requests under way
end, then stop the children; a second signal waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette

from adaptkit.errors import AdaptkitError
from adaptkit.export.hardware import Hardware
from adaptkit.serve.adapter_watch import AdapterWatch
from adaptkit.serve.api_keys import Keys
from adaptkit.serve.engine.adapter_folder import AdapterFolder
from adaptkit.serve.engine.supervisor import Engine
from adaptkit.serve.gateway.counters import Metrics
from adaptkit.serve.gateway.guard import Guard
from adaptkit.serve.gateway.router import Router, Search
from adaptkit.serve.gateway.text_prompts import OWN_FIELDS
from adaptkit.serve.limits import Limits

DRAIN_S = 30
MEMORY_BYTES_PER_HEADER = 16 * 1024
STATE_EVERY_S = 0.1


def load_at_once(hardware: Hardware) -> int:
    """How many engines load at the same time: one to a core; on a GPU one, whose free memory vLLM measures.

    That all of them fit into memory was checked before (`preflight.check_memory`).
    """
    if hardware.gpus:
        return 1
    return max(1, int(hardware.cores))


class Server:
    """Serves engines behind one socket.

    Args:
        engines: not started yet.
        listening: a bound socket.
        keys, limits: the guard's.
        at_once: engines that load at the same time; the others wait.
        search: what answers /v1/search; None where no index is served.
        adapters: a folder whose adapters come and go while the server runs.
        on_ready: called once, when every engine has answered, with the names of what is served.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        listening: socket.socket,
        keys: Keys,
        limits: Limits,
        *,
        at_once: int = 1,
        search: Search | None = None,
        adapters: AdapterFolder | None = None,
        on_ready: Callable[[list[str]], None] = lambda names: None,
    ):
        self.engines, self.listening, self.on_ready = list(engines), listening, on_ready
        self.failed: Exception | None = None
        self._turn = asyncio.Semaphore(at_once)
        metrics = Metrics(CollectorRegistry())
        self.router = Router(self.engines, metrics, search)
        guarded = Guard(self.router.application(self._lifespan), keys, limits, metrics, OWN_FIELDS)
        self.watch: AdapterWatch | None = None
        if adapters is not None:
            self.watch = AdapterWatch(adapters, self.router.served, self.engines[0].status)
        config = uvicorn.Config(
            guarded,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN_S,
            h11_max_incomplete_event_size=MEMORY_BYTES_PER_HEADER,
        )
        self.uvicorn = uvicorn.Server(config)

    def run(self) -> None:
        """Serve until a signal comes.

        Raises: AdaptkitError if a model does not start.
        """
        # uvicorn hands a signal on to the handler that was there before; the default one would end us with
        # its number.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        # uvloop where it is installed, as vLLM's packages bring it: half the time for each request.
        with asyncio.Runner(loop_factory=self.uvicorn.config.get_loop_factory()) as runner:
            runner.run(self.uvicorn.serve(sockets=[self.listening]))
        if self.failed:
            raise self.failed

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._supervise(engine)) for engine in self.engines]
        waiting = asyncio.create_task(self._announce())
        try:
            yield
        finally:
            waiting.cancel()
            if self.watch is not None:
                await self.watch.close()
            await asyncio.gather(*(engine.stop() for engine in self.engines))
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.router.relay.close()

    async def _supervise(self, engine: Engine) -> None:
        """Load the engine when its turn comes; if it never starts, end the server, or leave it out."""
        try:
            async with self._turn:
                running = asyncio.create_task(engine.run())
                while engine.state == "starting" and not running.done():
                    await asyncio.sleep(STATE_EVERY_S)
            await running
        except Exception as error:
            if engine.launch.optional and isinstance(error, AdaptkitError):
                engine.status.note(engine.label, f"did not start; the others are served: {error.what}")
                self.router.leave_out(engine)
                return
            if not isinstance(error, AdaptkitError):
                logging.getLogger("adaptkit.serve").exception("the supervisor of %s failed", engine.name)
            self.failed = self.failed or error
            self.uvicorn.should_exit = True

    async def _announce(self) -> None:
        """Say when everything is served; from then on the adapters are watched."""
        while any(engine.state != "ready" for engine in self.router.served.engines):
            await asyncio.sleep(STATE_EVERY_S)
        if self.watch is not None:
            await self.watch.look()
        self.on_ready(self.router.served.listed())
        if self.watch is not None:
            await self.watch.run()
