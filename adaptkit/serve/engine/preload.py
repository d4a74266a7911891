"""Import vLLM once and fork each model's process from there: the import is most of a small model's start.

    python -m adaptkit.serve.engine.preload FD      # FD: a socket to the process that orders, see `preloaded`

Each message on the socket is one order, a JSON object with `arguments` and `environment`, and comes with two
descriptors: where output goes, and the lifeline. The answers are {"pid": N} and, when a process ends,
{"ended": N, "code": C}. All of it ends when the other side of the socket closes.

What was imported is shared by the forks until one of them writes to it.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from adaptkit.serve.engine import entrypoint

MAX_ORDER_BYTES = 2**18
MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.worker.cpu_model_runner",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.model_executor.model_loader",
    "vllm.model_executor.models.bert",
    "vllm.model_executor.models.llama",
    "vllm.transformers_utils.config",
)
"""What `vllm serve` imports on its way to a model; one that another release lacks is imported by the fork."""


def main() -> None:
    """Import vLLM, then fork for each order; a fork becomes vLLM's own command line."""
    control = socket.socket(fileno=int(sys.argv[1]))
    entrypoint.prepare()
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection would write to every object, and nothing would be shared any more
    rename = _renamer()
    if not fork_for_orders(control):
        os._exit(0)  # what vLLM would tidy up at its end was never begun
    rename(" ".join([sys.executable, "-m", entrypoint.__name__, *sys.argv[1:]]))
    sys.modules["__main__"] = entrypoint  # processes that vLLM spawns read the main module again
    entrypoint.main()


def fork_for_orders(control: socket.socket) -> bool:
    """Fork a process for each order until the other side closes.

    Returns: true in a fork, which is to do what its arguments say; false in the process that forks.
    """
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker)
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ended(control)
        if control.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, MAX_ORDER_BYTES, 2)
        if not message:
            return False
        process_id = os.fork()
        if not process_id:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (woken, waker):
                os.close(descriptor)
            control.close()
            _become(json.loads(message), *descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        _send(control, {"pid": process_id})


def _become(order: dict[str, Any], output: int, lifeline: int) -> None:
    """Take on arguments, environment, output and lifeline of an order, in a group of its own."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update({**order["environment"], entrypoint.LIFELINE: str(lifeline)})
    sys.argv = [sys.argv[0], *order["arguments"]]


def _renamer() -> Callable[[str], object]:
    """Make what gives a fork the command line, in lists of processes, that it would have by itself.

    It looks for the place of the command line in memory, which it finds before the variables are changed.
    """
    try:
        import setproctitle  # late: it comes with vLLM
    except ImportError:
        return lambda text: None
    setproctitle.getproctitle()
    return setproctitle.setproctitle


def _tell_ended(control: socket.socket) -> None:
    """Say which forks have ended, and how."""
    with contextlib.suppress(ChildProcessError):
        while True:
            process_id, status = os.waitpid(-1, os.WNOHANG)
            if not process_id:
                return
            _send(control, {"ended": process_id, "code": os.waitstatus_to_exitcode(status)})


def _send(control: socket.socket, message: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # the other side is gone: the next order will be its end
        control.send(json.dumps(message).encode())


if __name__ == "__main__":
    main()
