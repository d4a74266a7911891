"""Progress of a server, on standard error: a live line on a terminal, one JSON object per event elsewhere."""

from __future__ import annotations

import json
import sys
import time
from typing import Any


class Teller:
    """Tells people or programs what the server does; holds no text of any request."""

    def __init__(self) -> None:
        self._status: Any = None
        self._began = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)

    def phase(self, model: str, text: str) -> None:
        """How far a model's start has come; replaces what was said before."""
        if not sys.stderr.isatty():
            self._line(event="phase", model=model, phase=text)
            return
        if self._status is None:
            self._status = self._console.status("")
            self._status.start()
        self._status.update(f"{model}: {text} ({time.monotonic() - self._began:.0f} s)")

    def note(self, model: str, text: str) -> None:
        """Something that happened, to stay on the screen."""
        if not sys.stderr.isatty():
            self._line(event="note", model=model, text=text)
            return
        self.quiet()
        self._console.print(f"{model}: {text}", markup=False)

    def quiet(self) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _line(self, **fields: Any) -> None:
        print(
            json.dumps({**fields, "seconds": round(time.monotonic() - self._began, 1)}),
            file=sys.stderr,
            flush=True,
        )
