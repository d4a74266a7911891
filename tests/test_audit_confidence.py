"""What is measured of a classifier's confidence, against counts by hand and a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_study import write_study
from test_audit_selective import made_rows

from adaptkit.audit.confidence import DEV, HALVES, _halves, _judge, audit_confidence, audit_rows
from adaptkit.audit.selective import SHARES, Judged, fit_confidence
from adaptkit.run import Run, write_jsonl
from adaptkit.study.results import collect


def test_figures_are_those_of_test_items_by_what_development_items_taught() -> None:
    dev, test = made_rows(400, 2.0, seed=1), made_rows(600, 2.0, seed=2)
    audit = audit_rows("full", "queue", [(test, dev)], None)
    fit, items = fit_confidence(Judged.of(dev)), Judged.of(test)
    confidence = fit.confidence(items)
    assert (audit.fitted_on, audit.num_fitted, audit.num_items) == (DEV, 400, 600)
    assert audit.temperature == pytest.approx(fit.temperature)
    assert audit.accuracy.mean == pytest.approx(items.hit_N.mean())
    assert audit.excess_after.mean == pytest.approx(confidence.mean() - items.hit_N.mean())
    for step, threshold in zip(audit.handed, fit.thresholds, strict=True):
        answered = confidence >= threshold
        assert step.share.mean == pytest.approx(1 - answered.mean())
        assert step.accuracy.mean == pytest.approx(items.hit_N[answered].mean())
        assert step.gain.mean == pytest.approx(step.accuracy.mean - items.hit_N.mean())
        assert step.accuracy.low < step.accuracy.mean < step.accuracy.high
    assert [step.aimed for step in audit.handed] == list(SHARES)
    assert audit.wanted is not None and audit.wanted.thresholds == (fit.wanted_threshold,)
    assert sum(part.share for part in audit.bins) == pytest.approx(1.0, abs=0.05)


def test_too_sure_a_classifier_is_found_and_mended() -> None:
    audit = audit_rows("full", "queue", [(made_rows(800, 3.0, 1), made_rows(800, 3.0, 2))], None)
    assert audit.excess_before.low > 0.08 and audit.excess_after.low < 0 < audit.excess_after.high
    assert audit.error_after.mean < audit.error_before.mean / 2
    assert all(step.gain.low > 0 for step in audit.handed[1:])


def test_intervals_cover_the_truth_and_are_wider_where_items_belong_together() -> None:
    truth = Judged.of(made_rows(40_000, seed=99))
    dev = made_rows(500, seed=7)
    fit = fit_confidence(Judged.of(dev))
    expected = truth.hit_N[fit.confidence(truth) >= fit.thresholds[2]].mean()
    inside = 0
    for seed in range(12):
        step = audit_rows("a", "b", [(made_rows(200, seed=100 + seed), dev)], None).handed[2]
        inside += step.accuracy.low <= expected <= step.accuracy.high
    assert inside >= 10
    rows = made_rows(300, seed=3)
    copies = [{**row, "id": f"{row['id']}.{copy}"} for row in rows[:60] for copy in range(5)]
    together = [row["id"].partition(".")[0] for row in copies]
    alone, grouped = (audit_rows("a", "b", [(copies, dev)], clusters) for clusters in (None, together))
    wide, narrow = (one.accuracy.high - one.accuracy.low for one in (grouped, alone))
    assert wide > 1.7 * narrow and grouped.num_clusters == 60


def test_without_development_items_each_half_is_judged_by_the_other() -> None:
    rows = made_rows(400, 3.0)
    together = [f"document {number // 4}" for number in range(400)]
    audit = audit_rows("full", "queue", [(rows, [])], together)
    assert (audit.fitted_on, audit.num_fitted) == (HALVES, 200)
    assert audit.temperature == pytest.approx(3.0, rel=0.3)
    first, items = _halves(rows, together), Judged.of(rows)
    judged = _judge(rows, (), together, None)
    for own in (first, ~first):
        fit = fit_confidence(items.only(~own))
        assert judged.after_N[own] == pytest.approx(fit.confidence(items.only(own)), abs=1e-12)
        assert set(judged.thresholds_NS[own][:, 0]) == {fit.thresholds[0]}
    assert not {together[i] for i in np.flatnonzero(first)} & {together[i] for i in np.flatnonzero(~first)}
    assert audit.excess_after.low < 0.02 and abs(audit.excess_after.mean) < audit.excess_before.mean / 2


def test_one_seed_that_reaches_nothing_leaves_no_figure_for_the_wanted_accuracy() -> None:
    good, bad = made_rows(100), [{**row, "prediction": "b"} for row in made_rows(100)]
    pairs = [(good, good), (bad, bad)]
    assert audit_rows("a", "b", pairs, None, accuracy=0.9).wanted is None
    assert audit_rows("a", "b", pairs[:1], None, accuracy=0.7).wanted is not None


def test_a_study_is_audited_arm_by_arm_with_its_own_clusters_and_dev_rows(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_documents=40, num_rows=120, arms=("generic+full", "scratch+full"))
    results = collect(study)
    before = audit_confidence(results, "rct_role")
    assert {one.arm for one in before} == {"generic+full", "scratch+full", "tfidf"}
    assert {one.fitted_on for one in before} == {HALVES}
    assert audit_confidence(results, "language") == []
    for cell in results.of("rct_role", "scratch+full"):
        write_jsonl(Run(cell.run).items(cell.suite, "dev"), cell.rows[:60])
    after = {one.arm: one for one in audit_confidence(results, "rct_role", arms=["scratch+full"])}
    assert list(after) == ["scratch+full"] and after["scratch+full"].num_fitted == 60
    assert len(after["scratch+full"].temperatures) == 3
    assert np.isfinite(after["scratch+full"].accuracy.low)
