"""One vLLM process under supervision: started, asked for a real answer, watched, restarted, ended with all
its children.

vLLM 0.32 exits 0 when its engine dies, answers /health while the engine hangs, and leaves engine processes
behind when its HTTP process is killed. So every exit that was not asked for is a failure, a suspicion is
settled by a real answer, and each child leads a process group of its own that ends with it; a pipe whose
other end only this process holds ends the group if this process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

import httpx

from adaptkit.client.openai import Client
from adaptkit.errors import AdaptkitError, ServerError
from adaptkit.export.parity.http_check import check_server
from adaptkit.export.source import Source
from adaptkit.serve import api_keys
from adaptkit.serve.engine import failures, readiness, tensor_check
from adaptkit.serve.engine.entrypoint import LIFELINE
from adaptkit.serve.status import Teller

State = Literal["starting", "ready", "restarting", "failed", "stopped"]
POLL_S = 0.5
HEALTH_EVERY_S = 2.0
HEALTH_S = 10.0  # a busy server may take its time
MISSES = 3
PROBE_S = 60.0  # a suspected engine must give one answer within
START_S = 1800.0  # large models load for minutes
GRACE_S = 15.0
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
STABLE_S = 60.0  # after so long in service a failure counts as the first again


class Launchable(Protocol):
    """What an engine must know of a child: see `launch.Launch`."""

    source: Source

    @property
    def name(self) -> str: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def exact(self) -> bool: ...
    def command(self, port: int) -> list[str]: ...
    def child_environment(self, key: str) -> dict[str, str]: ...


class Engine:
    """A child process that serves one model and its adapters.

    Args:
        launch: the command.
        log: where the child's output goes; readable by its owner only.
        teller: told about phases, failures and restarts.
        check: asks for one real answer of each name, raises ServerError if there is none.
        inspect: looks at the folder while the child starts for the first time, raises ModelError.
    """

    def __init__(
        self,
        launch: Launchable,
        log: Path,
        teller: Teller,
        check: Callable[[Client, Source, str], None] = readiness.answer,
        inspect: Callable[[Source], Awaitable[None]] = tensor_check.check,
    ):
        self.launch, self.log, self.teller, self.check, self.inspect = launch, log, teller, check, inspect
        self.state: State = "starting"
        self.key, self.port = api_keys.fresh(), 0
        self.load_s = 0.0
        self.restarts = 0
        self.max_len: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._lifeline, self._log_start = -1, 0
        self._suspected = asyncio.Event()
        self._stopping = asyncio.Event()
        self._back_at = 0.0
        self._http = httpx.AsyncClient(trust_env=False)

    @property
    def name(self) -> str:
        return self.launch.name

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        """Of the running child; 0 while there is none."""
        return self._process.pid if self._process is not None else 0

    @property
    def retry_after(self) -> int:
        """Seconds after which a caller may try again: what is left of the pause and the last load time, at
        least one."""
        return max(1, round(self._back_at - time.monotonic()))

    def suspect(self) -> None:
        """A request failed in a way that only a dead or hanging engine explains: look at once."""
        self._suspected.set()

    async def run(self) -> None:
        """Start, watch and restart until `stop`.

        Raises: AdaptkitError if the very first start fails: what is wrong then is not mended by trying again.
        """
        failed = 0
        async with self._http:
            while not self._stopping.is_set():
                why, served = await self._serve_once()
                if not self._stopping.is_set():
                    failed = 1 if served > STABLE_S else failed + 1
                    await self._pause(why, failed)
        self.state = "stopped"

    async def _serve_once(self) -> tuple[str, float]:
        """One life of the child: why it ended, and the seconds that it was in service.

        Raises: AdaptkitError if it is the first and never was.
        """
        began = math.inf
        try:
            await self._start()
            began = time.monotonic()
            why = await self._watch()
        except AdaptkitError as error:
            if not self.load_s and not self._stopping.is_set():
                self.state = "failed"
                raise
            why = error.what
        finally:
            await self._end()
        return why, max(0.0, time.monotonic() - began)

    async def stop(self, grace_s: float = GRACE_S) -> None:
        """Ask the child to end, wait, then end its whole group."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace_s)
        await self._end()

    async def _start(self) -> None:
        """Raises: ServerError, or ModelError from the first inspection of the folder."""
        began = time.monotonic()
        self._back_at = began + (self.load_s or 30.0)
        await self._spawn()
        inspected = asyncio.create_task(self.inspect(self.launch.source)) if not self.load_s else None
        try:
            await self._wait_ready(began + START_S, inspected)
            if inspected:
                await inspected
        finally:
            if inspected:
                inspected.cancel()
        self.load_s = time.monotonic() - began
        self.state = "ready"
        self._suspected.clear()
        self.teller.note(self.name, f"ready after {self.load_s:.1f} s")

    async def _spawn(self) -> None:
        self.port = free_port()
        near, self._lifeline = os.pipe()
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._log_start = os.fstat(handle).st_size
        environment = {**self.launch.child_environment(self.key), LIFELINE: str(near)}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self.launch.command(self.port),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=handle,
                stderr=handle,
                start_new_session=True,
                pass_fds=(near,),
            )
        finally:
            os.close(near)
            os.close(handle)

    async def _wait_ready(self, until: float, inspected: asyncio.Task[None] | None) -> None:
        told = ""
        assert self._process is not None
        while True:
            if self._process.returncode is not None or self._stopping.is_set():
                raise self._failure(self._process.returncode)
            if inspected and inspected.done():
                inspected.result()
            if (phase := failures.phase(failures.tail(self.log, self._log_start))) != told:
                told = phase
                self.teller.phase(self.name, phase)
            if await self._healthy():
                await self._answers(until - time.monotonic())
                return
            if time.monotonic() > until:
                raise self._failure(None)
            await asyncio.sleep(POLL_S)

    async def _answers(self, timeout_s: float) -> None:
        """Raises: ServerError if the child gives no real answer in time."""

        def ask() -> None:
            with Client(self.url, self.key) as client:
                self.max_len = next(
                    (model.max_len for model in client.models() if model.name == self.name), None
                )
                for name in self.launch.names:
                    self.check(client, self.launch.source, name)
                if self.launch.source.exported:
                    room = (
                        (self.max_len or 0) if len(self.launch.names) == 1 else 0
                    )  # see front.PROMPT_LOGPROBS
                    check_server(client, self.launch.source, self.name, exact=self.launch.exact, room=room)

        asked = asyncio.create_task(asyncio.to_thread(ask))
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        done, _ = await asyncio.wait(
            {asked, ended}, timeout=max(1.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
        )
        ended.cancel()
        if asked in done:
            try:
                asked.result()
            except ServerError as error:
                raise await self._cause(error) from None
            return
        asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise self._failure(self._process.returncode)

    async def _cause(self, error: ServerError) -> ServerError:
        """The child's own reason, if the request that failed was its last."""
        assert self._process is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), 2 * HEALTH_EVERY_S)
        return error if self._process.returncode is None else self._failure(self._process.returncode)

    async def _watch(self) -> str:
        """Return the reason as soon as the child is of no more use."""
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        misses = 0
        try:
            while True:
                suspicion = asyncio.create_task(self._suspected.wait())
                await asyncio.wait(
                    {ended, suspicion}, timeout=HEALTH_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                suspicion.cancel()
                if ended.done():
                    return self._failure(ended.result()).what
                misses = 0 if await self._healthy(HEALTH_S) else misses + 1
                if misses >= MISSES:
                    return f"no answer from /health in {MISSES} tries"
                if self._suspected.is_set() and not misses:
                    self._suspected.clear()
                    try:
                        await self._answers(PROBE_S)
                    except ServerError as error:
                        return error.what
        finally:
            ended.cancel()

    async def _pause(self, why: str, failed: int) -> None:
        self.state = "restarting"
        self.restarts += 1
        wait = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (failed - 1))
        self._back_at = time.monotonic() + wait + self.load_s
        self.teller.note(self.name, f"{why}; restart {self.restarts} in {wait:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)

    async def _healthy(self, timeout_s: float = 2.0) -> bool:
        try:
            return (await self._http.get(f"{self.url}/health", timeout=timeout_s)).status_code == 200
        except httpx.HTTPError:
            return False

    def _failure(self, code: int | None) -> ServerError:
        log = failures.tail(self.log, self._log_start)
        return failures.translate(log, code, model=self.name, path=self.log)

    async def _end(self) -> None:
        """Kill what is left of the group, engine processes that lost their parent included."""
        process, self._process = self._process, None
        if process is not None:
            if self.state == "ready":
                self.state = "restarting"
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
