"""Write into an exported classifier how far its confidence can be trusted, and when it should not answer."""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.audit.confidence import audit_rows, dev_rows
from adaptkit.audit.selective import Judged, fit_confidence
from adaptkit.data.score_table import with_probabilities
from adaptkit.errors import ConfigError
from adaptkit.export.record import ConfidenceRecord, MeasuredRecord
from adaptkit.export.source import Source
from adaptkit.run import Run, read_jsonl
from adaptkit.seal import check
from adaptkit.study.calibration import MIN_ITEMS
from adaptkit.study.record import read_study
from adaptkit.study.results import ItemRow
from adaptkit.study.statistics import Interval


def confidence_of(source: Source, accuracy: float | None = None) -> ConfidenceRecord | None:
    """Fit temperature and threshold on the development items of a classifier's run; judge them on its test.

    Args:
        accuracy: wanted of the items that it answers; None wants half as many errors as on all.
    Returns: None for a model that gives texts no one label, and for a run that kept no development items.
    Raises: ConfigError where an accuracy is wanted that cannot be had.
    """
    dev = _development_items(source)
    if len(dev) < MIN_ITEMS:
        if accuracy is None:
            return None
        what = f"{source.name} has no answers to {MIN_ITEMS} or more development items, each with one label"
        fix = "leave it out, or train the classifier again with this release and enough dev rows"
        raise ConfigError(what, where="--accuracy", fix=fix)
    fit = fit_confidence(Judged.of(dev), accuracy)
    if fit.wanted_threshold is None and accuracy is not None:
        what = f"even its surest answers to {len(dev)} development items are right less often than {accuracy}"
        raise ConfigError(what, where="--accuracy", fix="want less; `adaptkit audit` shows what it reaches")
    return ConfidenceRecord(
        temperature=fit.temperature,
        threshold=fit.wanted_threshold,
        wanted_accuracy=fit.wanted,
        num_fitted=len(dev),
        measured=_measured(source, dev, accuracy),
    )


def confidence_note(record: ConfidenceRecord | None) -> list[str]:
    """What people should know of it, in a sentence; none where nothing was fitted."""
    if record is None:
        return []
    fitted = f"its confidence was scaled on {record.num_fitted:,} development items"
    if record.threshold is None:
        return [f"{fitted}; no threshold makes {record.wanted_accuracy:.1%} of its answers right"]
    sentence = f"{fitted}; below {record.threshold:.3f} it abstains"
    if record.measured is None:
        return [f"{sentence}, which was not measured on other items"]
    answered, right = _percents(record.measured.answered), _percents(record.measured.accuracy)
    of_test = f"of {record.measured.num_items:,} test items it answers {answered}, of which {right} are right"
    return [f"{sentence}: {of_test}"]


def _development_items(source: Source) -> list[ItemRow]:
    if source.kind != "classify" or source.scored_run is None or source.suite is None:
        return []
    return with_probabilities(dev_rows(Run(source.scored_run), source.suite))


def _measured(source: Source, dev: Sequence[ItemRow], accuracy: float | None) -> MeasuredRecord | None:
    """What the threshold does on the run's test items; None where it has too few."""
    assert source.scored_run is not None and source.suite is not None
    path = Run(source.scored_run).items(source.suite)
    if not path.is_file():
        return None
    check(path)
    test = sorted(with_probabilities(list(read_jsonl(path))), key=lambda row: str(row["id"]))
    if len(test) < MIN_ITEMS:
        return None
    clusters, confidence = None, 0.95
    if source.study is not None and source.task is not None:
        study = read_study(source.study)
        confidence = study.confidence
        if (items := study.data.test_sets.get(source.task)) is not None:
            clusters = [items.cluster_of(str(row["id"])) for row in test]
    audit = audit_rows(source.name, source.suite, [(test, dev)], clusters, confidence, accuracy)
    if audit.wanted is None:
        return None
    handed = audit.wanted.share
    return MeasuredRecord(
        num_items=audit.num_items,
        confidence=confidence,
        answered=(1 - handed.mean, 1 - handed.high, 1 - handed.low),
        accuracy=_ends(audit.wanted.accuracy),
        accuracy_of_all=_ends(audit.accuracy),
    )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.mean, interval.low, interval.high


def _percents(ends: tuple[float, float, float]) -> str:
    mean, low, high = (100 * end for end in ends)
    return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"
