"""Judge what was claimed and predicted of a shape by paired intervals, and write it as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from shape_config import ClaimConfig, ShapeConfig

from adaptkit.run import read_jsonl
from adaptkit.study.scores import METRICS, score_table
from adaptkit.study.statistics import Interval, Replicates, resample

METRIC_OF = {"text": "bits_per_byte", "search": "ndcg_at_10", "labels": "accuracy"}
Items = dict[tuple[str, str], list[Path]]
"""Test and training -> files of item rows, one for each seed."""


@dataclass(frozen=True)
class Judged:
    """What was said of two trainings, and what was measured.

    Attributes:
        expected: least and most that the first was said to be ahead.
        measured: how far it is ahead; None where one of both did not run.
        outcome: holds where the interval lies in what was expected, does not hold where outside, else open.
    """

    test: str
    ahead: str
    of: str
    expected: tuple[float, float]
    measured: Interval | None
    outcome: str


def replicates(config: ShapeConfig, items: Items) -> dict[str, Replicates]:
    """Bootstrap replicates of every test that any training took."""
    made = {}
    for test, its in config.tests.items():
        files = {name: paths for (of_test, name), paths in items.items() if of_test == test and paths}
        if not files:
            continue
        rows = {name: [list(read_jsonl(path)) for path in paths] for name, paths in files.items()}
        metric = METRIC_OF[its.kind]
        first = next(iter(rows.values()))[0]
        groups = [str(row["group"]) for row in first] if "group" in first[0] else None
        tables = {name: [score_table(metric, seed) for seed in seeds] for name, seeds in rows.items()}
        made[test] = resample(tables, groups)
    return made


def judge(claim: ClaimConfig, config: ShapeConfig, drawn: dict[str, Replicates]) -> list[Judged]:
    """Each pair of a claim beside what was measured."""
    judged = []
    low, high = claim.by
    for ahead, of in claim.pairs():
        interval, outcome = None, "not run"
        if claim.test in drawn and {ahead, of} <= drawn[claim.test].scores.keys():
            better = METRICS[METRIC_OF[config.tests[claim.test].kind]].higher_is_better
            found = drawn[claim.test].compare(ahead, of, margin=0.0, higher_is_better=better)
            interval = Interval(found.difference, found.low, found.high)
            if not better:
                interval = Interval(-found.difference, -found.high, -found.low)
            outcome = "open"
            if interval.low > low and interval.high <= high:
                outcome = "holds"
            elif interval.high < low or interval.low > high:
                outcome = "does not hold"
        judged.append(Judged(claim.test, ahead, of, (low, high), interval, outcome))
    return judged


def report(config: ShapeConfig, items: Items, rates: dict[str, float]) -> tuple[str, dict[str, object]]:
    """The tables of a shape in Markdown, and the same as JSON.

    Args:
        rates: the learning rates that were chosen, of trainings that had several.
    """
    drawn = replicates(config, items)
    scored = [name for name in config.trainings if config.tests_of(name)]
    lines = [f"## {config.name}", "", config.source, "", f"| | {' | '.join(config.tests)} | rate |"]
    lines.append("|---|" + "---|" * (len(config.tests) + 1))
    scores: dict[str, dict[str, object]] = {}
    for name in scored:
        cells = []
        for test in config.tests:
            if test in drawn and name in drawn[test].scores:
                own = drawn[test].interval(name)
                seeds = drawn[test].scores[name].tolist()
                scores.setdefault(name, {})[test] = {**asdict(own), "seeds": seeds}
                cells.append(f"{own.mean:.4f} [{own.low:.4f}, {own.high:.4f}]")
            else:
                cells.append("")
        lines.append(f"| {name} | {' | '.join(cells)} | {rates.get(name, '')} |")
    said: dict[str, list[dict[str, object]]] = {}
    for title, claims in (("claimed", config.claimed), ("predicted", config.predicted)):
        judged = [pair for claim in claims for pair in judge(claim, config, drawn)]
        said[title] = [asdict(pair) for pair in judged]
        lines += ["", f"| {title} | ahead by | measured | |", "|---|---|---|---|"]
        lines += [_line(pair) for pair in judged]
    return "\n".join([*lines, ""]), {"name": config.name, "scores": scores, "rates": rates, **said}


def _line(pair: Judged) -> str:
    low, high = pair.expected
    expected = f"{low:g} to {high:g}" if high < 1e9 else f"more than {low:g}"
    measured = ""
    if pair.measured is not None:
        measured = f"{pair.measured.mean:+.4f} [{pair.measured.low:+.4f}, {pair.measured.high:+.4f}]"
    return f"| {pair.test}: {pair.ahead} before {pair.of} | {expected} | {measured} | {pair.outcome} |"
