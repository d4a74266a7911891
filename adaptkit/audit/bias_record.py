"""What an audit of bias found: figures with intervals, the user's words and group names, no sentences.

record = read_bias(Run("runs/tickets-5e6f7a8b"))
for task in record.tasks:
    task.column, [(group.name, group.after.gap) for group in task.groups]
"""

from __future__ import annotations

from typing import Literal

from adaptkit.audit.record import FigureRecord
from adaptkit.run import Run, read_sealed, write_sealed
from adaptkit.run_record import Record, validated

BIAS_FORMAT: Literal[1] = 1


class SentenceGapRecord(Record):
    """What one model finds of one word."""

    subject: str
    word: str
    whole: FigureRecord
    """Bits by which sentences with the word are likelier than with the other words."""
    around: FigureRecord
    """The same of the tokens that the sentences share."""
    likelier: FigureRecord
    """Share of sets in which `whole` is above 0."""
    change: FigureRecord | None = None
    """`around` less the control's, paired; None for the control and where there is none."""


class SentenceSetRecord(Record):
    """All pairs, or all templates with the same words."""

    words: tuple[str, ...]
    num_sets: int
    num_clusters: int
    level: float
    """Of each interval, so that those of all words of a model hold together."""
    gaps: tuple[SentenceGapRecord, ...]


class AssociationRecord(Record):
    """What one model shows in a test of four word lists."""

    subject: str
    vectors: Literal["words", "sentences"]
    """Input embeddings of words (WEAT), or sentences that hold them (SEAT)."""
    effect: FigureRecord
    """In standard deviations, 2 at most; above 0 the first targets lie nearer to the first attributes."""
    p: float
    """Two-sided, of permutations of the target words."""
    change: FigureRecord | None = None
    """The effect less the control's, paired."""


class WordTestRecord(Record):
    """A test of four word lists."""

    targets: tuple[str, str]
    attributes: tuple[str, str]
    num_targets: tuple[int, int]
    num_attributes: tuple[int, int]
    num_templates: int
    least_p: float
    """The smallest p that so many words can give."""
    found: tuple[AssociationRecord, ...]


class GroupScoreRecord(Record):
    """An arm on the items of one group."""

    arm: str
    score: FigureRecord
    gap: FigureRecord
    """Its score on the group less that on all other items."""


class GroupRecord(Record):
    """Test items of one group."""

    name: str
    num_items: int
    num_clusters: int
    arms: tuple[GroupScoreRecord, ...]
    change: FigureRecord | None
    """The gap of `after` less that of `before`, paired; None where there is one of them only."""


class GroupedTaskRecord(Record):
    """One task, by a column."""

    task: str
    title: str
    """The metric and the task, in words."""
    higher_is_better: bool
    column: str
    before: str | None
    """The best arm on the generic model; None where the winner is that."""
    after: str
    """The arm that is recommended, or the best model."""
    control: str | None
    """Word counts, which have learnt from this task's rows only; None without them."""
    level: float
    """Of each interval, so that those of all groups hold together."""
    groups: tuple[GroupRecord, ...]
    left_out: dict[str, int] = {}
    """Groups that are too small -> their items."""
    num_missing: int = 0
    """Items without a value."""


class SubjectNameRecord(Record):
    """A model that was asked."""

    name: str
    describe: str
    num_seeds: int


class BiasRecord(Record):
    """The audit of a run or a study; each part is empty where it was not asked for."""

    format: Literal[1] = BIAS_FORMAT
    confidence: float
    subjects: tuple[SubjectNameRecord, ...] = ()
    control: str | None = None
    """The model before adaptation."""
    sentences: tuple[SentenceSetRecord, ...] = ()
    words: tuple[WordTestRecord, ...] = ()
    tasks: tuple[GroupedTaskRecord, ...] = ()

    def over(self, earlier: BiasRecord | None) -> BiasRecord:
        """This audit, with the parts of an earlier one that it did not ask for."""
        if earlier is None:
            return self
        kept = {
            name: getattr(earlier, name)
            for name in ("sentences", "words", "tasks")
            if not getattr(self, name)
        }
        if not self.subjects:
            kept |= {"subjects": earlier.subjects, "control": earlier.control}
        return self.model_copy(update=kept)


def write_bias(run: Run, record: BiasRecord) -> BiasRecord:
    """Write bias.json of a run or a study; what is in it then, parts of earlier audits included."""
    whole = record.over(read_bias(run))
    write_sealed(run.audit_path("bias"), whole.model_dump(mode="json"))
    return whole


def read_bias(run: Run) -> BiasRecord | None:
    """What `write_bias` wrote, or None.

    Raises: DataError for a file that was damaged or is of another format.
    """
    path = run.audit_path("bias")
    if not path.is_file():
        return None
    return validated(BiasRecord, read_sealed(path), str(path), BIAS_FORMAT)
