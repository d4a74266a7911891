"""Whether what is decided at one size of the models from scratch is decided the same at the next.

    ladder = measure_ladder(results)
    ladder.held, ladder.decided

A pair is two arms of the text ledger of which at least one starts from random weights; that one has another
model at each size, at the same FLOPs, and the others are the same at all. A pair is decided at a size where
its interval lies beyond the margin, or within it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

from adaptkit.data.score_table import ScoreTable
from adaptkit.errors import DataError
from adaptkit.run import Run, read_jsonl
from adaptkit.seal import check
from adaptkit.study.forecast import FROM_SCRATCH
from adaptkit.study.ladder_record import LadderRecord
from adaptkit.study.results import AGAIN, Results, tables_of
from adaptkit.study.scores import score_table
from adaptkit.study.statistics import Comparison, Interval, Replicates, resample

Decision = Literal["better", "worse", "equal", "open"]
Fate = Literal["held", "turned", "open", "undecided"]


@dataclass(frozen=True)
class Pair:
    """Two arms at one size, and what is decided between them.

    Attributes:
        decision: of the first against the second: beyond the margin, within it, or neither is shown.
    """

    arm: str
    against: str
    size: int
    decision: Decision


@dataclass(frozen=True)
class Step:
    """A pair at one size and at the next."""

    smaller: Pair
    larger: Pair

    @property
    def fate(self) -> Fate:
        """`open`: decided at the smaller size and not at the larger."""
        before, after = self.smaller.decision, self.larger.decision
        if before == "open":
            return "undecided"
        if after == "open":
            return "open"
        return "held" if before == after else "turned"


@dataclass(frozen=True)
class Rung:
    """An arm from scratch at one size."""

    arm: str
    size: int
    score: Interval


@dataclass(frozen=True)
class Ladder:
    """All sizes of a study."""

    record: LadderRecord
    rungs: tuple[Rung, ...]
    steps: tuple[Step, ...]
    confidence: float

    @property
    def decided(self) -> int:
        """Pairs that are decided at a size which has a next one."""
        return len(self.steps) - self.count("undecided")

    @property
    def held(self) -> int:
        """Those decided the same at the next."""
        return self.count("held")

    def count(self, fate: Fate) -> int:
        return sum(step.fate == fate for step in self.steps)


def measure_ladder(results: Results) -> Ladder | None:
    """The sizes of a finished study; None where there is one only.

    Raises: DataError that names the run whose scores are missing or do not fit.
    """
    record, language = results.record.ladder, results.language
    if record is None or language is None or len(record.sizes) < 2:
        return None
    own = [arm for arm in results.scored_arms(language.name) if arm.ledger == "text"]
    scratch = [arm.name for arm in own if arm.origin in FROM_SCRATCH]
    tables = {arm.name: tables_of(results.of(language.name, arm.name), language.metric) for arm in own}
    for arm in scratch:
        for size in record.sizes:
            if size != record.own:
                tables[_key(record, arm, size)] = tables_at(results, record, arm, size)
    replicates = resample(tables, results.clusters(language.name))
    rungs = tuple(
        Rung(arm, size, replicates.interval(_key(record, arm, size), results.confidence))
        for arm in scratch
        for size in record.sizes
    )
    names = [arm.name for arm in own]
    pairs = [pair for pair in combinations(names, 2) if set(pair) & set(scratch)]
    steps = tuple(
        Step(*(_pair(results, replicates, record, pair, size) for size in sizes))
        for sizes in pairwise(record.sizes)
        for pair in pairs
    )
    return Ladder(record, rungs, steps, results.confidence)


def _key(record: LadderRecord, arm: str, size: int) -> str:
    """The name of an arm from scratch at a size; at the study's own it is the arm itself."""
    return arm if size == record.own else f"{arm} at {size}"


def tables_at(results: Results, record: LadderRecord, arm: str, size: int) -> list[ScoreTable]:
    """The scores of an arm at another size, one table a seed, on the study's own test passages."""
    language = results.language
    assert language is not None
    ids = [str(row["id"]) for row in results.of(language.name, arm)[0].rows]
    tables = []
    mine = [score for score in record.scores if (score.arm, score.size) == (arm, size)]
    for score in sorted(mine, key=lambda score: score.seed):
        path = Run(results.path.parent / score.run).items(language.name)
        if not path.exists():
            raise DataError("the scores of another size are missing", where=str(path), fix=AGAIN)
        check(path)
        rows = sorted(read_jsonl(path), key=lambda row: str(row["id"]))
        if [str(row["id"]) for row in rows] != ids:
            what = f"{arm} at {size} parameters was scored on other passages than the study's arms"
            raise DataError(what, where=str(path), fix=AGAIN)
        tables.append(score_table(language.metric, rows))
    return tables


def _pair(
    results: Results, replicates: Replicates, record: LadderRecord, pair: Sequence[str], size: int
) -> Pair:
    scratch = {score.arm for score in record.scores}
    keys = [_key(record, arm, size) if arm in scratch else arm for arm in pair]
    assert results.language is not None
    margin = results.language.margin * min(replicates.mean(key) for key in keys)
    compared = replicates.compare(*keys, margin=margin, higher_is_better=False, confidence=results.confidence)
    return Pair(pair[0], pair[1], size, decision_of(compared))


def decision_of(compared: Comparison) -> Decision:
    """What an interval shows of the first arm."""
    if compared.outcome == "win":
        return "better"
    if compared.outcome == "loss":
        return "worse"
    within = -compared.margin <= compared.low and compared.high <= compared.margin
    return "equal" if within else "open"
