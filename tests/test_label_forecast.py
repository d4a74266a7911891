"""Curves over the number of labels: drawn, chosen, predicted before the largest ran, and what they answer.

Home of study.label_forecast, study.label_answers, report.label_section, compare.choose_labels and
compare.labels_read.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_study import LABEL_SHARES, NUM_LABELS, MadeCurve, edit_study, write_study

from adaptkit.compare.choose_labels import choose_label_portions, label_flops, label_sentences
from adaptkit.data.drawing import draw_labels
from adaptkit.data.readers import Row
from adaptkit.report.label_section import label_parts
from adaptkit.study.arms import Arm
from adaptkit.study.budget import Budget
from adaptkit.study.flips import flips
from adaptkit.study.forecast import Measured
from adaptkit.study.forecast_record import LabelForecastRecord, Portion
from adaptkit.study.label_answers import LabelAnswers, answer_labels, rounded
from adaptkit.study.label_forecast import LabelForecast, Lack, Reading, measure_labels, predict_with_all
from adaptkit.study.results import Results, collect
from adaptkit.study.tasks.classify import Classify
from adaptkit.study.tasks.retrieve import Retrieve
from adaptkit.study.verdict import judge

ARMS = ("generic+prompt", "generic+lora", "generic+full")
CURVES = {"generic+lora": MadeCurve(0.25, 0.06, 0.1), "generic+full": MadeCurve(0.02, 0.2, 0.02)}
"""LoRA is ahead with few labels, full fine-tuning with many; prompting stays at .42."""
SMALL: dict[str, Any] = {
    "arms": ARMS,
    "texts": ("generic",),
    "num_documents": 30,
    "num_rows": 1000,
    "primary": "rct_role",
    "seed_noise": 0.003,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("labels"), label_curves=CURVES, **SMALL)


def measured(study: Path) -> tuple[Results, LabelForecast, LabelAnswers]:
    results = collect(study)
    (forecast,) = measure_labels(results)
    return results, forecast, answer_labels(results, forecast)


def true_crossing(arm: str, level: MadeCurve | float) -> float:
    """Labels from which a made arm is as good as another, or as a level."""
    for factor in np.geomspace(1 / 64, 4, 4000):
        other = level(factor) if isinstance(level, MadeCurve) else level
        if CURVES[arm](factor) >= other:
            return float(factor * NUM_LABELS)
    return np.inf


# Which labels


def rows_of(num: int, group_of: int = 1) -> list[Row]:
    labels = ["ab"[number % 2] for number in range(num - 1)] + ["rare"]
    return [
        Row({"text": f"t{i}", "label": label, "group": f"g{i // group_of}"}, "f", f"i{i}")
        for i, label in enumerate(labels)
    ]


def test_smaller_shares_lie_in_larger_ones_and_hold_every_label() -> None:
    rows = rows_of(400)
    for seed in (0, 1):
        shares = [{row.id for row in draw_labels(rows, share, seed)} for share in (1 / 32, 1 / 8, 1 / 2, 1.0)]
        assert [len(share) for share in shares] == [12, 50, 200, 400]
        assert all(small < large for small, large in zip(shares, shares[1:], strict=False))
        assert "i399" in shares[0], "the only row of its label"
    assert {r.id for r in draw_labels(rows, 1 / 8, 0)} != {r.id for r in draw_labels(rows, 1 / 8, 1)}
    assert draw_labels(rows[::-1], 1 / 8, 0) == draw_labels(rows, 1 / 8, 0)[::-1], "the order of rows is kept"


def test_whole_groups_are_drawn() -> None:
    drawn = draw_labels(rows_of(400, group_of=20), 1 / 4, 0)
    assert len(drawn) == 100 and len({row.cluster for row in drawn}) <= 8


# Which shares


def costs_of(rows: int = 4000, batch: int = 8) -> SimpleNamespace:
    size = SimpleNamespace(num_rows=rows, num_labels=5, batch_rows=batch)
    return SimpleNamespace(
        tasks={"t": size},
        task_scoring=lambda task, arm, tuning: 1e9,
        task_step=lambda task, arm: 1e9,
        task_steps_at_most=lambda task, arm: task.max_epochs * rows / batch,
    )


def config_of(share: float, why: str = "", metric: str = "accuracy") -> Any:
    kind = Classify()
    kind.why_no_label_curve = lambda task: why  # type: ignore[method-assign]
    task = SimpleNamespace(name="t", task_kind=kind, score=metric, max_epochs=8)
    arms = [Arm.parse(name) for name in (*ARMS, "generic+probe")]
    forecast = SimpleNamespace(labels_share=share)
    return SimpleNamespace(tasks=[task], forecast=forecast, arms_on=lambda task: arms)


RICH, POOR = (Budget(flops, flops, 1, 0.15, 3) for flops in (1e13, 1.001e12))
"""Where 8 passes over all labels are the limit, and where the budget pays for two."""


def test_three_shares_are_chosen_within_what_may_be_spent() -> None:
    chosen = choose_label_portions(config_of(0.5), RICH, costs_of())["t"]
    assert len(chosen) == 3 and sum(portion.labels for portion in chosen) <= 0.5
    assert chosen[-1].labels == 0.25
    assert choose_label_portions(config_of(0.0), RICH, costs_of()) == {}
    poor = choose_label_portions(config_of(0.5), POOR, costs_of())["t"]
    assert 4 * sum(portion.labels for portion in poor) <= 0.5, "8 passes over a share, 2 over all labels"
    assert choose_label_portions(config_of(0.5), RICH, costs_of(rows=40))["t"] == ()


def test_the_dry_run_says_what_fewer_labels_cost_or_why_there_are_none() -> None:
    costs = costs_of()
    config = config_of(0.5)
    portions = choose_label_portions(config, RICH, costs)
    said = label_sentences(config, RICH, costs, portions)
    arm = Arm.parse("generic+full")
    flops = sum(label_flops(config, RICH, costs, config.tasks[0], arm, portion) for portion in portions["t"])
    assert said[0].startswith("labels of t: 3 trainings more of each of 3 arms and seed")
    assert f"{flops:.2g} FLOPs at most beside the budget" in said[0] and "up to 4 times yours" in said[-1]
    assert "as forecast.labels_share is 0" in label_sentences(config_of(0.0), RICH, costs, {})[0]
    for config, reason in (
        (config_of(0.5, why="its labels are a set"), "its labels are a set"),
        (config_of(0.5, metric="own_score"), "own_score has no best value"),
    ):
        assert choose_label_portions(config, RICH, costs) == {"t": ()}
        assert reason in label_sentences(config, RICH, costs, {"t": ()})[0]
    config = config_of(0.5)
    config.tasks[0].task_kind = Retrieve()
    assert "its labels are not rows of one file" in label_sentences(config, RICH, costs, {"t": ()})[0]
    few = label_sentences(config_of(0.01), RICH, costs, {"t": ()})[0]
    assert "forecast.labels_share=0.01 pays for fewer than 3" in few


# The law


def test_what_lacks_is_counted_from_the_best_score() -> None:
    assert Lack("accuracy").of(np.array([0.75, 1.0])) == pytest.approx([0.25, 1e-6])
    assert Lack("accuracy").score(np.array([0.25])) == pytest.approx([0.75])
    assert Lack("mae").of(np.array([3.0])) == pytest.approx([3.0])
    assert Lack("mae").score(np.array([3.0])) == pytest.approx([3.0])
    assert Lack("spearman").of(np.array([-1.0])) == pytest.approx([2.0])
    assert not Lack("own_score").has_end and not Lack("own_error").has_end


def test_labels_beyond_what_the_budget_reads_count_for_nothing() -> None:
    reading = Reading(8, 1000.0)
    assert reading.place(1000) == reading.place(5000)
    assert reading.place(100).read < 6.7 * 100, "passes are worth less and less"
    assert Reading(8, None).place(100).read == 100


# Predicted before it ran, and answers


def test_the_run_with_all_labels_is_predicted_and_the_crossings_are_found(made: Path) -> None:
    results, forecast, answers = measured(made)
    assert all(check.held for check in forecast.checks) and forecast.reason == ""
    assert [curve.arm for curve in forecast.curves] == list(CURVES)
    assert [level.arm for level in forecast.levels] == ["generic+prompt"]
    found = {(each.arm, each.against): each for each in answers.crossings}
    assert set(found) == {
        ("generic+lora", "generic+prompt"),
        ("generic+full", "generic+prompt"),
        ("generic+full", "generic+lora"),
    }
    truth = true_crossing("generic+full", CURVES["generic+lora"])
    full = found["generic+full", "generic+lora"]
    assert full.low <= truth <= full.high and full.status == "at", full.sentence
    assert full.sentence.startswith("with your budget, generic+full catches generic+lora from ")
    assert "labels on (95% interval: " in full.sentence
    lora = found["generic+lora", "generic+prompt"]
    assert lora.status == "already" and lora.sentence.endswith("more labels keep it so")
    for each in answers.doublings:
        gain = CURVES[each.arm](2.0) - CURVES[each.arm](1.0)
        assert each.gain is not None and each.gain.low <= gain <= each.gain.high
        assert each.gain.high - each.gain.low < 0.12


def test_a_missed_or_late_prediction_answers_nothing(made: Path, tmp_path: Path) -> None:
    study = shutil.copytree(made.parent, tmp_path / "runs") / made.name
    (record,) = collect(study).record.label_forecasts

    def with_record(**fields: Any) -> tuple[Results, LabelForecast, LabelAnswers]:
        edit_study(study, label_forecasts=(record.model_copy(update=fields),))
        return measured(study)

    wrong = [
        row.model_copy(update={"low": 0.98, "high": 0.99}) if row.arm == "generic+full" else row
        for row in record.predictions
    ]
    results, forecast, answers = with_record(predictions=tuple(wrong))
    assert forecast.missed == ("generic+full",) and forecast.line("generic+full") is None
    full = next(each for each in answers.crossings if each.arm == "generic+full")
    said = "the curves did not predict generic+full with all labels: no forecast"
    assert (full.status, full.sentence) == ("not forecast", said)
    (part,) = label_parts(results, ((forecast, answers),))
    assert "did not predict generic+full with all labels: no forecast for it." in part.section.lead
    assert {row.outcome for row in part.section.checks} == {"held", "missed: no forecast"}
    _, forecast, answers = with_record(largest_begun=record.predicted - 1)
    assert forecast.curves == () and "before the prediction" in forecast.reason
    assert {each.status for each in answers.crossings} == {"not forecast"}
    empty = LabelForecastRecord(
        task="rct_role", num_labels=0, max_epochs=8, portions=(), flops=0.0, reason="no forecast: too few"
    )
    edit_study(study, label_forecasts=(empty,))
    results, forecast, answers = measured(study)
    (part,) = label_parts(results, ((forecast, answers),))
    assert part.section.lead == "No forecast: too few." and part.figure is None


def test_the_report_shows_curves_answers_and_every_training(made: Path) -> None:
    results, forecast, answers = measured(made)
    (part,) = label_parts(results, ((forecast, answers),))
    section = part.section
    assert part.figure is not None and part.figure.svg.count("band") >= 3
    assert section.lead.endswith("predicted before they began: 2 of 2 arms held.")
    questions = [row.question for row in section.answers]
    assert "From how many labels on is generic+full as good as generic+lora?" in questions
    twice = next(row.answer for row in section.answers if row.question.startswith("What would twice"))
    assert twice.startswith("+") and twice.endswith("accuracy.")
    assert [row.portion for row in section.cells][:4] == [
        f"{round(share * NUM_LABELS):,} labels" for share in (*LABEL_SHARES, 1)
    ]
    main = judge(results).main
    rows = {row.what: row for row in flips(results, main, labels=((forecast, answers),))}
    assert rows["More labels"].now == "4,000 labels"
    plain = {row.what: row for row in flips(results, main)}["More labels"]
    assert plain.turns == "not forecast: set `forecast.labels_share`"


def test_labels_that_the_budget_does_not_read_buy_nothing(made: Path, tmp_path: Path) -> None:
    study = shutil.copytree(made.parent, tmp_path / "runs") / made.name
    (record,) = collect(study).record.label_forecasts
    arms = tuple(arm.model_copy(update={"affordable_rows": 1000.0}) for arm in record.arms)
    edit_study(study, label_forecasts=(record.model_copy(update={"arms": arms}),))
    _, _, answers = measured(study)
    said = "the budget reads 25% of the labels, so more of them change nothing"
    assert [(each.gain, each.reason) for each in answers.doublings] == [(None, said)] * 2


def test_forecast_labels_have_two_digits() -> None:
    assert [rounded(value) for value in (7.4, 123, 2345.6, 98765)] == [7, 120, 2300, 99000]


# Known curves: how often the largest training is predicted


def test_known_curves_are_predicted_as_often_as_stated() -> None:
    """The short form of benchmarks/forecast_coverage.py --labels: power laws, and seeds of 4 %."""
    rng, reading, hits, widths = np.random.default_rng(3), Reading(8, None), 0, []
    for number in range(40):
        curve = MadeCurve(rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.2), rng.uniform(0.01, 0.5))

        def scores(share: float, curve: MadeCurve = curve) -> np.ndarray:
            return 1 - (1 - curve(share)) * (1 + 0.04 * rng.standard_normal(3))

        cells = [Measured(reading.place(share), scores(share)) for share in LABEL_SHARES]
        predicted = predict_with_all(f"arm {number}", "accuracy", cells, reading.place(1.0), 0.95)
        hits += predicted.low <= scores(1.0).mean() <= predicted.high
        widths.append(predicted.high - predicted.low)
    assert hits >= 36, "95 % intervals: fewer than 36 of 40 has a chance of 5 %"
    assert np.median(widths) < 0.15, "an interval of any width would hold"


def test_portions_of_labels_are_named() -> None:
    assert Portion(labels=0.0625).title == "6.25% of the labels"
