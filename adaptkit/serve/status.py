"""Progress of a server on standard error: a live line on a terminal, one JSON object per event elsewhere."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.status import Status


class StatusLine:
    """Tells people or programs what the server does; holds no text of any request."""

    def __init__(self) -> None:
        self._live: Status | None = None
        self._began = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console

            self._console = Console(stderr=True, highlight=False)

    def phase(self, model: str, text: str) -> None:
        """Say how far a model's start has come; replaces what was said before."""
        if not sys.stderr.isatty():
            self._line(event="phase", model=model, phase=text)
            return
        if self._live is None:
            self._live = self._console.status("")
            self._live.start()
        self._live.update(f"{model}: {text} ({time.monotonic() - self._began:.0f} s)")

    def note(self, model: str, text: str) -> None:
        """Say something that stays on the screen."""
        if not sys.stderr.isatty():
            self._line(event="note", model=model, text=text)
            return
        self.quiet()
        self._console.print(f"{model}: {text}", markup=False)

    def quiet(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, **fields: str) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        print(json.dumps({**fields, "seconds": seconds}), file=sys.stderr, flush=True)
