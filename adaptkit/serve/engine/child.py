"""One child process in a group of its own that ends as a whole, also when this process is killed.

vLLM 0.32 leaves engine processes behind when its HTTP process is killed, so the child leads a process group
that is killed together. A pipe whose other end only this process holds ends the group if this process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from adaptkit.disk import match_folder
from adaptkit.serve.engine.entrypoint import LIFELINE
from adaptkit.serve.engine.preloaded import ForkedProcess, Preloaded


class Child:
    """A running child. Made by `spawn`.

    Attributes:
        process: the leader of the group.
        log_start: where in the log this child's output begins.
    """

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess, lifeline: int, log_start: int):
        self.process, self.log_start = process, log_start
        self._lifeline = lifeline

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        preloaded: Preloaded | None = None,
    ) -> Child:
        """Start `command`; its output is appended to `log`, which may be read by those who may its folder.

        Args:
            preloaded: a process that has vLLM imported, from which it is forked where that does the same.
        """
        read_end, lifeline = os.pipe()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        match_folder(log)
        log_start = os.fstat(output).st_size
        try:
            process = await _start(command, environment, output, read_end, preloaded)
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(read_end)
            os.close(output)
        return cls(process, lifeline, log_start)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.process.returncode

    async def wait(self) -> int:
        return await self.process.wait()

    async def terminate(self, grace_s: float) -> None:
        """Ask the child to end, and wait at most `grace_s` seconds."""
        if self.exit_code is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace_s)

    async def kill(self) -> None:
        """Kill what is left of the group, engine processes that lost their parent included."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.wait()
        os.close(self._lifeline)


async def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    output: int,
    read_end: int,
    preloaded: Preloaded | None,
) -> asyncio.subprocess.Process | ForkedProcess:
    """Fork from the preloaded process; start anew where there is none, or it does not fit or has ended."""
    if preloaded is not None and preloaded.fits(command, environment):
        with contextlib.suppress(OSError):
            return await preloaded.fork(command[3:], environment, output, read_end)
    return await asyncio.create_subprocess_exec(
        *command,
        env={**environment, LIFELINE: str(read_end)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=(read_end,),
    )
