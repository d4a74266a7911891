"""A newcomer's whole way, command by command: an own CSV, its study, a report, answers, an export.

The models are as small as they may be and the budget trains a few steps: what is tested is that each command
takes what the one before left, and says so.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptkit.cli.app import app
from adaptkit.cli.console import run
from examples.tickets.__main__ import rows

NAME = "tickets"
ARM = "generic+full"
TINY = ["seeds=1", f"arms=[generic+probe,{ARM}]", "size.params=300k", "size.seq_len=64"]
TINY += ["tokenizer.vocab_size=512", "base_flops=4e10", "budget.amount=4e10", "budget.trials=1"]
TINY += ["trainer.global_batch_size=4"]


@dataclass
class Walk:
    """What the commands showed, by their first word.

    Attributes:
        study, export: folders.
        problem: why the way ended early; empty where it did not.
    """

    folder: Path
    shown: dict[str, str] = field(default_factory=dict)
    study: Path = Path()
    export: Path = Path()
    problem: str = ""

    def go(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run one command.

        Raises: RuntimeError for another exit code than these.
        """
        out, beside = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(beside):
            code = run(app, list(words))
        if code not in codes:
            raise RuntimeError(f"adaptkit {' '.join(words)} ended with {code}: {beside.getvalue()[-2000:]}")
        self.shown[words[0]] = out.getvalue()
        return out.getvalue()

    def data(self, *words: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run one command for its JSON."""
        return json.loads(self.go(*words, "--json", codes=codes))


def walk(folder: Path, general: list[str]) -> Walk:
    """Go the way in a folder of its own, where nothing is but a CSV; `general` is general text."""
    way = Walk(folder)
    with open(folder / "tickets.csv", "w", newline="") as file:
        table = csv.DictWriter(file, ["body", "queue"])
        table.writeheader()
        table.writerows({"body": row["text"], "queue": row["label"]} for row in rows(240, seed=1))
    lines = [json.dumps({"text": text}) for text in general]
    (folder / "general.jsonl").write_text("\n".join(lines) + "\n")
    with contextlib.chdir(folder):
        try:
            way.go("init", "tickets.csv", "--general", "general.jsonl", "--minutes", "1")
            way.go("compare", "study.yaml", *TINY, codes=(0, 3))
            [way.study] = [path.parent.absolute() for path in Path("runs").glob("*/study.json")]
            way.go("report", NAME, codes=(0, 3))
            way.go("try", NAME, "--arm", ARM, "the printer eats the paper", "my card was charged twice")
            done = way.data("export", NAME, "--arm", ARM, "--format", "fp32")
            way.export = Path(done["folder"]).absolute()
        except Exception as error:  # told by the test of the walk, not by all that share its server
            way.problem = f"{type(error).__name__}: {error}"
    return way
