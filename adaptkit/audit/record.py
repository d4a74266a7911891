"""What an audit of memorisation found: figures with intervals, and of texts and secrets nothing but digests.

record = read_memorisation(Run("runs/pretrain-1a2b3c4d"))
for subject in record.subjects:
    subject.name, subject.membership.low, subject.exposures
"""

from __future__ import annotations

from typing import Literal

from adaptkit.run import Run, read_sealed, write_sealed
from adaptkit.run_record import CanaryRecord, Record, validated

MEMORISATION_FORMAT: Literal[1] = 1


class FigureRecord(Record):
    """A figure with its confidence interval."""

    mean: float
    low: float
    high: float


class ExposureRecord(Record):
    """The canaries that stand so often in the training text."""

    repeats: int
    """0 for those that were never planted."""
    num: int
    """Canaries."""
    bits: FigureRecord
    """Exposure, mean over canaries and seeds."""
    num_written: int
    """Canaries whose secret the model wrote out when it was given what stands before it, over all seeds."""


class ExtractionRecord(Record):
    """Passages that the model was given the first half of, by how often they stand in the training text."""

    repeats: str
    """`held out` for passages that do not stand in it."""
    num: int
    """Passages, each of a document of its own."""
    share: FigureRecord
    """Of the passages whose second half the model wrote token for token."""
    num_tokens: float
    """Tokens of the second half that were right before the first wrong one, mean."""


class SubjectRecord(Record):
    """One model, or the models of an arm's seeds."""

    name: str
    describe: str
    num_seeds: int
    params: int
    passes: float | None
    """How often it read the audited text, canaries aside; 0 for the control, None where that is not known."""
    membership: FigureRecord
    """AUC: how often a training passage is likelier to the model, per byte, than a held-out one."""
    beyond_control: FigureRecord | None = None
    """That AUC minus the control's, paired; None for the control and where there is none."""
    exposures: tuple[ExposureRecord, ...] = ()
    """By repeats; empty where no canaries were planted."""
    extraction: tuple[ExtractionRecord, ...] = ()
    """By repeats; empty where no document is long enough."""


class MemorisationRecord(Record):
    """The audit of a run or a study."""

    format: Literal[1] = MEMORISATION_FORMAT
    confidence: float
    subjects: tuple[SubjectRecord, ...]
    control: str | None
    """The subject that has not read the text; None where there is none."""
    num_train: int
    """Training passages that were compared."""
    num_held_out: int
    train_digest: str
    held_out_digest: str
    blind: FigureRecord
    """The AUC of a packer (zlib) that has read neither: away from 0.5 the two parts differ by themselves."""
    canaries: CanaryRecord | None = None
    half: int
    """Tokens of the given and of the expected half of a passage."""


def write_memorisation(run: Run, record: MemorisationRecord) -> None:
    """Write memorisation.json of a run or a study."""
    write_sealed(run.audit_path("memorisation"), record.model_dump(mode="json"))


def read_memorisation(run: Run) -> MemorisationRecord | None:
    """What `write_memorisation` wrote, or None.

    Raises: DataError for a file that was damaged or is of another format.
    """
    path = run.audit_path("memorisation")
    if not path.is_file():
        return None
    return validated(MemorisationRecord, read_sealed(path), str(path), MEMORISATION_FORMAT)
