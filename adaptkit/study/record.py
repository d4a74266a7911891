"""The record of a study, study.json: the only reader and the only writer.

record = read_study("runs/tickets-1a2b3c4d")
record.arms, record.scores, record.budget.flops_per_seed
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from adaptkit.errors import DataError
from adaptkit.run import read_sealed, write_sealed
from adaptkit.run_record import Record, validated
from adaptkit.study.account_record import LeftOutRecord, PlanRecord, SpendRecord
from adaptkit.study.data_record import DataRecord
from adaptkit.study.forecast_record import ForecastRecord, LabelForecastRecord, Portion
from adaptkit.study.ladder_record import LadderRecord

STUDY_FILE = "study.json"
STUDY_FORMAT: Literal[3] = 3


class ArmRecord(Record):
    """One strategy."""

    name: str
    """`origin` in the text ledger, `origin+adaptation` in the jobs ledger; for people, never taken apart."""
    origin: str
    """What the weights start from; `baseline` for what answers without a language model."""
    adaptation: str | None = None
    """How the task is learnt; None in the text ledger and for baselines."""
    ledger: Literal["text", "jobs"]
    describe: str


class TaskRecord(Record):
    """What arms are scored on, and how the score is read."""

    name: str
    kind: str
    """`language`, or the kind of task."""
    metric: str
    higher_is_better: bool
    margin: float
    """Relative for text (a share of the best arm's score), absolute otherwise."""
    labels: tuple[str, ...] = ()
    controls: tuple[str, ...] = ()
    """Arms that a claim on it needs, of those that came after the first release: a study is judged by the
    arms that it could have run."""


class ScoreRecord(Record):
    """Where one score is: an arm, a seed, a portion of text and compute, a task."""

    arm: str
    seed: int
    share: float
    """Of the domain text."""
    compute: float = 1.0
    """Share of the FLOPs of the run that is compared."""
    labels: float = 1.0
    """Share of the task's labelled training rows."""
    task: str
    run: str
    """Name of the run that holds eval/<suite>.jsonl."""
    suite: str
    model_run: str | None = None
    """Name of the run whose model answered; None for the untouched base and where no model was made."""
    paid_by: tuple[str, ...] = ()
    """Runs whose cost this score took."""
    tuned_by: tuple[str, ...] = ()
    """Trials whose cost all seeds share."""
    text_bytes: float | None = None
    """Bytes of domain text that the language model read, each counted once."""
    read_bytes: float | None = None
    """The same with repeats counted."""
    read_labels: float | None = None
    """Labelled rows that a training on a task read, repeats counted; None where nothing was trained, and in
    studies without a forecast of labels."""

    @property
    def portion(self) -> Portion:
        return Portion(text=self.share, compute=self.compute, labels=self.labels)


class TrialRecord(Record):
    """One learning rate that was tried."""

    run: str
    learning_rate: float
    dev: float
    """What it was judged by on development data, lower is better."""
    diverged: bool = False
    """Its loss was no number; `dev` is then the worst score there is."""


class TuningRecord(Record):
    """The trials of one training, those of the grid first, the one that followed from them last."""

    title: str
    """`continued`, or `continued+full on ticket`: for people."""
    arm: str
    """An arm of the text ledger for a training on text, of the jobs ledger for one on a task."""
    task: str
    """`language` for a training on text."""
    trials: tuple[TrialRecord, ...]
    rate: float
    """The rate of the runs that count, on the whole text: the best one tried, corrected to their length."""


class ForgettingRecord(Record):
    """Where the scores of an arm of the text ledger, or of an origin of its own, on general text are."""

    arm: str
    seed: int
    run: str
    suite: str
    task: str | None = None
    """On whose rows' text the origin was trained; None for an arm of the text ledger."""


class BaseRecord(Record):
    """The generic model."""

    model: str
    """Folder or hub id, or what it was made from."""
    run: str | None = None
    """The run that made it."""
    params: int = 0
    """Its parameters; 0 where that is not known."""
    flops: float = 0.0
    """What making it took: measured, or 6 N D of its published tokens; 0 where that is not known."""


class BudgetRecord(Record):
    """What each arm could spend per task and seed."""

    flops_per_seed: float
    """Per arm, task and seed: what the whole pipeline may take."""
    text_flops_per_seed: float
    """What a training on text may take of it; all of it in a study without tasks."""
    unit: str
    asked: str
    task_share: float
    trials: int
    """Settings tried per arm, the same number for each."""
    held_equal: tuple[str, ...]


class PriceRecord(Record):
    """What an hour of the machine costs, and where that was read."""

    usd_per_hour: float
    source: str
    date: str


class ApiRecord(Record):
    """The API that arms asked, and what it charged."""

    name: str
    usd_per_million_in: float
    usd_per_million_out: float
    source: str
    date: str
    spent: float = 0.0
    """US dollars that the study paid; kept replies of others cost nothing."""


class DecisionRecord(Record):
    """What the user prefers among arms that none beats by more than the margin, and the numbers for it."""

    prefer: Literal["cost", "quality", "latency", "forgetting", "simplicity"] = "cost"
    requests_per_month: float = 0.0
    """0 where it was not stated."""
    months: float = 12.0
    """Over which a training is written off."""
    base_studies: float = 10.0
    """Studies among which the cost of the base is shared."""


class MachineRecord(Record):
    """The machine of the study, as measured before it ran."""

    flops_per_second: float
    device: str
    cores: int


class StudyRecord(Record):
    """study.json: all that a report, a verdict, an export or a demo needs to find the rest."""

    format: Literal[3] = STUDY_FORMAT
    name: str
    question: str
    command: str
    primary: str
    """The task that decides."""
    confidence: float
    arms: tuple[ArmRecord, ...]
    seeds: tuple[int, ...]
    shares: tuple[float, ...]
    """Shares of the domain text that were trained on, ascending, the last one 1."""
    tasks: tuple[TaskRecord, ...]
    data: DataRecord
    budget: BudgetRecord
    scores: tuple[ScoreRecord, ...]
    tuning: tuple[TuningRecord, ...] = ()
    spends: tuple[SpendRecord, ...] = ()
    left_out: tuple[LeftOutRecord, ...] = ()
    """Arms that could not be run."""
    without: tuple[str, ...] = ()
    """Arms or origins that the user took out."""
    plan: PlanRecord | None = None
    forgetting: tuple[ForgettingRecord, ...] = ()
    base: BaseRecord
    prepared_run: str | None = None
    """The run that holds the prepared data."""
    api: ApiRecord | None = None
    forecast: ForecastRecord | None = None
    """None where no smaller trainings were asked for."""
    label_forecasts: tuple[LabelForecastRecord, ...] = ()
    """One for each labelled task; none where no trainings with fewer labels were asked for."""
    ladder: LadderRecord | None = None
    """Models from scratch of other sizes; None where none were asked for."""
    price: PriceRecord | None = None
    decision: DecisionRecord = DecisionRecord()
    machine: MachineRecord | None = None


def runs_of(record: StudyRecord) -> set[str]:
    """The names of all runs that a study's record needs: of scores, models, costs, trials and data."""
    names = {record.base.run, record.prepared_run}
    for score in record.scores:
        names |= {score.run, score.model_run, *score.paid_by, *score.tuned_by}
    names |= {trial.run for tuning in record.tuning for trial in tuning.trials}
    names |= {forgotten.run for forgotten in record.forgetting}
    for rung in record.ladder.scores if record.ladder else ():
        names |= {rung.run, rung.model_run}
    return {name for name in names if name}


def is_study(folder: Path) -> bool:
    """Whether a folder holds a finished study."""
    return (folder / STUDY_FILE).is_file()


def read_study(folder: str | Path) -> StudyRecord:
    """The record of a finished study.

    Raises: DataError for a study that has not ended, or was made by an older release.
    """
    path = Path(folder) / STUDY_FILE
    if not path.is_file():
        fix = "run the same `adaptkit compare` again: finished stages are skipped"
        raise DataError("no finished study here: it holds no study.json", where=str(folder), fix=fix)
    value = read_sealed(path)
    return validated(StudyRecord, value if "format" in value else {"format": 1}, str(path), STUDY_FORMAT)


def write_study(folder: str | Path, record: StudyRecord) -> None:
    """Write study.json."""
    write_sealed(Path(folder) / STUDY_FILE, record.model_dump(mode="json"))
