"""Laws recovered from made trainings, the largest predicted before it ran, and what is answered then. Home of
study.law, study.forecast, study.forecast_answers, study.forecast_record, report.forecast_section and
compare.choose_portions."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from fake_study import DOMAIN_BYTES, PASSES, PORTIONS, MadeLaw, edit_study, write_study

from adaptkit.compare.choose_portions import _candidates, _most_telling, choose_portions, forecast_sentences
from adaptkit.report.forecast_section import forecast_section
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.budget import Budget
from adaptkit.study.forecast import measure, size_text
from adaptkit.study.forecast_answers import Span, answer, catches, cross, status_of
from adaptkit.study.forecast_record import ForecastRecord, Portion, reach_of
from adaptkit.study.law import MISFIT, Place, drawn_scores, fit
from adaptkit.study.results import collect

TEXTS = ("generic", "continued", "scratch")
SMALL = {"num_documents": 60, "tasks": ("language",), "texts": TEXTS}
CELLS = [Place(1.0, 0.25), Place(1 / 16, 0.5), Place(1.0, 0.5), Place(1.0, 1.0)]


def laws_of(values, places=CELLS, *, noise=0.002, from_base=False, num=300):
    rng = np.random.default_rng(0)
    drawn = np.array(values) + noise * rng.standard_normal((num, len(values)))
    return fit(places, drawn, np.full(len(values), noise), reference=4.0, from_base=from_base, rng=rng)


def study_of(tmp_path, **options):
    results = collect(write_study(tmp_path, portions=PORTIONS, **{**SMALL, **options}))
    forecast = measure(results)
    return results, forecast, answer(results, forecast)


# The law


@pytest.mark.parametrize("transfer", [0.0, 1.0])
def test_a_law_predicts_a_larger_run_and_a_smaller_text(transfer):
    made = MadeLaw(1.8, transfer)
    laws = laws_of([made(p.text, p.read / PASSES) for p in CELLS], from_base=transfer > 0)
    for place in (Place(1.0, 4.0), Place(0.25, 4.0), Place(1.0, 8.0)):
        low, middle, high = np.quantile(laws([place])[:, 0], [0.025, 0.5, 0.975])
        truth = made(place.text, place.read / PASSES)
        assert low <= truth <= high and abs(middle - truth) < 0.03 * truth
    assert np.median(laws(CELLS), axis=0) == pytest.approx(
        [made(p.text, p.read / 4) for p in CELLS], rel=0.01
    )


def test_repeated_text_is_worth_less_and_less_and_text_that_is_not_read_nothing():
    laws = laws_of([MadeLaw(1.8, 0.0)(p.text, p.read / PASSES) for p in CELLS])
    once, again, often = (np.median(laws([Place(1.0, read)])) for read in (1.0, 4.0, 40.0))
    assert once > again > often
    fresh = np.median(laws([Place(40.0, 40.0)]))
    assert fresh < often - 0.01, "new text teaches more than repeats"
    assert laws([Place(10.0, 4.0)]) == pytest.approx(laws([Place(4.0, 4.0)])), "unread text changes nothing"


def test_fewer_cells_farther_away_and_larger_residuals_widen_the_interval():
    made = [MadeLaw(1.8, 0.0)(p.text, p.read / PASSES) for p in CELLS]

    def width(laws, read=4.0):
        low, high = np.quantile(laws([Place(1.0, read)])[:, 0], [0.025, 0.975])
        return high - low

    all_cells = width(laws_of(made))
    assert width(laws_of(made[:3], CELLS[:3])) > all_cells
    assert width(laws_of(made), 8.0) > all_cells
    bent = [made[0], made[1], made[2] + 0.08, made[3]]
    assert width(laws_of(bent)) > 1.3 * all_cells
    exact = laws_of(made, noise=1e-6)
    assert np.median(exact.misfit) > 0.5 * MISFIT * 1.8, "no law is taken to be exact"


@pytest.mark.parametrize("early", [0.5, 1.0, 2.0])
def test_the_largest_run_is_predicted_though_the_slope_changed_before_it(early):
    """Below a quarter of the compute the exponent is `early` times as large."""
    predicted, widths = 0, []
    for floor in (0.3, 0.5, 0.7, 0.8):

        def made(place, floor=floor):
            share = place.read / 4
            power = max(share, 0.25) ** -0.35 * min(1.0, share / 0.25) ** (-0.35 * early)
            return 1.8 * (floor + (1 - floor) * power)

        places = [Place(1.0, 4 * share) for share in (1 / 16, 1 / 8, 1 / 4)]
        laws = laws_of([made(place) for place in places], places)
        low, high = np.quantile(laws([Place(1.0, 4.0)])[:, 0], [0.025, 0.975])
        predicted += low <= made(Place(1.0, 4.0)) <= high
        widths.append((high - low) / (made(places[0]) - made(Place(1.0, 4.0))))
    assert predicted >= 3 and max(widths) < 1, "an interval of any width would hold"


def test_a_slope_doubles_as_easily_as_it_halves():
    laws = laws_of([MadeLaw(1.8, 0.0)(p.text, p.read / PASSES) for p in CELLS], noise=1e-4, num=2000)
    before, after = laws([Place(1.0, 1.0), Place(1.0, 4.0)]).T
    low, middle, high = np.quantile(before - after, [0.05, 0.5, 0.95])
    assert low > 0, "no fall becomes a rise"
    assert np.log(high / middle) == pytest.approx(np.log(middle / low), rel=0.35)
    assert middle - low < 0.8 * (high - middle), "factors are not symmetric as differences"


def test_the_slope_of_a_model_that_knows_much_changes_little():
    def spread(transfer):
        laws = laws_of(
            [MadeLaw(1.8, transfer)(p.text, p.read / PASSES) for p in CELLS], from_base=transfer > 0
        )
        return laws.drift.spreads[laws.drift.num_within]

    assert spread(3.0) < 0.8 * spread(0.0)


def test_no_fitted_floor_or_scale_is_negative():
    laws = laws_of([2.0, 2.0, 2.05, 2.1])
    assert (laws.floor >= 0).all() and (laws.scale >= 0).all()


# Predicted before it ran


def test_a_prediction_that_holds_lets_the_laws_answer(tmp_path):
    _, forecast, answers = study_of(tmp_path)
    assert {check.arm for check in forecast.checks} == {"continued", "scratch"}, "generic learns nothing"
    assert all(check.held for check in forecast.checks) and forecast.reason == "" and forecast.missed == ()
    assert forecast.reach == 4.0 and [crossing.axis for crossing in answers.crossings] == ["text", "compute"]
    curve = forecast.curve("scratch")
    assert (
        curve.whole == Place(DOMAIN_BYTES, PASSES * DOMAIN_BYTES) and len(curve.points) == len(PORTIONS) + 1
    )
    assert max(abs(point.residual) for point in curve.points) < 0.03


def missed(study, arm):
    """Write down another prediction for an arm, which its largest run misses."""
    record = collect(study).record.forecast
    moved = [
        row.model_copy(update={"low": row.low + 1, "high": row.high + 1}) if row.arm == arm else row
        for row in record.predictions
    ]
    edit_study(study, forecast=record.model_copy(update={"predictions": tuple(moved)}))


def test_a_missed_interval_withdraws_the_forecast_in_words(tmp_path):
    study = write_study(tmp_path, portions=PORTIONS, **SMALL)
    missed(study, "scratch")
    results = collect(study)
    forecast = measure(results)
    answers = answer(results, forecast)
    assert forecast.missed == ("scratch",) and forecast.curve("scratch") is None
    said = "the curves did not predict the largest run of scratch: no forecast"
    assert [(each.status, each.sentence) for each in answers.crossings] == [("not forecast", said)] * 2
    assert [each.arm for each in answers.doublings] == ["continued"]
    section = forecast_section(results, forecast, answers, bills=())
    assert "largest run of scratch: no forecast for it" in section.lead
    assert {row.arm: row.outcome for row in section.checks} == {
        "continued": "held",
        "scratch": "missed: no forecast",
    }
    missed(study, "continued")
    results = collect(study)
    forecast = measure(results)
    assert forecast.reason == "the curves did not predict the largest run: no forecast"
    assert forecast.curves == () and answer(results, forecast).doublings == ()


def test_a_prediction_written_after_the_largest_run_answers_nothing(tmp_path):
    study = write_study(tmp_path, portions=PORTIONS, **SMALL)
    record = collect(study).record.forecast
    assert record.came_first
    edit_study(study, forecast=record.model_copy(update={"largest_begun": record.predicted - 1}))
    forecast = measure(collect(study))
    assert forecast.curves == () and "before the prediction" in forecast.reason


def test_a_study_without_smaller_trainings_says_so_or_says_nothing(tmp_path):
    study = write_study(tmp_path, **SMALL)
    assert measure(collect(study)) is None
    edit_study(study, forecast=ForecastRecord(portions=(), flops=0.0))
    results = collect(study)
    forecast = measure(results)
    assert "fewer than 3 smaller trainings" in forecast.reason
    section = forecast_section(results, forecast, answer(results, forecast), bills=())
    assert section.checks == () and "could be paid for: no forecast" in section.lead


# Answers


def test_the_text_from_which_scratch_catches_the_base_is_found_with_its_interval(tmp_path):
    results, forecast, answers = study_of(tmp_path, bpb={"scratch": 1.74, "continued": 1.76})
    text = answers.crossings[0]
    made = {"scratch": MadeLaw(1.74, 0.0), "continued": MadeLaw(1.76, 3.0)}
    grid = np.geomspace(1 / 16, 4, 2000)
    truth = next(g for g in grid if made["scratch"](g, 1) <= made["continued"](g, 1)) * DOMAIN_BYTES
    assert text.low <= truth <= text.high
    assert text.sentence[0].islower() and (text.arm, text.against) == ("scratch", "continued")
    row = forecast_section(results, forecast, answers, bills=()).answers[0]
    assert row.question.startswith("From how much text on") and row.answer.endswith(".")


def test_where_a_row_of_gaps_closes_is_found_between_the_factors():
    factors = np.array([1.0, 2.0, 4.0])
    gaps = np.array([[2.0, 1.0, -1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0], [1.0, 0.0, -1.0]])
    assert catches(gaps, factors) == pytest.approx([2 * math.sqrt(2), 0.0, math.inf, 2.0])


SPAN = Span("text", 1 / 16, 4.0, 8e6, 8e6)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ((4e6, 2e6, 8e6), "at"),
        ((4e6, 1e6, 8.1e6), "not forecast"),
        ((4e6, 2e6, math.inf), "not forecast"),
        ((0.0, 0.0, 1e6), "already"),
        ((0.0, 0.0, 8e6), "not forecast"),
        ((math.inf, math.inf, math.inf), "beyond"),
        ((math.inf, 9e6, math.inf), "not forecast"),
    ],
)
def test_only_a_narrow_interval_is_an_answer(ends, status):
    assert status_of(*ends, SPAN) == status


@dataclasses.dataclass(frozen=True)
class FlatCurve:
    """A curve whose laws all lie at given scores."""

    arm: str
    values: np.ndarray
    whole: Place = Place(8e6, 3.2e7)

    def laws(self, places):
        return np.broadcast_to(self.values, (100, len(places)))


def test_every_sentence_of_a_crossing_word_for_word():
    num = len(SPAN.factors)
    level = FlatCurve("continued", np.full(num, 2.0))
    behind = cross(FlatCurve("scratch", np.full(num, 2.1)), level, SPAN, 0.95)
    assert behind.sentence == (
        "at your compute, scratch does not catch continued within 4 times your text (95% confidence); "
        "beyond that nothing is forecast"
    )
    ahead = cross(FlatCurve("scratch", np.full(num, 1.9)), level, SPAN, 0.95)
    assert ahead.sentence == (
        "at your compute, scratch is as good as continued from the least that was tried on; "
        "more text keeps it so"
    )
    falling = FlatCurve("scratch", 2.0 - 0.1 * np.log(SPAN.factors * 2))
    at = cross(falling, level, SPAN, 0.95)
    assert at.value == pytest.approx(4e6, rel=0.01)
    assert at.sentence == (
        "at your compute, scratch catches continued from 4 MB on (95% interval: 4 MB to 4 MB)"
    )
    rising = Span("compute", 1 / 16, 4.0, 1e15, 8e6)
    text = cross(falling, level, rising, 0.9).sentence
    assert text == (
        "on your text, scratch catches continued from 0.5 times your compute on "
        "(90% interval: 0.5 times your compute to 0.5 times your compute)"
    )


def test_twice_the_text_buys_nothing_where_it_is_not_read(tmp_path):
    results, forecast, answers = study_of(tmp_path)
    scratch = next(each for each in answers.doublings if each.arm == "scratch")
    made = MadeLaw(1.71, 0.0)
    assert scratch.compute.low <= made(1, 1) - made(1, 2) <= scratch.compute.high
    assert scratch.text.low <= made(1, 1) - made(2, 1) <= scratch.text.high and scratch.reason == ""
    unread = dataclasses.replace(forecast.curves[0].points[-1], place=Place(8e6, 2e6))
    curve = dataclasses.replace(forecast.curves[0], points=(*forecast.curves[0].points[:-1], unread))
    narrow = dataclasses.replace(forecast, curves=(curve,))
    assert "reads 25% of the text" in answer(results, narrow).doublings[0].reason
    short = answer(results, dataclasses.replace(narrow, reach=1.5)).doublings[0]
    assert short.text is None and short.reason.startswith("not forecast")


# Which smaller trainings


@pytest.mark.parametrize("passes", [0.05, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_chosen_portions_form_a_cross_within_their_share(passes, share):
    chosen = _most_telling(list(_candidates(passes)), passes, share)
    assert len(chosen) == 4 and len(set(chosen)) == 4
    assert sum(portion.compute for portion in chosen) <= share
    most = max(portion.compute for portion in chosen)
    assert Portion(compute=most) in chosen, "the largest of them has all of the text, as the largest run has"
    assert sum(portion.text < 1 for portion in chosen) == 2
    assert all(passes * p.compute / p.text >= 2 for p in chosen if p.text < 1), "less text must be repeated"


def costs_of(step: float, scoring: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(
        texts=SimpleNamespace(domain=4e6),
        bytes_per_step=1e3,
        text_tokens=lambda origin, flops: 4e6,
        text_step=lambda origin: step,
        text_scoring=lambda origin: scoring,
    )


def portions_for(share, costs, least_steps=192):
    forecast = SimpleNamespace(share=share, least_steps=least_steps)
    config = SimpleNamespace(forecast=forecast, base="", base_flops=1.0)
    budget = Budget(1e12, 1e12, 1, 0.15, 3)
    arms = [Arm(Origin.SCRATCH), Arm(Origin.CONTINUED)]
    portions = choose_portions(config, budget, costs, arms)
    return portions, forecast_sentences(config, budget, costs, arms, portions)


def test_a_study_without_a_share_trains_and_says_nothing_more():
    assert portions_for(0.0, costs_of(1e9)) == ((), [])


def test_what_the_share_buys_is_said_before_anything_runs():
    portions, said = portions_for(0.5, costs_of(2e8))
    assert len(portions) == 4 and reach_of(portions) == 4.0
    learnt = sum(portion.compute for portion in portions) * Budget(1e12, 1e12, 1, 0.15, 3).run(1e12)
    assert said[0].startswith(
        f"forecast: 4 smaller trainings of each arm and seed, which learn with {learnt:.2g} FLOPs"
    )
    assert all(f"  {portion.title}" in said for portion in portions)
    assert any("up to 4 times yours" in line for line in said)
    portions, said = portions_for(0.5, costs_of(1e11))
    assert portions == () and "pays for fewer than 3 smaller trainings of 192 steps" in said[0]
    assert portions_for(0.5, costs_of(2e8, scoring=0.99e12))[0] == (), "scoring is paid first"


@pytest.mark.parametrize("least_steps", [64, 192])
def test_no_smaller_training_is_so_short_that_it_falls_in_another_way(least_steps):
    learnt = Budget(1e12, 1e12, 1, 0.15, 3).run(1e12)
    for step in (1e8, 2e8, 4e8, 8e8):
        portions, _ = portions_for(1.0, costs_of(step), least_steps)
        assert all(portion.compute * learnt / step >= least_steps for portion in portions)
    assert portions_for(0.5, costs_of(8e8), 64)[0] and not portions_for(0.5, costs_of(8e8), 192)[0]


def test_one_training_with_less_text_is_better_than_none():
    candidates = [Portion(compute=0.25), Portion(compute=0.5), Portion(text=0.125, compute=0.25)]
    chosen = _most_telling(candidates, 1.0, 1.0)
    assert sorted(chosen, key=candidates.index) == candidates
    assert _most_telling(candidates, 1.0, 0.9) == []


def test_drawn_laws_fall_with_text_and_compute():
    places = [Place(1, 0.25), Place(1, 1), Place(0.05, 1)]
    small, large, worn = drawn_scores(places, 400, from_base=False, rng=np.random.default_rng(0)).mean(axis=0)
    assert large < worn < small


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(999, "999 B"), (1000, "1 kB"), (8.2e6, "8.2 MB"), (1.25e9, "1.25 GB"), (3e12, "3 TB")],
)
def test_sizes_are_short(num_bytes, text):
    assert size_text(num_bytes) == text
