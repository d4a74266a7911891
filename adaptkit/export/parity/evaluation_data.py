"""Collect the text that an export is measured and calibrated on: what the run kept, or given files.

A model without such a run is measured on a few built-in sentences, so that no export is unmeasured; the
report says in words where its text came from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from adaptkit.data import Dataset, read, split
from adaptkit.data.drawing import draw_order
from adaptkit.data.heldout import Calibration, held_out, read_calibration, read_held_out
from adaptkit.data.readers import DataConfig
from adaptkit.export.source import Source
from adaptkit.run import Run
from adaptkit.run_record import RecipeKind

DEV_SHARE = 0.1
"""Of a file given for calibration, where nothing else is there to measure on."""
DEFAULT_LENGTH = 256
"""Tokens per window, where it is not known what the model was trained on."""
BUILT_IN = (
    "The patient was given ten milligrams of the drug twice a day and felt better after a week.",
    "Revenue grew by four percent in the third quarter, mostly in the northern region.",
    "To reset the device, hold the power button for ten seconds and wait for the green light.",
    "The committee will meet on Tuesday to discuss the budget and the new building.",
    "def mean(values):\n    return sum(values) / len(values)",
    "The contract ends on the last day of March unless both parties agree in writing.",
    "Water boils at a lower temperature on a mountain because the air pressure is lower there.",
    "Please find attached the report that you asked for, with the figures of last year.",
)


@dataclass(frozen=True)
class EvaluationData:
    """What an export is measured on and calibrated on.

    Attributes:
        passages: (id, text) of documents that the model was not trained on, each cut to a passage.
        origin: where they come from, in words.
        digest: sha256 of the set they were taken from; empty for built-in sentences.
        seq_len: tokens per window, as many as the model was trained on.
        items: rows with a label or an answer that the model was not trained on; None without a task.
        items_origin: where those come from, in words.
        calibration: rows to calibrate on; None where there are none.
        calibration_origin: where those come from, in words.
        calibration_file: name of the file that was given for it; None for the run's own rows.
    """

    passages: list[tuple[str, str]]
    origin: str
    digest: str = ""
    seq_len: int = DEFAULT_LENGTH
    items: Dataset | None = None
    items_origin: str = "no task: only the text was compared"
    calibration: Calibration | None = None
    calibration_origin: str = "training rows of the run"
    calibration_file: str | None = None

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.passages]

    @property
    def num_items(self) -> int:
        if self.items is None:
            return 0
        return len(self.items.rows)


def find_evaluation_data(
    source: Source, *, evaluation: Path | None = None, calibration: Path | None = None
) -> EvaluationData:
    """Find the text and items to measure the export of a source on.

    Args:
        evaluation: a file of text to measure on instead.
        calibration: a file of text to calibrate on instead; a tenth of it is held out where nothing else is
            there to measure on.
    Raises: DataError for a given file that cannot be used.
    """
    data = _of_source(source)
    if calibration is not None:
        rows = _read_text(calibration)
        if not data.digest and evaluation is None:
            rows, dev = split(rows, DEV_SHARE)
            data = _measured_on(data, dev, f"a tenth of {calibration.name}, held out")
        data = replace(
            data,
            calibration=Calibration(rows.with_rows(sorted(rows.rows, key=draw_order)), rows.digest),
            calibration_origin=f"the file {calibration.name}",
            calibration_file=calibration.name,
        )
    if evaluation is not None:
        data = _measured_on(data, _read_text(evaluation), f"the file {evaluation.name}")
    return data


def _of_source(source: Source) -> EvaluationData:
    """Read what the run kept of its own data, or take built-in sentences."""
    if source.run is None or source.record is None:
        return _built_in("the folder says nothing of its data")
    run, record = Run(source.run), source.record
    seq_len = record.seq_len or DEFAULT_LENGTH
    calibration, held = read_calibration(run), read_held_out(run)
    if held is None or not held.passages:
        return replace(_built_in("the run kept no held-out text"), seq_len=seq_len, calibration=calibration)
    rows = "examples" if record.recipe in (RecipeKind.EMBED, RecipeKind.RERANK) else "rows"
    data = EvaluationData(
        held.passages,
        f"held-out {rows} of the run (dev)",
        held.digest,
        seq_len=seq_len,
        calibration=calibration,
    )
    if held.items is None:
        return data
    return replace(data, items=held.items, items_origin=f"{held.items_split} rows of the run")


def _measured_on(data: EvaluationData, dataset: Dataset, origin: str) -> EvaluationData:
    held = held_out({"dev": dataset}, with_items=False)
    return replace(data, passages=held.passages, origin=origin, digest=held.digest)


def _read_text(path: Path) -> Dataset:
    return read(DataConfig(files=[str(path)]), "text")


def _built_in(reason: str) -> EvaluationData:
    passages = [(f"built-in-{number}", text) for number, text in enumerate(BUILT_IN)]
    advice = "give --eval FILE to measure on your own text"
    return EvaluationData(passages, f"{len(BUILT_IN)} built-in sentences, as {reason}; {advice}")
