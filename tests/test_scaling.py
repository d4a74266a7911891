"""Power laws recovered from drawn points, and the amount of text where two of them cross. Home of
study.forecast."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fake_study import write_study

from adaptkit.study.forecast import Curve, cross, fit, measure, size_text
from adaptkit.study.results import collect
from adaptkit.study.statistics import Interval

SIZES = np.array([1e6, 2e6, 4e6, 8e6])


def test_plain_law_is_recovered_exactly():
    law = fit(SIZES, 5.0 * SIZES**-0.07)
    assert float(law.exponent) == pytest.approx(0.07)
    assert float(law.scale) == pytest.approx(5.0)
    assert float(law.floor) == 0.0


def test_floor_is_recovered_from_five_points():
    sizes = np.geomspace(1e5, 1e7, 6)
    law = fit(sizes, 0.8 + 30.0 * sizes**-0.3)
    assert float(law.floor) == pytest.approx(0.8, abs=0.02)
    assert float(law.exponent) == pytest.approx(0.3, rel=0.03)
    assert law(sizes) == pytest.approx(0.8 + 30.0 * sizes**-0.3, rel=1e-3)


def test_floor_is_never_negative_and_rows_are_fitted_apart():
    sizes = np.geomspace(1e5, 1e7, 5)
    values = np.stack([3.0 - 0.1 * np.log(sizes), 0.5 + 10 * sizes**-0.2])
    laws = fit(sizes, values)
    assert (laws.floor >= 0).all()
    alone = fit(sizes, values[1])
    assert float(laws.exponent[1]) == float(alone.exponent)


def test_two_points_are_no_curve():
    with pytest.raises(ValueError, match="3 points"):
        fit(SIZES[:2], np.array([2.0, 1.9]))


def curve(origin: str, scale: float, exponent: float, noise: float = 0.0) -> Curve:
    rng = np.random.default_rng(len(origin))
    values = scale * SIZES**-exponent
    laws = fit(SIZES, values * (1 + rng.normal(0, noise, (200, len(SIZES)))))
    points = tuple(Interval(v, v, v) for v in values)
    return Curve(origin, origin, tuple(SIZES), points, fit(SIZES, values), laws, Interval(exponent, 0, 1))


def test_crossing_is_where_the_laws_meet():
    # 20 * D^-0.16 = 3.6 * D^-0.045 at D = (20 / 3.6)^(1 / 0.115)
    found = cross(curve("scratch", 20, 0.16, 0.002), curve("continued", 3.6, 0.045, 0.002))
    truth = (20 / 3.6) ** (1 / 0.115)
    assert found.status == "at"
    assert found.num_bytes == pytest.approx(truth, rel=0.02)
    assert found.low < truth < found.high
    assert size_text(found.num_bytes) in found.sentence


def test_nothing_is_read_beyond_the_largest_amount():
    # The laws would meet at (20 / 7) ** (1 / 0.06), about 40 MB.
    found = cross(curve("scratch", 20, 0.12), curve("continued", 7.0, 0.06))
    assert found.status == "beyond" and math.isinf(found.num_bytes)
    assert found.sentence.endswith("within the text read; beyond it nothing is forecast")
    never = cross(curve("scratch", 5.0, 0.05), curve("continued", 3.0, 0.05))
    assert never.status == "beyond" and math.isinf(never.num_bytes)


def test_a_crossing_at_the_largest_amount_is_the_last_that_is_told():
    exponent = 0.045 + math.log(20 / 3.6) / math.log(SIZES[-1])  # the laws meet at the largest amount
    assert cross(curve("scratch", 20, exponent * 1.01), curve("continued", 3.6, 0.045)).status == "at"
    assert cross(curve("scratch", 20, exponent * 0.99), curve("continued", 3.6, 0.045)).status == "beyond"


def test_ahead_everywhere_is_said_so():
    found = cross(curve("scratch", 3.0, 0.06), curve("continued", 5.0, 0.05))
    assert found.status == "already" and "at every amount tested" in found.sentence


def test_every_sentence_of_a_crossing_word_for_word():
    at = cross(curve("scratch", 20, 0.16, 0.002), curve("continued", 3.6, 0.045, 0.002))
    interval = f"95% interval: {size_text(at.low)} to {size_text(at.high)}"
    assert SIZES[0] < at.low < at.num_bytes < at.high < SIZES[-1]
    assert at.sentence == f"scratch catches continued from {size_text(at.num_bytes)} of text on ({interval})"
    never = cross(curve("scratch", 5.0, 0.05), curve("continued", 3.0, 0.05))
    assert never.sentence == (
        "scratch does not catch continued within the text read; beyond it nothing is forecast"
    )
    ahead = cross(curve("scratch", 3.0, 0.06), curve("continued", 5.0, 0.05), confidence=0.9)
    assert ahead.sentence == (
        "scratch is level with or ahead of continued at every amount tested "
        "(90% interval: below the smallest amount tested)"
    )
    unsure = cross(curve("scratch", 20, 0.16, 0.2), curve("continued", 3.6, 0.045, 0.2))
    assert unsure.status == "at"
    assert "below the smallest amount tested to beyond the text read" in unsure.sentence


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(999, "999 B"), (1000, "1 kB"), (8.2e6, "8.2 MB"), (1.25e9, "1.25 GB"), (3e12, "3 TB")],
)
def test_sizes_are_short(num_bytes, text):
    assert size_text(num_bytes) == text


def test_study_with_four_amounts_gives_d_star(tmp_path):
    scaling = measure(
        collect(
            write_study(tmp_path, num_rows=50, texts=["generic", "continued", "continued-lora", "scratch"])
        )
    )
    assert {c.origin for c in scaling.curves} == {"continued", "continued-lora", "scratch"}, (
        "generic reads none"
    )
    assert [crossing.against for crossing in scaling.crossings] == ["continued", "continued-lora"]
    crossing = scaling.crossings[0]
    assert crossing.arm == "scratch" and crossing.status == "at"
    assert crossing.low <= crossing.num_bytes <= crossing.high
    truth = 8.2e6 * (1.79 / 1.71) ** (1 / (0.045 - 0.16))
    assert crossing.low * 0.9 < truth < crossing.high * 1.1


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 1.0)])
def test_fewer_than_three_amounts_claim_nothing(tmp_path, fractions):
    assert measure(collect(write_study(tmp_path, fractions=fractions, tasks=("language",)))) is None
