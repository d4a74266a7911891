"""Ask transformers what a plain folder answers, so that a server's answers are held against something.

An export brings its answers along (reference.json); for every other folder that is small enough they are made
here, in the process that looks at the tensors beside the start of vLLM. What is not compared is said.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from adaptkit.export.record import REFERENCE_FILE
from adaptkit.export.source import ServedKind, Source, kind_of
from adaptkit.serve.model_files import read_object, weight_files
from adaptkit.weight_files import read_header

MOST_PARAMETERS = 1_000_000_000
BYTES_PER_PARAMETER = 6  # float32, and half of it once more while it is read


@dataclass(frozen=True)
class Expected:
    """What transformers answers, as `check_answers` reads it, or why it was not asked.

    Attributes:
        answers: None where transformers was not asked.
        unchecked: the reason, a clause; empty for an export, which is compared with its own record.
    """

    answers: dict[str, Any] | None = None
    unchecked: str = ""

    def in_words(self) -> str:
        """Say what a server's answers were held against: the end of a note."""
        if self.unchecked:
            return f"; its answers were not compared with those of transformers: {self.unchecked}"
        if self.answers is not None:
            return "; it answers as transformers does"
        return ""


def expect(folder: Path) -> Expected:
    """Load the model of a folder and ask it, unless it is too large or its answers would not tell."""
    kind = kind_of(folder)
    if (folder / REFERENCE_FILE).is_file():
        return Expected()
    if why := _reason_not_to_ask(folder, kind):
        return Expected(unchecked=why)
    from adaptkit import models
    from adaptkit.export.parity.reference import make_answers
    from adaptkit.export.weights import load_trained

    source = Source(folder, kind, folder.name, "")
    try:
        tokenizer = models.load_tokenizer(folder)
        return Expected(make_answers(source, load_trained(source), tokenizer))
    except Exception as error:  # of whatever library: vLLM may serve all the same
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        return Expected(unchecked=f"transformers gives no answers to compare with: {first}")


def _reason_not_to_ask(folder: Path, kind: ServedKind) -> str:
    config = read_object(folder / "config.json")
    if config.get("quantization_config"):
        return "its weights are quantised"
    if kind == "embed" and not (folder / "modules.json").is_file():
        return "no modules.json says how its vectors are made"
    if config.get("problem_type") not in (None, "single_label_classification", "regression"):
        return f"its problem type is {config['problem_type']}"
    headers = [read_header(path) for path in weight_files(folder)]
    parameters = sum(math.prod(entry["shape"]) for header in headers for entry in header.values())
    if parameters > MOST_PARAMETERS:
        return f"it has {parameters / 1e9:.1f}B parameters, over {MOST_PARAMETERS / 1e9:g}B"
    if BYTES_PER_PARAMETER * parameters > psutil.virtual_memory().available / 2:
        return "memory is short"
    return ""
