"""What an exported model is, as one frozen record in its manifest.json, and the names of its files.

record = read_export(folder)        # None for a folder that no export wrote
record.format, record.needs, record.arm, record.task
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from adaptkit.errors import ModelError
from adaptkit.export.formats import Need
from adaptkit.run import read_json
from adaptkit.run_record import Record

ServedKind = Literal["generate", "classify", "tag", "embed", "rerank"]
"""What a served model answers with; decides the server's routes."""
Method = Literal["rtn", "gptq"]
"""How weights are rounded: each to the nearest, or calibrated on text."""
MANIFEST_FILE = "manifest.json"
"""Of an exported folder: what it holds, what it was made from, digests of its files."""
PARITY_FILE = "parity.json"
"""How its answers differ from those of the trained model."""
REFERENCE_FILE = "reference.json"
"""What it answers to fixed sentences."""
ANSWERS_FILE = "answers.json"
"""What it answers, kind by kind, for `adaptkit verify`; sealed."""
HTTP_FILE = "parity.http.json"
"""How a server's answers differ from those; written when it is served."""
KEY = "export"
"""Of the record in manifest.json; no run's manifest has it."""
_TINY = 1e-12


class CalibrationRecord(Record):
    """The text that GPTQ calibrated on."""

    origin: str
    """Where it came from, in words."""
    file: str | None = None
    """Name of the file that was given for it; None for the run's own training rows."""
    digest: str
    """sha256 over its rows."""
    rows: int
    tokens: int


class MeasuredRecord(Record):
    """What the threshold of a classifier does on test items: mean, low and high end of each interval."""

    num_items: int
    confidence: float
    """Of the intervals."""
    answered: tuple[float, float, float]
    """Share of the items that it answers itself."""
    accuracy: tuple[float, float, float]
    """Of these."""
    accuracy_of_all: tuple[float, float, float]
    """Of all items, had it answered them."""


class ConfidenceRecord(Record):
    """How far a classifier's confidence can be trusted, and when it should not answer."""

    temperature: float
    """Log-probabilities are divided by it."""
    threshold: float | None
    """Below this probability of the likeliest label, after scaling, it abstains; None where it never does."""
    wanted_accuracy: float
    """Of what it answers; the threshold reached it on the development items."""
    num_fitted: int
    """Development items."""
    measured: MeasuredRecord | None = None
    """None without enough test items."""

    def judge(self, probabilities: Sequence[float]) -> dict[str, Any]:
        """Say what one text's probabilities are after scaling, how sure that is, and whether to abstain.

        Returns: calibrated_probs, in the same order; confidence, the largest of them; abstain.
        """
        scaled = [math.log(max(p, _TINY)) / self.temperature for p in probabilities]
        raised = [math.exp(value - max(scaled)) for value in scaled]
        calibrated = [value / sum(raised) for value in raised]
        sure = max(calibrated)
        abstain = self.threshold is not None and sure < self.threshold
        return {"calibrated_probs": calibrated, "confidence": sure, "abstain": abstain}


class ExportRecord(Record):
    """What an exported folder holds, and which place its model had in a study."""

    name: str
    """What clients call the model by."""
    kind: ServedKind
    format: str
    """Name of the format: fp32, bf16, int8, int4, fp8."""
    stores: str
    """The format in words."""
    needs: Need
    """The machine that serves it."""
    serving_dtype: dict[str, str]
    """Machine -> precision that a server should compute in."""
    method: Method | None = None
    """None where nothing was rounded."""
    group_size: int | None = None
    """Inputs that share a scale; None where a row of outputs does."""
    calibration: CalibrationRecord | None = None
    study: str | None = None
    """Name of the study's folder; None outside a study, as all of the following."""
    study_name: str | None = None
    """What its config calls the study."""
    arm: str | None = None
    origin: str | None = None
    """What the weights started from: generic, continued, mixed, scratch, placebo, distilled."""
    adaptation: str | None = None
    """How the task was learnt: prompt, rag, probe, lora, qlora, rag-lora, full; None for a language model."""
    task: str | None = None
    """None for a language model outside a study."""
    seed: int | None = None
    base: str | None = None
    """The foreign model that all training began with; None for random weights."""
    licence: str
    """In words."""
    labels: tuple[str, ...] = ()
    """Classes of a classifier, or tags of words, in the order of the outputs."""
    confidence: ConfidenceRecord | None = None
    """Of a classifier whose run kept its answers to development items."""


def read_export(folder: Path) -> ExportRecord | None:
    """Read the record of an exported folder; None for another model folder.

    Raises: ModelError for a record that does not fit.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    manifest = read_json(path)
    if KEY not in manifest:
        return None
    try:
        return ExportRecord.model_validate(manifest[KEY])
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        what = f"the export's record does not fit at '{'.'.join(map(str, first['loc']))}': {first['msg']}"
        raise ModelError(what, where=str(path), fix="export the model again") from None
