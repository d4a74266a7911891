"""When an own server pays: closed form against trying every volume, and what the sliders say. Home of
report.demo_view, report.sliders, study.breakeven, study.calibration and study.prices."""

from __future__ import annotations

import math
import re
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from fake_study import PORTIONS, PRICES, write_bench, write_study
from hypothesis import example, given, settings
from hypothesis import strategies as st

from adaptkit.errors import ConfigError
from adaptkit.report import charts_money
from adaptkit.report.demo_view import Choice, StudyView, break_even_words
from adaptkit.run import write_json
from adaptkit.study.breakeven import (
    HOURS_PER_MONTH,
    SECONDS_PER_MONTH,
    BreakEven,
    Prices,
    Training,
    Workload,
    api_usd_per_request,
    num_servers,
    own_usd_per_month,
    usd_per_1k_requests,
    weigh,
)
from adaptkit.study.calibration import calibrate, fit_temperature, soften
from adaptkit.study.forecast import size_text
from adaptkit.study.prices import Assumptions, assume
from adaptkit.study.results import collect

CHEAP_API = Prices(usd_per_hour=5.0, usd_in=0.01, usd_out=0.01)


def test_the_arithmetic_of_one_server_by_hand() -> None:
    work = Workload(
        requests_per_month=1e6, requests_per_s=2.0, used_share=0.5, tokens_in=1000, tokens_out=500
    )
    found = weigh(work, Prices(usd_per_hour=1.0, usd_in=0.5, usd_out=1.0), Training(hours=24, months=12))
    assert work.capacity == 2.0 * 0.5 * 730 * 3600 == 2_628_000
    assert found.num_servers == 1
    assert found.own == pytest.approx(730 + 24 / 12)
    assert found.api == pytest.approx(1e6 * (1000 * 0.5 + 500 * 1.0) / 1e6)
    assert found.first == pytest.approx(732 / 0.001)
    assert found.own_is_cheaper
    assert found.full_per_1k == pytest.approx(usd_per_1k_requests(1.0, 2.0)) == pytest.approx(1 / 7.2)


# `always` lies just behind the beginning of its step, by less than a millionth
@example(9.0, 2.5078125, 2.0, 16.15625, 1.0, 16.0, 57.4375, 2.0, 1.0)
@settings(max_examples=300, deadline=None)
@given(
    hour=st.floats(0.05, 10),
    usd_in=st.floats(0.01, 5),
    usd_out=st.floats(0.01, 10),
    speed=st.floats(0.01, 50),
    share=st.floats(0.1, 1),
    tokens_in=st.floats(5, 2000),
    tokens_out=st.floats(1, 500),
    hours=st.floats(0, 5000),
    months=st.sampled_from([1.0, 12.0, 36.0]),
)
def test_break_even_is_where_the_bills_cross(
    hour: float,
    usd_in: float,
    usd_out: float,
    speed: float,
    share: float,
    tokens_in: float,
    tokens_out: float,
    hours: float,
    months: float,
) -> None:
    work, prices = Workload(1e5, speed, share, tokens_in, tokens_out), Prices(hour, usd_in, usd_out)
    training = Training(hours, months)
    each, capacity = api_usd_per_request(work, prices), work.capacity
    server = HOURS_PER_MONTH * hour
    hypothesis.assume(
        abs(each * capacity - server) > 1e-3 * server
    )  # where bills are level, rounding decides

    def pays(volume: float, rounding: float = 1e-9) -> bool:
        return own_usd_per_month(volume, work, prices, training) <= volume * each * (1 + rounding)

    found = weigh(work, prices, training)
    if math.isinf(found.first):
        assert not any(pays(capacity * share / 7) for share in range(1, 3000, 3))
        return
    assert pays(found.first * (1 + 1e-9) + 1e-6)
    assert not any(pays(found.first * share / 300 * (1 - 1e-7)) for share in range(1, 300))
    if math.isfinite(found.always):
        begin = int(found.always / capacity)
        assert all(
            pays(step * capacity * (1 + 1e-7))
            for step in range(begin, begin + 20)
            if step * capacity >= found.always
        )
        start = begin * capacity  # of the step that it lies in; the end of the one before pays
        before = max(found.always * (1 - 1e-6), (start + found.always) / 2)
        assert found.always <= found.first * (1 + 1e-6) or not pays(before, 1e-12)


def test_servers_are_rented_whole() -> None:
    asked = (0.0, 0.4, 1.0, 1.01, 2.0, 2.5)
    assert [num_servers(volume * 7e5, 7e5) for volume in asked] == [1, 1, 1, 2, 2, 3]


def test_dearer_servers_slower_servers_and_more_training_move_it_up() -> None:
    work, prices, training = Workload(1e6, 5.0), Prices(0.4, 0.15, 0.6), Training(10)
    base = weigh(work, prices, training).first
    assert weigh(work, Prices(0.8, 0.15, 0.6), training).first > base
    assert weigh(work, prices, Training(50 * training.hours, training.months)).first > base
    assert weigh(work, Prices(0.4, 0.3, 0.6), training).first < base
    assert math.isinf(weigh(Workload(1e6, 0.01), prices, training).first)
    assert weigh(work, CHEAP_API, training).first == math.inf


def test_words_say_which_bill_is_smaller_and_where_that_turns() -> None:
    work = Workload(1e6, 5.0)
    text = break_even_words(weigh(work, Prices(0.4, 0.15, 0.6), Training()))
    assert "the API costs $165 a month, your own server $292" in text
    assert "pays from 1.77 M requests a month on" in text
    assert "never pays" in break_even_words(weigh(work, CHEAP_API, Training()))
    stairs = break_even_words(weigh(Workload(5e6, 1.6), Prices(0.4, 0.15, 0.6), Training()))
    assert "with gaps where one more server" in stairs and "at every volume above" in stairs


def bills(own: float, api: float, first: float, always: float) -> BreakEven:
    return BreakEven(own, api, 1, 0.0, 0.0, 0.0, first, always)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            bills(100, 200, 1e5, 1e5),
            "At this volume your own server costs $100 a month, the API $200. "
            "An own server pays from 100 k requests a month on.",
        ),
        (
            bills(200, 100, 1e6, 1e6),
            "At this volume the API costs $100 a month, your own server $200. "
            "An own server pays from 1 M requests a month on.",
        ),
        (
            bills(100, 100, 1e6, 3e6),
            "At this volume your own server costs $100 a month, the API $100. "
            "An own server pays from 1 M requests a month on (with gaps where one more server has just been "
            "rented), and at every volume above 3 M.",
        ),
        (
            bills(100, 200, 1e6, math.inf),
            "At this volume your own server costs $100 a month, the API $200. "
            "An own server pays from 1 M requests a month on (with gaps where one more server has just been "
            "rented).",
        ),
        (
            bills(200, 100, math.inf, math.inf),
            "At this volume the API costs $100 a month, your own server $200. "
            "At these prices an own server never pays: a full one costs more than the same requests at the "
            "API.",
        ),
    ],
)
def test_every_sentence_on_break_even(answer: BreakEven, sentence: str) -> None:
    assert break_even_words(answer) == sentence


def test_the_figure_starts_at_zero_and_marks_the_break_even() -> None:
    work, prices, training = Workload(1e6, 5.0), Prices(0.4, 0.15, 0.6), Training(1)
    figure = charts_money.bills(work, prices, training, weigh(work, prices, training))
    assert ">$0</text>" in figure.svg and "break-even 1.77 M" in figure.svg
    never = charts_money.bills(work, CHEAP_API, training, weigh(work, CHEAP_API, training))
    assert "break-even" not in never.svg
    many = Workload(1e9, 0.01)
    assert "<polyline" in charts_money.bills(many, prices, training, weigh(many, prices, training)).svg


@pytest.mark.parametrize(
    ("value", "text"), [(950, "950"), (20_000, "20 k"), (999_900, "1 M"), (1.234e6, "1.23 M"), (3e9, "3 G")]
)
def test_counts_are_short(value: float, text: str) -> None:
    assert charts_money.count_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0423, "$0.042"),
        (0.4, "$0.40"),
        (12.5, "$12.50"),
        (1240.2, "$1,240"),
        (1.234e6, "$1.23 M"),
        (0, "$0"),
    ],
)
def test_dollars_are_short(value: float, text: str) -> None:
    assert charts_money.usd(value) == text


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    study = write_study(tmp_path_factory.mktemp("study"), num_rows=200, portions=PORTIONS)
    write_bench(study)
    (study.parent / "prices.yaml").write_text(PRICES)
    return StudyView(study, study.parent / "prices.yaml")


def test_moving_the_dials_moves_the_answer(shown: StudyView) -> None:
    values = {dial.name: dial.value for dial in shown.dials()} | {"usd_per_hour": 0.1}
    first = shown.weigh(**values)
    for name in (
        "requests_per_month",
        "usd_per_hour",
        "data_bytes",
        "usd_out",
        "requests_per_s",
        "used_share",
        "months",
    ):
        assert shown.weigh(**values | {name: values[name] * 1.9}) != first, name
    assert 'data-break-even="' in first


def test_more_text_is_read_at_the_same_compute_and_no_further_than_was_checked(shown: StudyView) -> None:
    now = shown.forecast(shown.data_bytes)
    assert now.arm == "scratch" and "scratch is ahead of continued" in now.sentence
    assert shown.data_range == (shown.data_bytes / 8, 4 * shown.data_bytes)
    values = {dial.name: dial.value for dial in shown.dials()}
    hours = [
        shown.bill(Choice(**values | {"data_bytes": f * shown.data_bytes}), "scratch")[1].hours
        for f in (0.5, 1)
    ]
    assert hours[1] == hours[0] > 0


def test_less_text_turns_the_forecast_back_to_keeping_on_with_the_base(tmp_path: Path) -> None:
    levels = {"scratch": 1.75, "continued": 1.9}
    options = {"texts": tuple(levels), "tasks": ("language",), "portions": PORTIONS}
    study = write_study(tmp_path, bpb=levels, transfers={"continued": 30.0}, **options)
    shown = StudyView(study)
    assert shown.forecast(shown.data_bytes).arm == "scratch"
    little = shown.forecast(shown.data_bytes / 400)
    assert little.arm == "continued" and "scratch is behind continued" in little.sentence


def test_on_a_study_of_a_job_the_forecast_leaves_the_recommended_arm(tmp_path: Path) -> None:
    shown = StudyView(
        write_study(tmp_path, num_rows=60, num_documents=40, primary="rct_role", portions=PORTIONS)
    )
    assert shown.forecast(shown.data_bytes).arm == shown.answer.main.recommended == "tfidf"


def test_a_study_of_one_amount_says_that_it_cannot_tell(tmp_path: Path) -> None:
    shown = StudyView(write_study(tmp_path, num_rows=40, tasks=("language",)))
    forecast = shown.forecast(1e9)
    assert forecast.figure is None and forecast.arm == shown.answer.main.recommended
    assert forecast.sentence == (
        "The study did no smaller trainings (`forecast.share`), so it cannot say what more text would do."
    )


def test_a_study_of_one_side_has_nothing_to_compare_at_other_amounts(tmp_path: Path) -> None:
    shown = StudyView(
        write_study(tmp_path, tasks=("language",), texts=("generic", "scratch"), portions=PORTIONS)
    )
    forecast = shown.forecast(1e9)
    assert forecast.figure is None
    assert forecast.sentence == "The study has no pair of arms to compare at other amounts of text."


FORECAST = re.compile(
    r"With (?P<size>[\d.]+ \w+) of text, at the study's compute: scratch is (?P<relation>.+) continued "
    r"\((?P<mean>.\d\.\d+) bits per byte, 95% interval (?P<low>.\d\.\d+) to (?P<high>.\d\.\d+)\)\."
)


@pytest.mark.parametrize(
    ("bpb", "relation"),
    [
        (1.70, "ahead of"),
        (1.905, "within the margin of, or too uncertain against,"),
        (1.93, "within the margin of, or too uncertain against,"),
        (2.20, "behind"),
    ],
)
def test_the_forecast_says_what_its_interval_does(tmp_path: Path, bpb: float, relation: str) -> None:
    levels = {"continued": 1.93, "scratch": bpb}
    options = {"texts": tuple(levels), "bpb": levels, "num_documents": 60, "portions": PORTIONS}
    shown = StudyView(write_study(tmp_path, tasks=("language",), **options))
    forecast = shown.forecast(shown.data_bytes)
    said = FORECAST.fullmatch(forecast.sentence)
    assert said and said["relation"] == relation
    mean, low, high = (float(said[key].replace("\u2212", "-")) for key in ("mean", "low", "high"))
    margin = 0.01 * 1.93
    assert low <= mean <= high
    assert (high < -margin, low > margin) == (relation == "ahead of", relation == "behind")
    assert said["size"] == size_text(8.2e6)
    assert forecast.arm == ("scratch" if relation == "ahead of" else "continued")
    assert forecast.figure is not None
    assert forecast.figure.title == "Fitted difference to continued"
    assert forecast.figure.note == (
        "From laws fitted to the study's trainings, at its compute. Shaded: too small to matter."
    )


def test_the_answer_of_the_sliders_counts_servers_training_and_never(shown: StudyView) -> None:
    values = {dial.name: dial.value for dial in shown.dials()}
    text = shown.weigh(**values | {"requests_per_month": 1e3})
    assert "a month, 1 server<" in text and "written off over 12 months" in text
    assert "and 50 % of their measured speed is used" in text and "Training counted: scratch, " in text
    many = shown.weigh(**values | {"requests_per_month": 1e9})
    assert re.search(r"a month, \d+ servers<", many)
    never = shown.weigh(**values | {"usd_in": 1e-6, "usd_out": 1e-6})
    assert '<dd data-break-even="inf">never<small>at these prices</small>' in never
    assert "never<small>" not in text


def test_prices_come_from_the_file_or_the_study_and_from_nowhere_else(
    tmp_path: Path, shown: StudyView
) -> None:
    bare = assume(shown.results)
    assert (bare.usd_per_hour, bare.usd_in, bare.usd_out) == (None, None, None)
    listed = tmp_path / "prices.yaml"
    listed.write_text(PRICES)
    found = assume(shown.results, listed)
    assert found.usd_per_hour is not None and found.usd_in is not None and found.usd_out is not None
    assert (found.usd_per_hour.value, found.usd_per_hour.origin) == (0.4, "a.example, 2026-11-01")
    assert (found.usd_out.value, found.usd_in.origin) == (0.6, "An API: b.example, 2026-11-02")
    listed.write_text("server: {usd_per_hour: 0.4}\n")
    with pytest.raises(ConfigError, match="source"):
        assume(shown.results, listed)


def test_what_nobody_quoted_or_measured_is_left_out_with_the_key_to_set(tmp_path: Path) -> None:
    view = StudyView(write_study(tmp_path, num_rows=40, num_documents=40, tasks=("language",)))
    assert view.assumptions == Assumptions() and len(view.assumptions.missing()) == 5
    assert view.dials() == []
    text = view.weigh()
    assert "is left out" in text and "$" not in text and "data-break-even" not in text
    for key in ("server: {usd_per_hour", "budget.price", "api: {name", "api.price", "adaptkit bench STUDY"):
        assert key in text, key


def test_lengths_are_those_of_the_tasks_own_items(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_rows=40, num_documents=40, primary="rct_role")
    write_bench(study)
    results = collect(study)
    found = assume(results)
    corpus = results.record.data.corpora["rct_role"].test
    per_token = results.record.data.tokenizers["generic"].bytes_per_token
    assert found.tokens_in is not None and found.tokens_out is not None
    assert found.tokens_in.value == pytest.approx(corpus.num_bytes / corpus.documents / per_token)
    assert found.tokens_in.origin == "as the test items of rct_role are"
    assert 1 <= found.tokens_out.value < 12 / per_token and "answers of rct_role" in found.tokens_out.origin


def test_speed_is_the_measured_one_where_the_study_was_benchmarked(tmp_path: Path) -> None:
    study = write_study(tmp_path, num_rows=40, tasks=("language",))
    price = {"usd_per_hour": 0.33, "source": "c.example", "date": "2026-11-03"}
    levels = [{"concurrency": n, "requests_per_s": s} for n, s in ((1, 2.0), (8, 9.5), (32, 9.0))]
    models = [{"name": "own", "levels": levels}, {"name": "other", "levels": []}]
    load = {"input_tokens": 64, "output_tokens": 32}
    write_json(study / "bench.json", {"date": "2026-11-20", "price": price, "load": load, "models": models})
    found = assume(collect(study))
    assert (found.requests_per_s.value, found.requests_per_s.origin) == (
        9.5,
        "measured by adaptkit bench on 2026-11-20, 8 at once",
    )
    assert (found.tokens_in.value, found.tokens_out.value, found.usd_per_hour.value) == (64, 32, 0.33)
    write_json(study / "bench.json", {"requests_per_s": 4.0, "output_tokens_per_s": 128.0, "concurrency": 8})
    assert assume(collect(study)).requests_per_s.value == 4.0


def test_an_open_answer_is_told_as_one(tmp_path: Path) -> None:
    levels = {"scratch": 1.93, "continued": 1.93}
    shown = StudyView(write_study(tmp_path, num_rows=40, tasks=("language",), bpb=levels))
    assert "<h1>Not settled: " in shown.verdict() and "VERDICT: undecided on bits per byte" in shown.verdict()


def test_every_piece_of_the_page_is_there_and_asks_nothing_of_the_network(shown: StudyView) -> None:
    assert 'class="found">Measured by ' in shown.verdict() and "What it takes" in shown.verdict()
    assert "FLOPs" not in shown.verdict(), "it begins in the words of a board"
    page = shown.verdict() + shown.evidence() + shown.about()
    for text in (
        "Pretrain a small model",
        "All arms",
        "With more text or compute",
        "What this study cannot tell",
        "CC BY 4.0",
        "<svg",
    ):
        assert text in page, text
    assert "http" not in page


def test_temperature_finds_back_what_was_distorted() -> None:
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(4), 6000)
    truth = np.array([rng.choice(4, p=row) for row in true])
    for distortion in (0.4, 1.0, 2.5):
        assert fit_temperature(soften(true, distortion), truth) == pytest.approx(1 / distortion, rel=0.08)


def test_a_temperature_above_one_softens() -> None:
    (soft,), (sharp,) = (soften(np.array([[0.8, 0.2]]), temperature) for temperature in (2.0, 0.5))
    assert soft[0] == pytest.approx(2 / 3) and sharp[0] == pytest.approx(16 / 17)


def test_calibration_lowers_the_error_on_items_it_never_saw_and_keeps_the_order() -> None:
    rng = np.random.default_rng(1)
    true = rng.dirichlet(np.ones(3), 1200)
    sharp = soften(true, 0.3)
    items = [(row.tolist(), int(rng.choice(3, p=p))) for row, p in zip(sharp, true, strict=True)]
    found = calibrate(items[:600], items[600:])
    assert found is not None and (found.num_dev, found.num_test) == (600, 600)
    assert found.after < 0.5 * found.before
    softened = found.apply([0.7, 0.2, 0.1])
    assert sum(softened) == pytest.approx(1) and softened[0] > softened[1] > softened[2] and softened[0] < 0.7
    assert calibrate(items[:19], items[600:]) is None and calibrate(items[:600], []) is None


def test_a_month_has_730_hours() -> None:
    assert SECONDS_PER_MONTH == 365 * 24 * 3600 / 12
