"""How often a forecast's 95 % intervals hold the truth, and how far D* lies from it, by simulation.

    python benchmarks/forecast_coverage.py --studies 200 --out benchmarks/results/forecast_coverage.json
    python benchmarks/forecast_coverage.py --labels --out benchmarks/results/label_coverage.json

Made studies have three seeds, four smaller trainings as a plan chooses them (share 0.5) and laws of the
families of forecast_families.py, most of them other than the one that is fitted.

For each: the share of largest runs within the interval that was predicted for them, of a model from scratch
and of one that starts from the base, and how wide these are, mean width over mean difference between the
smallest training and the largest; and of studies whose forecast held, how often the text from which the
first catches the other was printed, held the truth, and lay within a factor 2. Shares stand with their own
error, one standard error.

With --labels the same of trainings with 1/16, 1/8 and 1/4 of a task's labels: what lacks to the best score
falls by the same families, and seeds differ by 2 to 6 % of it. Two arms that start from the base are
compared, and one of them with a third that is as good with any number of labels, as prompts are.
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

from adaptkit.study.forecast import TEXT_DOUBT, Doubt, interval_of
from adaptkit.study.forecast_answers import Span, catches, status_of
from adaptkit.study.label_forecast import LABEL_DOUBT, Reading
from adaptkit.study.law import Place, fit

PORTIONS = ((1.0, 1 / 8), (1 / 32, 1 / 32), (1 / 16, 1 / 16), (1.0, 1 / 4))
LABEL_PORTIONS = (1 / 16, 1 / 8, 1 / 4)
LABEL_READING = Reading(max_epochs=8, affordable=None)
LABEL_SEED_SD = (0.02, 0.06)
"""Of what lacks to the best score, from seed to seed, as a share of it; loud seeds four times that."""
REACH, NUM_SEEDS, NUM_REPLICATES = 4.0, 3, 200
WHOLE = Place(1.0, PASSES)


@dataclass(frozen=True)
class Arm:
    """A made arm: its truth, and what its trainings scored, [num_cells][num_seeds], the largest last."""

    truth: Truth
    places: tuple[Place, ...]
    scores: tuple[np.ndarray, ...]
    from_base: bool
    doubt: Doubt = TEXT_DOUBT

    @classmethod
    def drawn(cls, rng: np.random.Generator, family: str, from_base: bool) -> Arm:
        truth, noise = draw(rng, family, from_base), seed_noise_of(family)
        places = (*(Place(text, compute * PASSES) for text, compute in PORTIONS), WHOLE)
        means = np.array([truth(place) for place in places])
        if family == "uneven":
            means[:-1] *= 1 + CELL_SD * rng.standard_normal(len(PORTIONS))
        scores = tuple(mean + noise * rng.standard_normal(NUM_SEEDS) for mean in means)
        return cls(truth, places, scores, from_base)

    @classmethod
    def of_labels(cls, rng: np.random.Generator, family: str) -> Arm:
        """An arm on a task: its places are labels, counted in those of the largest training."""
        truth, loud = draw(rng, family, True), seed_noise_of(family) / seed_noise_of("")
        places = tuple(Place(share, share) for share in (*LABEL_PORTIONS, 1.0))
        means = np.array([lacking(truth, place.read) for place in places])
        if family == "uneven":
            means[:-1] *= 1 + 3 * CELL_SD * rng.standard_normal(len(LABEL_PORTIONS))
        noise = loud * rng.uniform(*LABEL_SEED_SD)
        scores = tuple(mean * (1 + noise * rng.standard_normal(NUM_SEEDS)) for mean in means)
        return cls(truth, places, scores, from_base=True, doubt=LABEL_DOUBT)

    def replicates(self, rng: np.random.Generator, num_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws of the means of the first cells, and their errors, as the forecast makes them."""
        errors, freedom = self.doubt.errors(self.scores[:num_cells])
        stretch = np.sqrt(freedom / rng.chisquare(freedom, (NUM_REPLICATES, 1)))
        means = np.array([values.mean() for values in self.scores[:num_cells]])
        return means + stretch * errors * rng.standard_normal((NUM_REPLICATES, num_cells)), errors

    def laws(self, rng: np.random.Generator, num_cells: int) -> Callable[[Any], np.ndarray]:
        values, errors = self.replicates(rng, num_cells)
        options = {"reference": self.places[-1].read, "from_base": self.from_base, "rng": rng}
        misfit = self.doubt.misfit
        return fit(self.places[:num_cells], values, errors, assumed_misfit=misfit, **options)

    @property
    def gap(self) -> float:
        """Between the smallest training and the largest."""
        means = [values.mean() for values in self.scores]
        return float(max(means) - means[-1])

    def predicted(self, rng: np.random.Generator) -> tuple[bool, float]:
        """Whether the largest run lies in the interval that the smaller ones give, and its width."""
        num_cells = len(self.places) - 1
        errors, freedom = self.doubt.errors(self.scores[:-1])
        stretch = np.sqrt(freedom / rng.chisquare(freedom, NUM_REPLICATES))
        luck = stretch * errors[-1] * rng.standard_normal(NUM_REPLICATES)
        interval = interval_of(self.laws(rng, num_cells)(self.places[-1:])[:, 0] + luck, 0.95)
        holds = interval.low <= self.scores[-1].mean() <= interval.high
        return bool(holds), interval.high - interval.low


def lacking(truth: Truth, labels: float) -> float:
    """What lacks to the best score by a made law of text, with labels in those of the largest training."""
    return truth(Place(PASSES * labels, PASSES * labels)) / 8


def crossing(rng: np.random.Generator, own: Arm, kept: Arm) -> dict[str, bool]:
    """What is printed of the text from which `own` catches `kept`, and whether it is right."""
    span = Span("text", 1 / 32, REACH, 1.0, 1.0)
    places = [Place(float(factor), PASSES) for factor in span.factors]
    gaps = own.laws(rng, len(own.places))(places) - kept.laws(rng, len(kept.places))(places)
    return judged(span, gaps, np.array([own.truth(place) - kept.truth(place) for place in places]))


def label_crossing(rng: np.random.Generator, own: Arm, other: Arm | None) -> dict[str, bool]:
    """The same of the labels from which `own` catches another arm, or one that reads none."""
    span = Span("labels", LABEL_PORTIONS[0], REACH, 1.0, 1.0)
    places = [Place(float(factor), float(factor)) for factor in span.factors]
    laws, truth = own.laws(rng, len(own.places))(places), [lacking(own.truth, p.read) for p in places]
    if other is not None:
        laws = laws - other.laws(rng, len(other.places))(places)
        return judged(span, laws, truth - np.array([lacking(other.truth, p.read) for p in places]))
    level = lacking(own.truth, math.exp(rng.uniform(math.log(1 / 32), math.log(4))))
    noise = rng.uniform(*LABEL_SEED_SD) * level / math.sqrt(NUM_SEEDS)
    drawn = level + noise * (rng.standard_normal() + rng.standard_normal((NUM_REPLICATES, 1)))
    return judged(span, laws - drawn, truth - np.array(level))


def judged(span: Span, gaps: np.ndarray, true_gaps: np.ndarray) -> dict[str, bool]:
    """What is printed of where gaps close, and whether it is right."""
    ordered = np.sort(catches(gaps, span.factors))
    value, low, high = (float(ordered[round((len(ordered) - 1) * tail)]) for tail in (0.5, 0.025, 0.975))
    true_gaps = true_gaps[None]
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


def label_row(family: str, studies: int) -> dict[str, Any]:
    """All that is counted of one family on tasks."""
    rng = np.random.default_rng(23)
    counts = dict.fromkeys(("predicted", "held", "said", "right", "printed", "near"), 0)
    width, gap = 0.0, 0.0
    for _ in range(studies):
        own, other = (Arm.of_labels(rng, family) for _ in range(2))
        held = []
        for arm in (own, other):
            holds, wide = arm.predicted(rng)
            held.append(holds)
            width, gap = width + wide, gap + arm.gap
        counts["predicted"] += sum(held)
        if all(held):
            counts["held"] += 2
            for against in (other, None):
                for name, true in label_crossing(rng, own, against).items():
                    counts[name] += true
    return {
        "family": family,
        "predicted": share(counts["predicted"], 2 * studies),
        "width": round(width / gap, 3),
        "crossing answered": share(counts["said"], counts["held"]),
        "crossing right": share(counts["right"], counts["said"]),
        "crossing within a factor 2": share(counts["near"], counts["printed"]),
    }


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    shares = [
        f"{name} {of['share']:.3f}+-{of['error']:.3f}" for name, of in row.items() if "share" in str(of)
    ]
    width = f"width {row['width']}"
    return f"{row['family']:14} {'  '.join([*shares, width])}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=100, help="simulated studies of each family")
    parser.add_argument("--labels", action="store_true", help="numbers of labels in place of text")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    settings = parser.parse_args()
    rows = []
    for family in (*TUNED, *JUDGED):
        row = (label_row if settings.labels else family_row)(family, settings.studies)
        rows.append(row)
        print(line(row), flush=True)
    if settings.out:
        settings.out.write_text(json.dumps({"studies": settings.studies, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
