"""What figures draw and say: bands, marks and captions against the numbers that they stand for. Home of
report.charts, report.charts_detail and report.charts_money."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fake_study import DOMAIN_BYTES, PASSES, PORTIONS, write_study
from tiny_results import LANGUAGE, TICKET, results_of

from adaptkit.report import charts, charts_detail, charts_money, figures, tables
from adaptkit.report.charts import RowMark, Track
from adaptkit.report.charts_detail import CurvePanel, Pick
from adaptkit.report.svg import chip
from adaptkit.report.write import arm_scores
from adaptkit.run import write_json
from adaptkit.study.arms import Origin
from adaptkit.study.breakeven import Prices, Training, Workload, weigh
from adaptkit.study.forecast import measure
from adaptkit.study.forecast_record import WHOLE
from adaptkit.study.front import front
from adaptkit.study.record import ArmRecord, MachineRecord, PriceRecord
from adaptkit.study.results import Cell, Cost, collect
from adaptkit.study.scores import score_table, within_metric
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict import judge

ARM = ArmRecord(ledger="jobs", name="scratch+full", origin="scratch", adaptation="full", describe="")
WIN = {"continued": [1.80, 1.801, 1.799], "scratch": [1.70, 1.701, 1.699]}
CLOSE = {"continued": [1.7, 1.701, 1.699], "scratch": [1.69, 1.72, 1.66], "placebo": [1.79, 1.791, 1.789]}


class Drawing:
    """A figure's shapes, read back in the units of its axes through the ticks."""

    def __init__(self, figure: charts.Figure):
        self.root = ET.fromstring(figure.svg)
        self.texts = [text.text or "" for text in self.root.iter("text")]

    def classed(self, tag: str, css: str) -> list[dict[str, str]]:
        return [item.attrib for item in self.root.iter(tag) if css in item.attrib.get("class", "").split()]

    def x_value(self, pixel: float) -> float:
        ticks = [t for t in self.root.iter("text") if t.attrib["class"] == "tick"]
        ticks = [t for t in ticks if t.attrib["text-anchor"] == "middle"]
        values = [float((t.text or "").replace("\u2212", "-")) for t in ticks]
        places = [float(t.attrib["x"]) for t in ticks]
        slope, start = np.polyfit(places, values, 1)
        return float(start + slope * pixel)

    def band(self) -> tuple[float, float]:
        """Left and right end of the first shaded band."""
        rect = self.classed("rect", "margin")[0]
        left = float(rect["x"])
        return self.x_value(left), self.x_value(left + float(rect["width"]))


# Differences


def test_the_shaded_band_is_the_margin_on_either_side_of_zero():
    results = results_of(WIN | {"placebo": [1.79, 1.791, 1.789]})
    verdict = judge(results)
    assert verdict.main.margin == pytest.approx(0.017)
    drawing = Drawing(figures.all_differences(verdict.main, results))
    assert drawing.band() == pytest.approx((-0.017, 0.017), abs=2e-4)
    assert len(drawing.classed("rect", "margin")) == 2, "one for each row"
    zero = drawing.classed("line", "zero")[0]
    assert drawing.x_value(float(zero["x1"])) == pytest.approx(0.0, abs=2e-4)


def test_a_whisker_spans_its_interval():
    row = RowMark(ARM, "a row", Interval(-0.1, -0.15, -0.05), "text")
    figure = charts.whiskers("title", "description", [row], axis="axis", reference=0.0, margin=0.02)
    drawing = Drawing(figure)
    across = [line for line in drawing.classed("line", "whisker") if line["y1"] == line["y2"]][0]
    ends = drawing.x_value(float(across["x1"])), drawing.x_value(float(across["x2"]))
    assert ends == pytest.approx((-0.15, -0.05), abs=1e-3)
    square = [float(point.split(",")[0]) for point in drawing.classed("polygon", "mark")[0]["points"].split()]
    assert drawing.x_value(sum(square) / len(square)) == pytest.approx(-0.1, abs=1e-3)
    assert drawing.band() == pytest.approx((-0.02, 0.02), abs=1e-3)


@pytest.mark.parametrize(("low", "high", "stands_out"), [(0.199, 0.201, True), (0.1, 0.3, False)])
def test_an_interval_shorter_than_its_marker_stands_out(low, high, stands_out):
    rows = [RowMark(ARM, "a", Interval(0.2, low, high), ""), RowMark(ARM, "b", Interval(2, 1.9, 2.1), "")]
    drawing = Drawing(charts.whiskers("t", "d", rows, axis="axis", reference=0.0))
    ends = [line for line in drawing.classed("line", "whisker") if line["x1"] == line["x2"]][:2]
    assert all((float(line["y2"]) - float(line["y1"]) > 16) == stands_out for line in ends)


def test_intervals_end_where_the_metric_ends():
    assert within_metric("accuracy", Interval(0.97, 0.9, 1.04)) == Interval(0.97, 0.9, 1.0)
    assert within_metric("bits_per_byte", Interval(0.02, -0.03, 0.07)) == Interval(0.02, 0.0, 0.07)


def test_no_interval_of_a_report_reaches_past_its_metric():
    seeds = {"generic+full": [0.99, 1.0, 1.0], "continued+full": [0.01, 0.0, 0.0]}
    results = results_of(seeds, task=TICKET)
    stretched = results.replicates("ticket").interval("generic+full", results.confidence)
    assert stretched.high > 1 and results.interval("ticket", "generic+full").high == 1
    scores = tables.main_table(results).rows + tables.detail_tables(results)[0].rows
    ends = [float(end) for row in scores for cell in row.cells for end in cell.interval.split(" to ")]
    ends += [end for row in arm_scores(results) for end in (row["low"], row["high"])]
    ends += [end for row in front(results, TICKET) for end in (row.score.low, row.score.high)]
    assert len(ends) >= 16 and all(0 <= end <= 1 for end in ends)


def test_the_band_stands_around_the_reference_and_is_left_out_without_a_margin():
    row = RowMark(ARM, "a row", Interval(2.2, 2.1, 2.3), "text")
    with_margin = charts.whiskers("t", "d", [row], axis="axis", reference=2.0, margin=0.05)
    assert Drawing(with_margin).band() == pytest.approx((1.95, 2.05), abs=2e-3)
    without = charts.whiskers("t", "d", [row], axis="axis", reference=2.0)
    assert float(Drawing(without).classed("rect", "margin")[0]["width"]) == 0


def test_arms_of_the_text_ledger_have_a_shape_each_for_prints_without_colour():
    names = [origin.value for origin in Origin if origin.has_text_arm] + ["baseline"]
    shapes = {re.sub(r'class="chip o-[^"]*"', "", chip(name, "")) for name in names}
    assert len(shapes) == len(names)
    adapters = {chip(name, "lora").partition(">")[2] for name in names}
    assert adapters == {chip("continued-lora", "").partition(">")[2]}, "of a task, that of the adaptation"


def test_figures_and_legend_draw_the_shape_of_a_text_arm():
    scores = {"generic": [2.0, 2.0], "placebo": [1.9, 1.9], "scratch": [1.7, 1.7], "continued": [1.8, 1.8]}
    results = results_of(scores, machine=MachineRecord(flops_per_second=1e12, device="CPU", cores=2))
    drawing = Drawing(figures.all_differences(judge(results).main, results))
    assert len(drawing.classed("circle", "hollow")) == 1, "placebo"
    assert len(drawing.classed("circle", "mark")) == 1, "generic"
    assert dict(figures.origins(results))["placebo"] == chip("placebo", "")
    jobs = results_of({"tapt+full": [0.7, 0.71], "generic+full": [0.7, 0.71]}, task=TICKET)
    assert dict(figures.origins(jobs))["tapt"] == chip("tapt", "full")


def test_what_lies_outside_a_plot_is_an_arrow():
    rows = [
        RowMark(ARM, f"row {i}", Interval(v, v - 0.01, v + 0.01), "") for i, v in enumerate((0.1, 0.11, 0.12))
    ]
    far = RowMark(ARM, "far", Interval(9.0, 8.9, 9.1), "")
    inside = Drawing(charts.whiskers("t", "d", rows, axis="a", reference=0.0, margin=0.01))
    assert all(len(points["points"].split()) == 4 for points in inside.classed("polygon", "mark"))
    outside = Drawing(charts.whiskers("t", "d", [*rows, far], axis="a", reference=0.0, margin=0.01))
    (arrow,) = [p["points"] for p in outside.classed("polygon", "mark") if len(p["points"].split()) == 3]
    tip, *back = (float(point.split(",")[0]) for point in arrow.split())
    assert tip > max(back), "it points to where the value lies"


def test_words_of_the_main_difference():
    results = results_of(CLOSE)
    verdict = judge(results)
    assert (verdict.main.recommended, verdict.main.contenders) == ("continued", ("continued", "scratch"))
    figure = figures.main_difference(verdict, results)
    assert figure.title == "Difference to continued"
    assert figure.note == (
        "Shaded: differences declared too small to matter. Whiskers: intervals that hold together."
    )
    texts = Drawing(figure).texts
    assert "scratch" in texts and "placebo" not in texts, "of the arms that are behind, none"
    assert "difference in bits per byte" in texts
    assert texts.index("\u2190 better") < texts.index("worse \u2192")


def test_the_main_difference_shows_the_rival_where_no_other_contender_is_left():
    results = results_of(WIN | {"placebo": [1.79, 1.791, 1.789]})
    verdict = judge(results)
    assert verdict.main.contenders == ("scratch",) and verdict.main.rival == "placebo"
    texts = Drawing(figures.main_difference(verdict, results)).texts
    assert "placebo" in texts and "continued" not in texts
    alone = results_of({"continued": [1.8, 1.8]})
    assert figures.main_difference(judge(alone), alone) is None
    assert figures.all_differences(judge(alone).main, alone) is None


def test_hints_turn_round_where_more_is_better():
    results = results_of({"generic+lora": [0.7, 0.71], "scratch+full": [0.8, 0.81]}, task=TICKET)
    texts = Drawing(figures.main_difference(judge(results), results)).texts
    assert texts.index("\u2190 worse") < texts.index("better \u2192") and "\u2190 better" not in texts
    assert "difference in accuracy" in texts


@pytest.mark.parametrize("task", [LANGUAGE, TICKET])
def test_differences_stand_best_first_against_the_recommended_arm(task):
    scores = {"generic": [0.60, 0.601, 0.599], "placebo": [0.70, 0.701, 0.699]}
    scores |= {"scratch": [0.80, 0.801, 0.799], "continued": [0.90, 0.901, 0.899]}
    results = results_of(scores, task=task, num_items=2000)
    verdict = judge(results).main
    figure = figures.all_differences(verdict, results)
    names = [text for text in Drawing(figure).texts if text in scores]
    best_first = ["scratch", "placebo", "generic"]
    if task is LANGUAGE:
        best_first = ["placebo", "scratch", "continued"]
    assert names == best_first
    assert verdict.recommended == ("generic" if task is LANGUAGE else "continued")
    assert figure.note == (
        f"Each arm minus {verdict.recommended}, the recommended one, in intervals that hold together "
        "with 95% confidence."
    )
    title = "bits per byte" if task is LANGUAGE else "accuracy on ticket"
    assert figure.title == f"Difference to {verdict.recommended}: {title}"
    assert Drawing(figure).band()[1] == pytest.approx(0.006 if task is LANGUAGE else 0.01, abs=1e-3)


# Quality against cost


def test_cost_figures_say_which_way_is_better(tmp_path):
    arms = ("generic+lora", "scratch+full")
    texts = ("continued", "scratch")
    study = write_study(tmp_path, num_documents=40, num_rows=60, arms=arms, texts=texts, baselines=False)
    results = collect(study)
    compute, time, task = figures.cost_figures(results)
    assert compute.note == time.note == "Lower is better."
    assert task.note == "Higher is better."
    assert [figure.title for figure in (compute, time, task)] == [
        "Bits per byte against compute",
        "Bits per byte against time",
        "Accuracy against compute: rct_role",
    ]
    assert "training FLOPs per seed" in Drawing(compute).texts


@pytest.mark.parametrize(
    ("seconds", "unit", "ticks"), [(60, "seconds", "60"), (600, "minutes", "10"), (36000, "hours", "10")]
)
def test_time_is_given_in_a_unit_that_fits(seconds, unit, ticks):
    costs = dict.fromkeys(WIN, Cost(flops=1e12, seconds=seconds))
    _, time = figures.cost_figures(results_of(WIN, costs=costs))
    texts = Drawing(time).texts
    assert f"training {unit} per seed" in texts and ticks in texts


def test_values_off_the_scale_are_told_in_the_note():
    def track(label, value):
        return Track(ARM, label, ((1.0, Interval(value, value - 0.01, value + 0.01)),))

    tracks = [track(f"arm {i}", 1.7 + i / 100) for i in range(4)]
    options = {"axis": "x", "quality": "bits per byte", "fmt": "{:g}".format, "note": "Lower is better."}
    inside = charts.quality_against("t", "d", tracks, **options)
    assert inside.note == "Lower is better."
    outside = charts.quality_against("t", "d", [*tracks, track("base", 9.0)], **options)
    assert outside.note == "Lower is better. Off the scale (arrow): base 9.000."


# The forecast


def forecast_of(tmp_path):
    texts = ("generic", "continued", "scratch")
    study = write_study(tmp_path, num_documents=40, tasks=("language",), texts=texts, portions=PORTIONS)
    results = collect(study)
    return figures.forecast_figure(results, measure(results))


def log_value(drawing: Drawing, pixel: float) -> float:
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
    ticks = [t for t in drawing.root.iter("text") if t.attrib["class"] == "tick"]
    ticks = [t for t in ticks if t.attrib["text-anchor"] == "middle"]
    sizes = [float(t.text.split()[0]) * units[t.text.split()[1]] for t in ticks]
    slope, start = np.polyfit([float(t.attrib["x"]) for t in ticks], np.log(sizes), 1)
    return float(np.exp(start + slope * pixel))


def test_a_law_is_dashed_beyond_the_largest_run_and_reaches_as_far_as_it_is_read(tmp_path):
    figure = forecast_of(tmp_path)
    drawing = Drawing(figure)
    largest = PASSES * DOMAIN_BYTES
    solid = [line for line in drawing.classed("polyline", "track") if "ahead" not in line["class"]]
    dashed = drawing.classed("polyline", "ahead")
    assert len(solid) == len(dashed) == 2
    for measured, ahead in zip(solid, dashed, strict=True):
        ends = [float(measured["points"].split()[-1].split(",")[0])]
        ends += [float(ahead["points"].split()[at].split(",")[0]) for at in (0, -1)]
        assert ends[0] == ends[1], "the dashed part begins where the solid one ends"
        assert log_value(drawing, ends[0]) == pytest.approx(largest, rel=0.1)
        assert log_value(drawing, ends[2]) == pytest.approx(4 * largest, rel=0.05)
    assert figure.note == (
        "Points: measured; pale ones had less of the text. "
        "Lines: fitted laws on all of the text, with bands, dashed beyond the largest run."
    )


def test_no_law_is_drawn_where_none_was_asked_for(tmp_path):
    results = collect(write_study(tmp_path, num_documents=40, tasks=("language",)))
    assert measure(results) is None and figures.forecast_figure(results, None) is None


# The front


@pytest.mark.parametrize("priced", [True, False])
def test_the_front_puts_quality_against_the_price_or_else_the_time_of_a_request(tmp_path, priced):
    scores = {"generic+lora": [0.7] * 3, "generic+full": [0.8] * 3, "generic+probe": [0.6] * 3}
    price = PriceRecord(usd_per_hour=1.0, source="a list", date="2026-11-01") if priced else None
    results = results_of(scores, task=TICKET, price=price)
    assert figures.front_figure(results, TICKET) is None, "no speed is known"
    results.path = tmp_path
    level = {"concurrency": 1, "latency_ms": {"p95": 20.0}}
    models = [
        {"arm": arm, "memory_bytes": 1e6, "levels": [level | {"requests_per_s": speed}]}
        for arm, speed in (("generic+lora", 5.0), ("generic+full", 10.0))
    ]
    write_json(tmp_path / "bench.json", {"date": "2026-11-20", "models": models})
    figure = figures.front_figure(results, TICKET)
    assert figure is not None and figure.title == "What quality costs to serve"
    drawing = Drawing(figure)
    assert ("US dollars per 1,000 requests" if priced else "milliseconds per request") in drawing.texts
    assert "generic+probe" not in drawing.texts, "its speed is not known"
    assert figure.note == (
        "Pale: another arm is nowhere worse and somewhere better. "
        "Cost: measured by adaptkit bench on 2026-11-20."
    )
    dimmed = [group for group in drawing.root.iter("g") if "dim" in group.attrib.get("class", "").split()]
    (triangle,) = [shape for group in dimmed for shape in group.iter("polygon")]
    assert len(triangle.attrib["points"].split()) == 3, "the mark of adapters: generic+full does all better"


# Tasks and runs


def pick_of(labels, predictions, chances=None):
    rows = [
        {"id": str(i), "label": label, "prediction": prediction, "probabilities": {prediction: chance}}
        for i, (label, prediction, chance) in enumerate(
            zip(labels, predictions, chances or [0.9] * len(labels), strict=True)
        )
    ]
    cell = Cell("scratch+full", 0, WHOLE, "ticket", None, "ticket", rows, None, Cost())
    return Pick(ARM, (cell,))


def test_rare_labels_are_left_out_and_counted():
    labels = [f"label{i:02}" for i in range(charts_detail.MAX_CLASSES + 3)]
    labels += labels[: charts_detail.MAX_CLASSES]
    figure = charts_detail.per_class("ticket", [pick_of(labels, labels)])
    note = "One arm per origin, picked on development data. The axis does not start at zero."
    assert figure.note == f"{note} The 3 rarest labels are left out."
    assert sum(text == "2 items" for text in Drawing(figure).texts) == charts_detail.MAX_CLASSES
    assert "label22" not in Drawing(figure).texts
    few = charts_detail.per_class("ticket", [pick_of(labels[:5], labels[:5])])
    assert few.note == note and few.title == "Per class: ticket"


def test_the_best_arm_of_each_origin_is_picked_on_development_data():
    scores = {"generic+lora": [0.70, 0.71], "generic+full": [0.75, 0.76], "scratch+full": [0.8, 0.8]}
    results = results_of(scores, task=TICKET, dev={"generic+lora": 0.9, "generic+full": 0.8})
    assert [p.arm.name for p in figures.best_of_each_origin(results, "ticket")] == [
        "generic+lora",
        "scratch+full",
    ]


def test_reliability_puts_each_bin_at_its_confidence_and_share_right():
    labels, predictions = ["a"] * 100, ["a"] * 80 + ["b"] * 20
    figure = charts_detail.reliability(
        "ticket", [pick_of(labels, predictions, [0.9] * 100)], {"scratch+full": Interval(0.1, 0.05, 0.15)}
    )
    assert figure.note == (
        "On the diagonal, confidence is honest; below it, too high. 15 bins; larger dots hold more items."
    )
    drawing = Drawing(figure)
    (dot,) = drawing.classed("circle", "soft")
    (diagonal,) = drawing.classed("line", "diagonal")
    left, right, bottom, top = (float(diagonal[key]) for key in ("x1", "x2", "y1", "y2"))
    assert (float(dot["cx"]) - left) / (right - left) == pytest.approx(0.9, abs=0.01)
    assert (float(dot["cy"]) - bottom) / (top - bottom) == pytest.approx(0.8, abs=0.01)
    assert "ECE 0.100 [0.050, 0.150]" in drawing.texts


def test_learning_curves_are_drawn_where_there_are_some():
    rows = [{"step": step, "loss": 3.0 / step, "tokens_seen": 2048 * step} for step in range(1, 50)]
    rows += [{"step": 49, "eval_loss": 0.1, "tokens_seen": 2048 * 49}]
    figure = charts_detail.learning_curves([CurvePanel(ARM, "scratch (all)", [rows, rows])])
    assert figure.note == (
        "Nats per token. Lines: training, one per seed; dots: development. "
        "Compare shapes, not heights: tokenizers differ."
    )
    drawing = Drawing(figure)
    assert len(drawing.classed("polyline", "seed")) == 2 and len(drawing.classed("circle", "mark")) == 2
    assert "100k tokens" in drawing.texts
    assert charts_detail.learning_curves([CurvePanel(ARM, "x", [rows[:1]])]) is None


def test_forgetting_is_measured_against_the_untouched_base(tmp_path):
    texts = ("generic", "continued-lora", "scratch")
    study = write_study(tmp_path, num_documents=40, tasks=("language",), texts=texts)
    results = collect(study)
    figure = figures.forgetting_figure(results)
    (rows, *_) = results.forgetting["generic"]
    base = score_table("bits_per_byte", rows).value
    assert figure.note == (
        f"Line: the generic model before any training, {base:.3f}. Scratch models never knew general text."
    )
    drawing = Drawing(figure)
    assert drawing.texts.index("\u2190 remembers") < drawing.texts.index("forgets \u2192")
    line = drawing.classed("line", "zero")[0]
    assert drawing.x_value(float(line["x1"])) == pytest.approx(base, abs=0.02)
    assert "generic" not in drawing.texts and "scratch" in drawing.texts


def test_forgetting_without_the_untouched_base_says_what_its_line_is(tmp_path):
    texts = ("continued-lora", "scratch")
    study = write_study(tmp_path, num_documents=40, tasks=("language",), texts=texts)
    figure = figures.forgetting_figure(collect(study))
    assert figure.note == "Line: continued-lora. Scratch models never knew general text."


# Money


def test_the_shaded_volumes_are_those_from_which_an_own_server_is_cheaper():
    work, prices, training = Workload(2e6, 5.0), Prices(0.4, 0.15, 0.6), Training(1)
    answer = weigh(work, prices, training)
    figure = charts_money.bills(work, prices, training, answer)
    assert figure.note == (
        "Shaded: volumes from which an own server is the cheaper one. Dots: the volume set above."
    )
    drawing = Drawing(figure)
    (band,) = drawing.classed("rect", "margin")
    (axis,) = [line for line in drawing.classed("line", "axis") if line["y1"] == line["y2"]]
    left, right = float(axis["x1"]), float(axis["x2"])
    largest = 1.3 * max(2e6, answer.first)
    share = (float(band["x"]) - left) / (right - left)
    assert share * largest == pytest.approx(answer.first, rel=0.01)
    assert float(band["x"]) + float(band["width"]) == pytest.approx(right, abs=0.2)
    dots = {
        round((float(dot["cx"]) - left) / (right - left) * largest, -4)
        for dot in drawing.classed("circle", "hollow")
    }
    assert dots == {2e6}
    never = dataclasses.replace(prices, usd_in=1e-4, usd_out=1e-4)
    drawing = Drawing(charts_money.bills(work, never, training, weigh(work, never, training)))
    assert not drawing.classed("rect", "margin")
