"""Supervise one engine's process: start it, ask for a real answer, watch it, restart it, end it.

vLLM 0.32 exits 0 when its engine dies, and answers /health while the engine hangs. So every exit that was not
asked for is a failure, and a suspicion is settled by a real answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal

from adaptkit.client.openai import Client
from adaptkit.client.relay import Relay
from adaptkit.doctor import processor
from adaptkit.errors import AdaptkitError, ServerError
from adaptkit.export.parity.http_check import check_server
from adaptkit.export.source import Source
from adaptkit.serve import api_keys
from adaptkit.serve.address import free_port
from adaptkit.serve.engine import failures, tensor_check
from adaptkit.serve.engine.child import Child
from adaptkit.serve.engine.command import Launch, avoids_bfloat16
from adaptkit.serve.engine.expected_answers import Expected
from adaptkit.serve.engine.failures import IllegalInstruction
from adaptkit.serve.engine.first_answers import check_answer, compare_with_transformers
from adaptkit.serve.engine.preloaded import Preloaded
from adaptkit.serve.engine.residents import Residents
from adaptkit.serve.status import StatusLine

State = Literal["starting", "ready", "restarting", "failed", "stopped"]
Inspection = Callable[[Source], Coroutine[Any, Any, Expected | None]]
POLL_S = 0.5
HEALTH_EVERY_S = 2.0
START_HEALTH_S = 2.0
HEALTH_S = 10.0  # a busy server may take its time
MISSES = 3
PROBE_S = 60.0  # a suspected engine must give one answer within
START_S = 1800.0  # large models load for minutes
FIRST_LOAD_S = 30.0  # what a caller is told to wait while nothing was measured
GRACE_S = 15.0
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 60.0
STABLE_S = 60.0  # after so long in service a failure counts as the first again
FAULT = "vLLM died of an illegal instruction (SIGILL) in bfloat16"


class Engine:
    """A child process that serves one model and its adapters.

    Attributes:
        under_way: sequences whose answers have not begun.
        answering: requests whose answers are not complete, streams among them.

    Args:
        launch: the command.
        log: where the child's output goes; readable by its owner only.
        status: hears about phases, failures and restarts.
        check: asks for one real answer of each name, raises ServerError if there is none.
        inspect: looks at the folder while the child starts for the first time; says what transformers
            answers, raises ModelError.
        preloaded: a process that has vLLM imported, shared by the engines of a server.
    """

    def __init__(
        self,
        launch: Launch,
        log: Path,
        status: StatusLine,
        check: Callable[[Client, Source, str], None] = check_answer,
        inspect: Inspection = tensor_check.check,
        *,
        preloaded: Preloaded | None = None,
    ):
        self.launch, self.log, self.status, self.check, self.inspect = launch, log, status, check, inspect
        self.preloaded = preloaded
        self.under_way = self.answering = 0
        self.state: State = "starting"
        self.key, self.port = api_keys.make_key(), 0
        self.load_s = 0.0
        self.restarts = 0
        self.max_len: int | None = None
        self._expected = Expected()
        self._child: Child | None = None
        self._log_start = 0
        self._suspected = asyncio.Event()
        self._stopping = asyncio.Event()
        self._back_at = 0.0
        self._relay = Relay()
        self.residents = Residents(launch.room.slots if launch.room else 0, self, self._relay)

    @property
    def name(self) -> str:
        return self.launch.name

    @property
    def label(self) -> str:
        return self.launch.label

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def process_id(self) -> int:
        """The running child's process id; 0 while there is none."""
        if self._child is None:
            return 0
        return self._child.process.pid

    @property
    def retry_after(self) -> int:
        """Seconds after which a caller may try again: the rest of the pause and the last load, at least 1."""
        return max(1, round(self._back_at - time.monotonic()))

    @property
    def suspected(self) -> bool:
        """Whether a request failed as only a dead or hanging engine explains, and nobody has looked yet."""
        return self._suspected.is_set()

    def suspect(self) -> None:
        """Look at the engine at once: a request failed as only a dead or hanging engine explains."""
        self._suspected.set()

    async def run(self) -> None:
        """Start, watch and restart until `stop`.

        Raises: AdaptkitError if the very first start fails: trying again does not mend what is wrong then.
        """
        failures_in_a_row = 0
        async with self._relay:
            while not self._stopping.is_set():
                why, served_s = await self._serve_once()
                if not self._stopping.is_set():
                    if served_s > STABLE_S:
                        failures_in_a_row = 0
                    failures_in_a_row += 1
                    await self._pause(why, failures_in_a_row)
        self.state = "stopped"

    async def _serve_once(self) -> tuple[str, float]:
        """Live through one child: why it ended, and the seconds that it was in service.

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
        if self._child is not None:
            await self._child.terminate(grace_s)
        await self._end()

    async def _start(self) -> None:
        """Start the child; once more without bfloat16 if the processor does not allow that.

        Raises: ServerError, or ModelError from the first inspection of the folder.
        """
        try:
            await self._start_once()
        except IllegalInstruction as error:
            if not self._avoid_bfloat16(error):
                raise
            await self._end()
            await self._start_once()

    def _avoid_bfloat16(self, error: ServerError) -> bool:
        """Plan the next start without bfloat16 if an illegal instruction ended it; say so and remember it."""
        slower = None
        if isinstance(error, IllegalInstruction):
            slower = self.launch.without_bfloat16(FAULT)
        if slower is None:
            return False
        self.launch = slower
        processor.remember_fault(FAULT)
        why = avoids_bfloat16(slower.source, slower.hardware)
        self.status.note(self.label, f"starts again, {why}; log: {self.log}")
        return True

    async def _start_once(self) -> None:
        """Start the child and wait until it has given real answers; raises as `_start`."""
        began = time.monotonic()
        self._back_at = began + (self.load_s or FIRST_LOAD_S)
        child = await self._spawn()
        inspection = None
        if not self.load_s:
            inspection = asyncio.create_task(self.inspect(self.launch.source))
        try:
            await self._wait_ready(child, began + START_S, inspection)
        finally:
            if inspection:
                inspection.cancel()
        self.load_s = time.monotonic() - began
        self.state = "ready"
        self._suspected.clear()
        self.status.note(self.label, f"ready after {self.load_s:.1f} s{self._expected.in_words()}")

    async def _spawn(self) -> Child:
        self.port = free_port()
        environment = self.launch.child_environment(self.key)
        self._child = await Child.spawn(self.launch.command(self.port), environment, self.log, self.preloaded)
        self._log_start = self._child.log_start
        return self._child

    async def _wait_ready(
        self, child: Child, until: float, inspection: asyncio.Task[Expected | None] | None
    ) -> None:
        last_phase = ""
        while True:
            if child.exit_code is not None or self._stopping.is_set():
                raise self._failure(child.exit_code)
            if inspection and inspection.done():
                inspection.result()
            phase = failures.phase(failures.tail(self.log, self._log_start), self.launch.program)
            if phase != last_phase:
                last_phase = phase
                self.status.phase(self.label, phase)
            if await self._relay.healthy(self.url, START_HEALTH_S):
                if inspection:
                    self._expected = await inspection or self._expected
                await self._check_answers(child, until - time.monotonic())
                return
            if time.monotonic() > until:
                raise self._failure(None)
            await asyncio.sleep(POLL_S)

    def _ask(self) -> None:
        """Ask for one real answer of each name; an export's answers must be those that were measured.

        Raises: ServerError.
        """
        source = self.launch.source
        with Client(self.url, self.key) as client:
            lengths = {model.name: model.max_len for model in client.models()}
            self.max_len = lengths.get(self.name)
            for name in self.launch.names:
                self.check(client, source, name)
            self._expected = compare_with_transformers(client, self.launch, self._expected)
            if source.exported:
                room = 0
                if not self.launch.with_lora:  # see router.PROMPT_LOGPROBS
                    room = self.max_len or 0
                check_server(client, source, self.name, exact=self.launch.exact, room=room)

    async def _check_answers(self, child: Child, timeout_s: float) -> None:
        """Ask for real answers while watching that the child lives.

        Raises: ServerError if there is none in time.
        """
        asking = asyncio.create_task(asyncio.to_thread(self._ask))
        ended = asyncio.create_task(child.wait())
        done, _ = await asyncio.wait(
            {asking, ended}, timeout=max(1.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
        )
        ended.cancel()
        if asking in done:
            try:
                asking.result()
            except ServerError as error:
                raise await self._cause(child, error) from None
            return
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        raise self._failure(child.exit_code)

    async def _cause(self, child: Child, error: ServerError) -> ServerError:
        """Find the child's own reason, if the request that failed was its last."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), 2 * HEALTH_EVERY_S)
        if child.exit_code is None and not failures.names_crash(failures.tail(self.log, self._log_start)):
            return error
        return self._failure(child.exit_code)

    async def _watch(self) -> str:
        """Watch the child until it is of no more use, and return the reason."""
        child = self._child
        if child is None:
            return "stopped as soon as it was ready"
        ended = asyncio.create_task(child.wait())
        misses = 0
        try:
            while True:
                suspicion = asyncio.create_task(self._suspected.wait())
                await asyncio.wait(
                    {ended, suspicion}, timeout=HEALTH_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                )
                suspicion.cancel()
                if ended.done():
                    failure = self._failure(ended.result())
                    self._avoid_bfloat16(failure)
                    return failure.what
                misses += 1
                if await self._relay.healthy(self.url, HEALTH_S):
                    misses = 0
                if misses >= MISSES:
                    return f"no answer from /health in {MISSES} tries"
                if self._suspected.is_set() and not misses:
                    self._suspected.clear()
                    try:
                        await self._check_answers(child, PROBE_S)
                    except ServerError as error:
                        return error.what
        finally:
            ended.cancel()

    async def _pause(self, why: str, failures_in_a_row: int) -> None:
        self.state = "restarting"
        self.restarts += 1
        wait = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** (failures_in_a_row - 1))
        self._back_at = time.monotonic() + wait + self.load_s
        self.status.note(self.label, f"{why}; restart {self.restarts} in {wait:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)

    def _failure(self, code: int | None) -> ServerError:
        log = failures.tail(self.log, self._log_start)
        program = self.launch.program
        return failures.translate(log, code, model=self.name, path=self.log, program=program)

    async def _end(self) -> None:
        child, self._child = self._child, None
        self.residents.forget()
        if child is not None:
            if self.state == "ready":
                self.state = "restarting"
            await child.kill()
