"""Order processes from one that has imported vLLM already; see `preload` for its side.

preloaded = Preloaded.of(launches)            # None where it would not help
child = await Child.spawn(command, environment, log, preloaded)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from adaptkit.serve import api_keys
from adaptkit.serve.engine.command import FEW_CORES, Launch
from adaptkit.serve.engine.preload import MAX_ORDER_BYTES

OWN = frozenset({api_keys.KEY_VARIABLE, "VLLM_API_KEY"})
"""Variables that each process may have for itself: nothing reads them while vLLM is imported."""
END_S = 10.0
ENTRYPOINT = ("-m", "adaptkit.serve.engine.entrypoint")
COMMAND = (sys.executable, "-m", "adaptkit.serve.engine.preload")


class ForkedProcess:
    """A process that was forked elsewhere, with as much of asyncio's own class as `Child` reads."""

    def __init__(self, process_id: int):
        self.pid = process_id
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        """Note how it ended."""
        self.returncode = code
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        return self.returncode or 0

    def terminate(self) -> None:
        """Ask it to end.

        Raises: ProcessLookupError if it is gone.
        """
        os.kill(self.pid, signal.SIGTERM)


class Preloaded:
    """The process that has imported vLLM; started with the first order.

    Args:
        environment: of the process; an order with another one is not for it.
        command: what starts it; the number of its socket follows.
    """

    def __init__(self, environment: Mapping[str, str], command: Sequence[str] = COMMAND):
        self._environment, self._command = dict(environment), list(command)
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._forked: dict[int, ForkedProcess] = {}
        self._ordered: list[asyncio.Future[ForkedProcess]] = []
        self._gone = False

    @classmethod
    def of(cls, launches: Sequence[Launch]) -> Preloaded | None:
        """Make one for several models that vLLM computes in its first process on a CPU; None for others."""
        hardware = launches[0].hardware
        if len(launches) < 2 or hardware.gpus or hardware.cores > FEW_CORES:
            return None
        environment = launches[0].child_environment("")
        return cls({name: value for name, value in environment.items() if name not in OWN})

    def fits(self, command: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Whether a command can be forked: vLLM's own, with the variables that vLLM was imported with."""
        shared = {name: value for name, value in environment.items() if name not in OWN}
        return not self._gone and tuple(command[1:3]) == ENTRYPOINT and shared == self._environment

    async def fork(
        self, arguments: Sequence[str], environment: Mapping[str, str], output: int, lifeline: int
    ) -> ForkedProcess:
        """Order a process and wait until it is there.

        Raises: OSError if the process that forks has ended.
        """
        control = self._started()
        order = json.dumps({"arguments": list(arguments), "environment": dict(environment)}).encode()
        forked = asyncio.get_running_loop().create_future()
        socket.send_fds(control, [order], [output, lifeline])
        self._ordered.append(forked)
        process: ForkedProcess = await forked
        return process

    def close(self) -> None:
        """End the process that forks, once the loop and all forks have ended."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _started(self) -> socket.socket:
        if self._control is None:
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [*self._command, str(theirs.fileno())],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=(theirs.fileno(),),
                )
            self._control.setblocking(False)
            asyncio.get_running_loop().add_reader(self._control, self._read)
        return self._control

    def _read(self) -> None:
        """Read one answer."""
        assert self._control is not None
        try:
            message = self._control.recv(MAX_ORDER_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if not message:
            self._lost()
            return
        answer = json.loads(message)
        if "pid" in answer:
            process = self._forked[answer["pid"]] = ForkedProcess(answer["pid"])
            ordered = self._ordered.pop(0)
            if not ordered.done():
                ordered.set_result(process)
        else:
            self._forked.pop(answer["ended"]).end(answer["code"])

    def _lost(self) -> None:
        """End what waits: whatever was forked cannot be watched any more, and is killed by its group."""
        self._gone = True
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control)
            self._control.close()
        for ordered in self._ordered:
            if not ordered.done():
                ordered.set_exception(OSError("the process that had imported vLLM has ended"))
        for process in self._forked.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.end(-signal.SIGKILL)
