"""How often a forecast's 95 % intervals hold the truth, and how far D* lies from it, by simulation.

    python benchmarks/forecast_coverage.py --studies 200 --out benchmarks/results/forecast_coverage.json

Made studies have three seeds, four smaller trainings as a plan chooses them (share 0.5) and laws of the
families of forecast_families.py, most of them other than the one that is fitted.

For each: the share of largest runs within the interval that was predicted for them, of a model from scratch
and of one that starts from the base, and how wide these are, mean width over mean difference between the
smallest training and the largest; and of studies whose forecast held, how often the text from which the
first catches the other was printed, held the truth, and lay within a factor 2. Shares stand with their own
error, one standard error.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from forecast_families import CELL_SD, JUDGED, PASSES, TUNED, Truth, draw, seed_noise_of

from adaptkit.study.forecast import interval_of, seed_noise
from adaptkit.study.forecast_answers import Span, catches, status_of
from adaptkit.study.law import Place, fit

PORTIONS = ((1.0, 1 / 8), (1 / 32, 1 / 32), (1 / 16, 1 / 16), (1.0, 1 / 4))
REACH, NUM_SEEDS, NUM_REPLICATES = 4.0, 3, 200
WHOLE = Place(1.0, PASSES)


@dataclass(frozen=True)
class Arm:
    """A made arm: its truth, and what its trainings scored, [num_cells][num_seeds], the largest last."""

    truth: Truth
    places: tuple[Place, ...]
    scores: tuple[np.ndarray, ...]
    from_base: bool

    @classmethod
    def drawn(cls, rng: np.random.Generator, family: str, from_base: bool) -> Arm:
        truth, noise = draw(rng, family, from_base), seed_noise_of(family)
        places = (*(Place(text, compute * PASSES) for text, compute in PORTIONS), WHOLE)
        means = np.array([truth(place) for place in places])
        if family == "uneven":
            means[:-1] *= 1 + CELL_SD * rng.standard_normal(len(PORTIONS))
        scores = tuple(mean + noise * rng.standard_normal(NUM_SEEDS) for mean in means)
        return cls(truth, places, scores, from_base)

    def replicates(self, rng: np.random.Generator, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the means of the first cells, and their errors, as the forecast makes them."""
        noise, freedom = seed_noise(self.scores[:num_cells])
        errors = np.full(num_cells, noise / math.sqrt(NUM_SEEDS))
        stretch = np.sqrt(freedom / rng.chisquare(freedom, (NUM_REPLICATES, 1)))
        means = np.array([values.mean() for values in self.scores[:num_cells]])
        return means + stretch * errors * rng.standard_normal((NUM_REPLICATES, num_cells)), errors

    def laws(self, rng: np.random.Generator, num_cells: int) -> Callable[[Any], np.ndarray]:
        values, errors = self.replicates(rng, num_cells)
        options = {"reference": PASSES, "from_base": self.from_base, "rng": rng}
        return fit(self.places[:num_cells], values, errors, **options)

    @property
    def gap(self) -> float:
        """Between the smallest training and the largest."""
        means = [values.mean() for values in self.scores]
        return float(max(means) - means[-1])

    def predicted(self, rng: np.random.Generator) -> tuple[bool, float]:
        """Whether the largest run lies in the interval that the smaller ones give, and its width."""
        noise, freedom = seed_noise(self.scores[:-1])
        stretch = np.sqrt(freedom / rng.chisquare(freedom, NUM_REPLICATES))
        luck = stretch * noise / math.sqrt(NUM_SEEDS) * rng.standard_normal(NUM_REPLICATES)
        interval = interval_of(self.laws(rng, len(PORTIONS))([WHOLE])[:, 0] + luck, 0.95)
        holds = interval.low <= self.scores[-1].mean() <= interval.high
        return bool(holds), interval.high - interval.low


def crossing(rng: np.random.Generator, own: Arm, kept: Arm) -> dict[str, bool]:
    """What is printed of the text from which `own` catches `kept`, and whether it is right."""
    span = Span("text", 1 / 32, REACH, 1.0, 1.0)
    places = [Place(float(factor), PASSES) for factor in span.factors]
    gaps = own.laws(rng, len(own.places))(places) - kept.laws(rng, len(kept.places))(places)
    ordered = np.sort(catches(gaps, span.factors))
    value, low, high = (float(ordered[round((len(ordered) - 1) * tail)]) for tail in (0.5, 0.025, 0.975))
    true_gaps = np.array([[own.truth(place) - kept.truth(place) for place in places]])
    truth = float(catches(true_gaps, span.factors)[0])
    status = status_of(value, low, high, span)
    said = status != "not forecast"
    near = status == "at" and 0.5 <= value / max(truth, 1e-9) <= 2
    return {"said": said, "right": said and low <= truth <= high, "printed": status == "at", "near": near}


def share(hits: int, of: int) -> dict[str, float]:
    """A share and its standard error; the error of 0 or 1 is that of one study more or less."""
    value = hits / max(1, of)
    inside = min(max(value, 1 / max(2, of)), 1 - 1 / max(2, of))
    return {
        "share": round(value, 3),
        "error": round(math.sqrt(inside * (1 - inside) / max(1, of)), 3),
        "of": of,
    }


def family_row(family: str, studies: int) -> dict[str, Any]:
    """All that is counted of one family."""
    rng = np.random.default_rng(17)
    counts = dict.fromkeys(("scratch", "base", "held", "said", "right", "printed", "near"), 0)
    widths, gaps = np.zeros(2), np.zeros(2)
    for _ in range(studies):
        own, kept = (Arm.drawn(rng, family, base) for base in (False, True))
        held, width = zip(own.predicted(rng), kept.predicted(rng), strict=True)
        widths, gaps = widths + width, gaps + (own.gap, kept.gap)
        counts["scratch"] += held[0]
        counts["base"] += held[1]
        if all(held):
            counts["held"] += 1
            for name, true in crossing(rng, own, kept).items():
                counts[name] += true
    return {
        "family": family,
        "tuned on": family in TUNED,
        "scratch predicted": share(counts["scratch"], studies),
        "base predicted": share(counts["base"], studies),
        "width": {
            "scratch": round(float(widths[0] / gaps[0]), 3),
            "base": round(float(widths[1] / gaps[1]), 3),
        },
        "D* answered": share(counts["said"], counts["held"]),
        "D* right": share(counts["right"], counts["said"]),
        "D* within a factor 2": share(counts["near"], counts["printed"]),
    }


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    shares = [
        f"{name} {of['share']:.3f}+-{of['error']:.3f}" for name, of in row.items() if "share" in str(of)
    ]
    width = "width {scratch:.2f} {base:.2f}".format_map(row["width"])
    return f"{row['family']:14} {'  '.join([*shares, width])}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100, help="simulated studies of each family")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    settings = parser.parse_args()
    rows = []
    for family in (*TUNED, *JUDGED):
        row = family_row(family, settings.studies)
        rows.append(row)
        print(line(row), flush=True)
    if settings.out:
        settings.out.write_text(json.dumps({"studies": settings.studies, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
