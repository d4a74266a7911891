"""What would change an answer: each row of the table with its number, or the reason why there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fake_study import PORTIONS, write_study
from tiny_results import TICKET, results_of

from adaptkit.run import write_json
from adaptkit.study.flips import distance_to_turning, flips
from adaptkit.study.forecast import measure
from adaptkit.study.forecast_answers import answer
from adaptkit.study.record import DecisionRecord, PriceRecord
from adaptkit.study.results import collect
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import interval_text, number, what_settles

GAIN = {"continued": [1.80, 1.801, 1.799], "scratch": [1.70, 1.701, 1.699]}
KEPT = {"continued": [1.70, 1.701, 1.699], "scratch": [1.80, 1.801, 1.799]}
NOISY = {"continued": [1.80, 1.801, 1.799], "scratch": [1.70, 1.86, 1.79]}
PRICE = PriceRecord(usd_per_hour=1.0, source="a list", date="2026-11-01")


def rows_of(results, forecast=None, answers=None):
    main = judge(results).main
    return main, {row.what: row for row in flips(results, main, forecast, answers)}


@pytest.mark.parametrize("scores", [GAIN, KEPT])
def test_a_decided_answer_says_how_far_it_is_from_changing(scores):
    main, rows = rows_of(results_of(scores))
    row = rows["More seeds or test items"]
    room = distance_to_turning(main)
    assert room > 0 and row.now == "3 seeds, 400 test items"
    assert row.turns == (
        f"scratch minus continued is now {interval_text(main.pair)}; "
        f"the answer changes if that moves by {number(room, main.pair)}"
    )


def test_the_distance_is_that_of_the_end_that_decides():
    gain = judge(results_of(GAIN)).main
    assert distance_to_turning(gain) == pytest.approx(-gain.pair.high - gain.margin)
    kept = judge(results_of(KEPT)).main
    assert distance_to_turning(kept) == pytest.approx(kept.margin + kept.pair.low)
    job = judge(
        results_of({"generic+full": [0.9] * 3, "continued+full": [0.5, 0.51, 0.49]}, task=TICKET)
    ).main
    assert distance_to_turning(job) == pytest.approx(job.margin - job.pair.high)


def test_an_open_answer_says_what_would_settle_it_and_a_single_arm_nothing():
    main, rows = rows_of(results_of(NOISY))
    assert rows["More seeds or test items"].turns == what_settles(main)
    _, rows = rows_of(results_of({"continued": [1.8] * 3}))
    assert rows["More seeds or test items"].turns == "nothing to compare with"


def test_an_answer_whose_best_arm_is_open_says_that_more_would_tell():
    scores = {"generic+full": [0.80, 0.805, 0.795], "generic+lora": [0.80, 0.78, 0.82]}
    main, rows = rows_of(results_of({**scores, "continued+full": [0.5, 0.505, 0.495]}, task=TICKET))
    assert main.decided and not main.settled
    assert rows["More seeds or test items"].turns.endswith("; more would tell which is better")


def test_more_text_and_compute_are_told_as_the_forecast_has_them(tmp_path: Path):
    _, rows = rows_of(results_of(GAIN))
    assert rows["More text or compute"].turns == "not forecast: set `forecast.share`"
    study = write_study(tmp_path, num_documents=40, num_rows=60, portions=PORTIONS)
    results = collect(study)
    forecast = measure(results)
    answers = answer(results, forecast)
    _, rows = rows_of(results, forecast, answers)
    told = [rows["More text"].turns, rows["More compute"].turns]
    assert told == [crossing.sentence for crossing in answers.crossings]
    assert rows["More text"].now == "5 portions of text and compute"
    job = next(task for task in judge(results).tasks if task.ledger == "jobs")
    row = flips(results, job, forecast, answers)[1]
    assert row.turns == f"not forecast for rct_role; in bits per byte, {answers.crossings[0].sentence}"
    none = dataclasses.replace(answers, crossings=())
    row = flips(results, job, forecast, none)[1]
    assert row.turns == "not forecast: that compares a model from scratch with a continued one"


def test_traffic_needs_a_price_and_a_speed():
    what = "Other traffic or prices"
    row = rows_of(results_of(GAIN))[1][what]
    assert (row.now, row.turns) == ("no price for an hour", "give `budget.price` to count in dollars")
    row = rows_of(results_of(GAIN, price=PRICE))[1][what]
    assert row.now == "traffic not stated"
    assert row.turns == "no contender's speed is known: run `adaptkit bench`"
    decision = DecisionRecord(requests_per_month=5e4)
    assert rows_of(results_of(GAIN, price=PRICE, decision=decision))[1][what].now == "50,000 requests a month"


def test_traffic_says_from_how_many_requests_on_another_contender_is_the_cheapest(tmp_path: Path):
    same = {"continued": [1.80] * 3, "scratch": [1.80, 1.801, 1.799]}
    results = results_of(same, price=PRICE)
    results.path = tmp_path
    level = {"concurrency": 1, "latency_ms": {"p95": 1.0}}
    models = [
        {"arm": "continued", "memory_bytes": 1.0, "levels": [level | {"requests_per_s": 1.0}]},
        {"arm": "scratch", "memory_bytes": 1.0, "levels": [level | {"requests_per_s": 10.0}]},
    ]
    write_json(tmp_path / "bench.json", {"date": "2026-11-20", "models": models})
    main, rows = rows_of(results)
    assert set(main.contenders) == {"continued", "scratch"}
    # One server at half of its speed does 1.3 million requests a month at 1 a second.
    assert rows["Other traffic or prices"].turns == (
        "continued from 1,000 requests a month on; scratch from 10,000,000 requests a month on"
    )


def test_another_preference_names_the_contender_that_it_would_recommend():
    results = results_of({"continued": [1.80] * 3, "scratch": [1.797, 1.798, 1.796]})
    row = rows_of(results)[1]["Another preference"]
    assert row.now == "prefer: cost"
    assert row.turns == (
        "continued if you prefer cost, latency, forgetting, simplicity; scratch if you prefer quality"
    )
