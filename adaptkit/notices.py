"""Say what a user should know although it stops nothing, each sentence once: words on a terminal, one JSON
line elsewhere, on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable

Tell = Callable[[str], None]
"""Takes one sentence for the user."""
_said: set[str] = set()


def tell(sentence: str) -> None:
    """Show a sentence, unless this process has shown it before or another rank does."""
    if sentence in _said or os.environ.get("RANK", "0") != "0":
        return
    _said.add(sentence)
    line = json.dumps({"note": sentence}, ensure_ascii=False)
    if sys.stderr.isatty():
        line = f"note: {sentence}"
    print(line.encode(errors="backslashreplace").decode(), file=sys.stderr, flush=True)


def silent(sentence: str) -> None:
    """Show nothing: for files that adaptkit wrote itself."""
