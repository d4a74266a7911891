"""Python files of the user's, run in a process of their own: metrics, and functions that label texts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adaptkit.errors import ConfigError
from adaptkit.run import read_json
from adaptkit.study import user_file_child

LAST_LINES = 6
"""Of a traceback that is shown."""


@dataclass(frozen=True)
class UserFile:
    """A Python file of the user's.

    Attributes:
        name: what it is to the user: a metric, rules.
        seconds: what one call may take.
        fix: what the file must define.
        raise_limit: how the user gives it more time.
    """

    file: Path
    name: str
    seconds: float
    fix: str
    raise_limit: str

    def ask(self, what: Literal["score", "rules"], items: Sequence[dict[str, Any]]) -> Any:
        """What the file makes of some items, as `user_file_child` puts it.

        Raises: ConfigError, at its line, for a file that is not there, fails, or takes too long.
        """
        if not self.file.is_file():
            fix = f"name a Python file: {self.fix}"
            raise ConfigError("there is no such file", where=str(self.file), fix=fix)
        with tempfile.TemporaryDirectory() as folder:
            answer = self._run(what, items, Path(folder))
        if "error" in answer:
            where = str(self.file) if answer.get("line") is None else f"{self.file}:{answer['line']}"
            trace = answer.get("trace", "").rstrip().splitlines()[-LAST_LINES:]
            shown = "\n".join(["", "your file's traceback ends:", *trace]) if trace else ""
            raise ConfigError(f"your {self.name} fails: {answer['error']}{shown}", where=where, fix=self.fix)
        return answer["values"]

    def _run(self, what: str, items: Sequence[dict[str, Any]], folder: Path) -> dict[str, Any]:
        target = folder / "answer.json"
        child = [user_file_child.__file__, str(self.file.resolve()), str(target), what]
        try:
            done = subprocess.run(
                [sys.executable, "-I", *child],
                input=json.dumps(list(items), default=str),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.seconds,
                cwd=folder,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        except subprocess.TimeoutExpired:
            late = f"did not come to an end within {self.seconds:g} s for {len(items):,} items"
            fix = f"make it faster, or {self.raise_limit}"
            raise ConfigError(late, where=str(self.file), fix=fix) from None
        if not target.is_file():
            said = " ".join(done.stderr.split())[-200:]
            ended = f"ended its process with code {done.returncode}: {said}"
            raise ConfigError(ended, where=str(self.file), fix=self.fix)
        answer: dict[str, Any] = read_json(target)
        return answer
