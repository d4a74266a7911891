"""Compile constraints of structured output in processes of their own, which end: only the caller waits.

vLLM 0.32 compiles in a few threads of the engine's own process, without an end: `{"maxLength": 100}` took
19 s with a vocabulary of 49,000, a regex of 1,300 characters 36 s, and other callers waited. Here a forked
process compiles, at low priority, and is killed when its time is over; what it made is read back. Such a
request fails alone. Constraints that were compiled, or were too slow, are remembered.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from adaptkit.serve.limits import compile_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 16  # threads that wait for such processes
REMEMBERED = 64
NICER = 10
OK, FAILED = b"+", b"-"


class TooSlow(ValueError):
    """A constraint that does not compile, or not in time."""


class Compiled:
    """Constraints that were compiled, by what was asked, and why others were not."""

    def __init__(self) -> None:
        self._texts: OrderedDict[object, bytes] = OrderedDict()
        self._vocabulary: Any = None
        self._lock = threading.Lock()

    def vocabulary(self, backend: Any) -> Any:
        """Take xgrammar's view of the tokenizer, which only a compiled grammar shows.

        The smallest one is compiled here, once, while nobody forks: so its locks are free in every child.
        """
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = backend.compiler.compile_regex("a").tokenizer_info
            return self._vocabulary

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        """Take the answer of the first time, or make it now.

        Raises: TooSlow, also for what was too slow before.
        """
        with self._lock:
            answer = self._texts.get(key)
        if answer is None:
            answer = in_own_process(make, compile_seconds(os.environ))
            with self._lock:
                self._texts[key] = answer
                while len(self._texts) > REMEMBERED:
                    self._texts.popitem(last=False)
        if answer[:1] != OK:
            raise TooSlow(answer[1:].decode())
        return answer[1:]


def in_own_process(make: Callable[[], bytes], seconds: int) -> bytes:
    """Fork, let the child make something, and read it back: `+` and the bytes, or `-` and why not."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _make_and_exit(make, read_end, write_end)
    os.close(write_end)
    parts: list[bytes] = []
    until = time.monotonic() + seconds
    try:
        while True:
            left = until - time.monotonic()
            if seconds and (left <= 0 or not select.select([read_end], [], [], left)[0]):
                return FAILED + f"the constraint did not compile within {seconds} s".encode()
            part = os.read(read_end, 2**20)
            if not part:
                break
            parts.append(part)
    finally:
        os.close(read_end)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return b"".join(parts) or FAILED + b"the process that compiled the constraint died"


def _make_and_exit(make: Callable[[], bytes], read_end: int, write_end: int) -> None:
    """What the child does; nothing of the parent's is cleaned up here."""
    try:
        os.close(read_end)
        os.nice(NICER)
        try:
            answer = OK + make()
        except Exception as error:
            answer = FAILED + f"the constraint does not compile: {str(error)[:300]}".encode()
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(answer)
    finally:
        os._exit(0)


def install() -> None:
    """Let vLLM's manager of structured output compile so; other backends than xgrammar stay as they are."""
    from vllm.v1.structured_output import StructuredOutputManager

    make_manager, compile_here = StructuredOutputManager.__init__, StructuredOutputManager._create_grammar
    compiled = Compiled()

    def init(self: Any, *args: Any, **settings: Any) -> None:
        make_manager(self, *args, **settings)
        if hasattr(self, "executor"):
            self.executor = ThreadPoolExecutor(max_workers=AT_ONCE)

    def create_grammar(self: Any, request: Any) -> Any:
        from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

        if not isinstance(self.backend, XgrammarBackend):
            return compile_here(self, request)
        stop = request.sampling_params.all_stop_token_ids if request.sampling_params else None
        key = request.structured_output_request.structured_output_key
        return compile_bounded(self.backend, key, stop, compiled)

    StructuredOutputManager.__init__ = init
    StructuredOutputManager._create_grammar = create_grammar


def compile_bounded(backend: Any, key: tuple[Any, str], stop: set[int] | None, compiled: Compiled) -> Any:
    """Compile as vLLM's backend does, in another process.

    Raises: TooSlow.
    """
    import xgrammar
    from vllm.v1.structured_output.backend_xgrammar import XgrammarGrammar

    def make() -> bytes:
        return backend.compile_grammar(*key).ctx.serialize_json().encode()

    vocabulary = compiled.vocabulary(backend)
    text = compiled.get(key, make).decode()
    grammar = xgrammar.CompiledGrammar.deserialize_json(text, vocabulary)
    matcher = xgrammar.GrammarMatcher(
        grammar,
        override_stop_tokens=list(stop) if stop else None,
        max_rollback_tokens=backend.num_speculative_tokens,
    )
    return XgrammarGrammar(vocab_size=backend.vocab_size, matcher=matcher, ctx=grammar)
