"""Sliders: where a value lies, what a position means, and that moving one weighs the study anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from demo_study import FakeDial, FakeStudy
from fake_study import PORTIONS, PRICES, write_bench, write_study

pytest.importorskip("gradio", reason="the demo extra is not installed")

import gradio as gr

from adaptkit.demo.tab_decide import STEPS, Decide, _caption, position, value_at
from adaptkit.report.demo_view import StudyView


def test_a_caption_says_where_the_value_comes_from() -> None:
    dial = FakeDial("x", 2.0, 1.0, 10.0)
    assert "as in the study" in _caption(dial, 2.0) and "2 of it" in _caption(dial, 2.0)
    assert "set on this page" in _caption(dial, 2.1)


@pytest.mark.parametrize("log", [True, False])
def test_a_slider_gives_back_its_first_value_exactly_and_others_to_three_digits(log: bool) -> None:
    dial = FakeDial("x", 1.23456, 0.1, 1000.0, log=log)
    step = (position(dial, dial.high) - position(dial, dial.low)) / STEPS
    at = position(dial, dial.value)
    assert value_at(dial, at + 0.49 * step) == dial.value and value_at(dial, at - 0.49 * step) == dial.value
    assert value_at(dial, at + 0.51 * step) != dial.value
    assert value_at(dial, position(dial, 123.456)) == 123.0


def test_the_tab_starts_with_the_first_values_and_shows_main_dials_first() -> None:
    study = FakeStudy()
    with gr.Blocks() as blocks:
        Decide(study).build(gr.State(0.4))
    assert study.weighed == [{"months": 12.0, "usd_per_hour": 0.4}]
    parts = blocks.get_config_file()["components"]
    sliders = [part["props"]["elem_id"] for part in parts if part["type"] == "slider"]
    assert sliders == ["dial-usd_per_hour", "dial-months"]
    moved = next(fn for fn in blocks.fns.values() if fn.fn is not None and fn.fn.__name__ == "moved").fn
    weighed, price, *captions = moved(1.0, 24.0)
    assert study.weighed[-1] == {"usd_per_hour": 10.0, "months": 24.0} and price == 10.0
    assert "24.0" in weighed and all("set on this page" in caption for caption in captions)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> StudyView:
    study = write_study(tmp_path_factory.mktemp("study"), num_rows=60)
    write_bench(study)
    (study.parent / "prices.yaml").write_text(PRICES)
    return StudyView(study, study.parent / "prices.yaml")


def test_without_prices_the_tab_says_what_to_set_and_weighs_text_alone(tmp_path: Path) -> None:
    view = StudyView(write_study(tmp_path, num_rows=60, tasks=("language",), portions=PORTIONS))
    with gr.Blocks() as blocks:
        Decide(view).build(gr.State(0.0))
    config = str(blocks.get_config_file())
    assert "When does an own server pay" not in config and "What would more text do?" in config
    assert "break-even" not in config.lower().replace("data-break-even", "") and "--prices" in config
    moved = next(fn for fn in blocks.fns.values() if fn.fn is not None and fn.fn.__name__ == "moved").fn
    weighed, price, *_ = moved(7.0)
    assert price == 0.0 and "is left out" in weighed


def test_without_anything_to_move_what_is_missing_and_the_evidence_stand_there(tmp_path: Path) -> None:
    view = StudyView(write_study(tmp_path, num_rows=60, num_documents=40, tasks=("language",)))
    with gr.Blocks() as blocks:
        Decide(view).build(gr.State(0.0))
    config = blocks.get_config_file()
    assert not [part for part in config["components"] if part["type"] == "slider"]
    assert "is left out" in str(config) and "All arms" in str(config)


def test_every_dial_starts_inside_its_range_at_its_exact_value(shown: StudyView) -> None:
    dials = shown.dials()
    assert {dial.name for dial in dials if dial.main} >= {
        "requests_per_month",
        "usd_per_hour",
        "data_bytes",
        "usd_in",
    }
    for dial in dials:
        low, at, high = (position(dial, value) for value in (dial.low, dial.value, dial.high))
        assert low <= at <= high
        on_a_step = low + round((at - low) / (high - low) * STEPS) * (high - low) / STEPS
        assert value_at(dial, on_a_step) == dial.value
        assert value_at(dial, high) == pytest.approx(dial.high, rel=5e-3)
        assert dial.origin and dial.show(dial.value)
