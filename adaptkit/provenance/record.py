"""What `adaptkit provenance` says, as frozen records; the same that `--json` prints."""

from __future__ import annotations

from typing import Literal

from adaptkit.run_record import Record

FileState = Literal["verified", "changed", "not here"]
"""Of a source file: its digest is the recorded one, is another one, or the file is not where it was read."""


class SourceRecord(Record):
    """One file that rows were read from."""

    name: str
    """As the config named it."""
    num_bytes: int
    """Of the file."""
    sha256: str
    state: FileState
    rows: int | None = None
    """Rows that were trained on and stood in this file; None where its rows cannot be counted."""
    text_bytes: int | None = None
    """UTF-8 bytes of their text."""
    share: float | None = None
    """Of the text of its data set, by bytes."""
    tokens: int | None = None
    """Tokens of that text."""
    token_share: float | None = None


class RemovedRecord(Record):
    """What is not among the training rows although it was read, and why."""

    why: str
    rows: int | None = None
    """Rows or documents that went, or lost something; None where they were not counted."""
    num_bytes: int | None = None
    """UTF-8 bytes of text that went."""


class DataSetRecord(Record):
    """One data set: where it came from and what was taken out of it."""

    name: str
    """`domain`, `general` or a task of a study; else the run that read it."""
    part: str
    """train, dev, test or replay."""
    held_by: str
    """The run that holds or read the rows."""
    kind: str
    rows: int
    """As they were trained on or judged on."""
    num_bytes: int
    digest: str
    """sha256 over the rows."""
    licences: dict[str, int] = {}
    """Licence -> rows that state it, before anything was removed."""
    sources: tuple[SourceRecord, ...] = ()
    removed: tuple[RemovedRecord, ...] = ()
    tokens_by: str = ""
    """The run whose tokenizer `tokens` of its sources are counted in."""


class TrainingRecord(Record):
    """One run on the way to the weights."""

    run: str
    recipe: str
    task: str = ""
    base: str
    """What its weights were at first; `random weights` where there was nothing."""
    teacher: str = ""
    reads: tuple[str, ...] = ()
    """The data sets that it learnt from."""
    num_steps: int = 0
    params: int = 0
    tokens: int | None = None
    """Read by its training, repeats counted."""
    flops: float | None = None
    seconds: float | None = None
    device: str = ""
    state: Literal["verified", "changed", "not here"]
    """Of its own files: each has its recorded digest, one does not, or the run is not here."""


class ForeignRecord(Record):
    """A model from elsewhere."""

    role: Literal["base", "teacher"]
    name: str
    licence: str
    weights: dict[str, str] | None = None
    """File -> sha256; None where its folder is not here."""


class ThresholdRecord(Record):
    """One regulator's threshold (export/papers/compute_thresholds.py)."""

    rule: str
    limit: float | None
    flops: float
    answer: str
    why: str
    source: str
    date: str


class ProvenanceRecord(Record):
    """All that is known of where weights came from."""

    format: Literal[1] = 1
    folder: str
    kind: Literal["export", "run", "study"]
    weights: dict[str, str] = {}
    """Weights file -> sha256; none of a study, which has many models."""
    trainings: tuple[TrainingRecord, ...] = ()
    """The last one first."""
    data: tuple[DataSetRecord, ...] = ()
    foreign: tuple[ForeignRecord, ...] = ()
    thresholds: tuple[ThresholdRecord, ...] = ()
    """None of a study."""
    problems: tuple[str, ...] = ()
    """A sentence on each digest that does not match, with the file's name."""
    unverified: tuple[str, ...] = ()
    """A sentence on what could not be checked because it is not here."""
    notes: tuple[str, ...] = ()
    """A sentence on what was added to the rows, or masked in them."""


class PlaceRecord(Record):
    """Where a document stands in the data of a run."""

    data: str
    part: str
    how: Literal["whole", "part", "within", "near", "id"]
    """whole: a row is the document; part: a row is a piece of it, as cutting leaves; within: the document
    stands in a longer row; near: a row is nearly equal; id: its content's digest is that of a row."""
    rows: int
    where: str
    """`file:line` of the first such row, in the source where that is known."""
    similarity: float | None = None
    """Of `near`: the estimated Jaccard similarity of their runs of five words."""


class ReaderRecord(Record):
    """A run and what it has to do with a document."""

    run: str
    how: Literal["trained", "near copy", "stands on", "judged", "cannot say"]
    """trained: it or a piece of it is among what the run learnt from; near copy: only a text nearly equal to
    it is; stands on: the model that the run began with, or was taught by, learnt it; judged: only held-out
    data has it; cannot say: its rows are not here any more."""
    places: tuple[PlaceRecord, ...] = ()
    why: str = ""
    flops: float | None = None
    seconds: float | None = None
    exports: tuple[str, ...] = ()


class RetrainingRecord(Record):
    """What it costs to make runs again."""

    runs: int
    flops: float
    seconds: float
    complete: bool
    """Whether every one of these runs recorded its cost."""


class DocumentRecord(Record):
    """Who learnt a document."""

    format: Literal[1] = 1
    num_bytes: int
    sha256: str
    readers: tuple[ReaderRecord, ...]
    retraining: RetrainingRecord
    """Of the runs that were trained on it or a near copy, or stand on one that was."""
    everything: RetrainingRecord
    """Of all runs that were looked at."""
    library: tuple[str, ...] = ()
    """Prepared data where passages were looked up and which holds the document."""
