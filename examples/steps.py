"""What the examples share: a folder to work in, commands shown and run, and a small form for tests.

    python -m examples.tickets                     in ./example-tickets, a few minutes on two cores
    python -m examples.tickets --small --out DIR   the same commands with a few training steps: seconds

All text that these examples write is made: by a seeded generator, about nobody.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from adaptkit.cli import app, console
from adaptkit.cli.arguments import find_run

SMALL_STEPS = 12
MADE = "made text, by a seeded generator: no real person, company or case"


@dataclass(frozen=True)
class Example:
    """One example while it runs, in its own working folder.

    Attributes:
        here: the example's folder in the checkout, which holds its configs.
        small: a few training steps instead of hundreds.
    """

    here: Path
    small: bool

    def adaptkit(self, *words: str) -> None:
        """Show a command and run it; a command that fails ends the example."""
        print(f"\n$ adaptkit {shlex.join(words)}", flush=True)
        code = console.run(app.app, list(words))
        if code not in (0, 3):
            sys.exit(f"adaptkit {words[0]} ended with exit code {code}")

    def train(self, *words: str, steps: int) -> None:
        """Train with a config of the example's folder for `steps` steps; for a few in the small form."""
        *command, config = words
        self.adaptkit(*command, str(self.here / config), self.steps(steps))

    def steps(self, full: int) -> str:
        """The override that says how many steps are trained."""
        return f"trainer.num_steps={SMALL_STEPS if self.small else full}"

    def count(self, full: int, small: int) -> int:
        """Rows to make."""
        return small if self.small else full


def start(here: str) -> Example:
    """Read the command line and change to the working folder."""
    folder = Path(here).resolve().parent
    parser = argparse.ArgumentParser(prog=f"python -m examples.{folder.name}")
    parser.add_argument(
        "--small", action="store_true", help="a few training steps: seconds instead of minutes"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(f"example-{folder.name}"), help="the folder to work in"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    os.chdir(arguments.out)
    print(f"in {Path.cwd()}: {MADE}", flush=True)
    return Example(folder, arguments.small)


def begin(name: str) -> Example:
    """Work in ./example-NAME, as a notebook does; with EXAMPLES_SMALL=1 a few training steps are made."""
    out = Path(f"example-{name}")
    if Path.cwd().name != out.name:  # the cell was run before
        out.mkdir(parents=True, exist_ok=True)
        os.chdir(out)
    print(f"in {Path.cwd()}: {MADE}", flush=True)
    return Example(Path(__file__).resolve().parent / name, bool(os.environ.get("EXAMPLES_SMALL")))


def write_rows(path: str, rows: Iterable[dict[str, object]]) -> None:
    """Write rows as JSON lines, each marked as made."""
    text = "".join(json.dumps({**row, "source": "made"}, ensure_ascii=False) + "\n" for row in rows)
    Path(path).write_text(text, encoding="utf-8")


def model_of(name: str) -> Path:
    """The model folder of the newest run of a name."""
    return find_run(Path(name)) / "model"
