"""How often a study's 95 % interval holds the truth, by simulation: ours beside the plain percentile
bootstrap.

    python benchmarks/interval_coverage.py --studies 1200 --out benchmarks/results/interval_coverage.json

Two arms without a true difference. A score is a mean over items; it varies with the items (shared by both
arms, plus what one arm alone finds hard), with the seed, and with seed and item together. Standard deviations
are per item.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from adaptkit.data.score_table import ScoreTable
from adaptkit.study.statistics import resample

SETTINGS = {
    "seeds dominate": {"seed": (0.3, 0.3), "item": 0.3, "mixed": 0.3},
    "seeds and items": {"seed": (0.06, 0.06), "item": 0.4, "mixed": 0.4},
    "items only": {"seed": (0.0, 0.0), "item": 0.5, "mixed": 0.2},
    "seed noise in one arm": {"seed": (0.1, 0.0), "item": 0.4, "mixed": 0.2},
    "seed noise in one arm, few item effects": {"seed": (0.1, 0.0), "item": 0.35, "mixed": 0.0},
    "seeds and items only interact": {"seed": (0.0, 0.0), "item": 0.0, "mixed": 0.5},
}


def draw_study(
    rng: np.random.Generator, num_seeds: int, num_items: int, setting: dict
) -> dict[str, list[ScoreTable]]:
    """Scores of two arms on the same items, `num_seeds` each."""
    shared, own = rng.normal(0, 1.0, num_items), rng.normal(0, setting["item"], num_items)
    arms = {}
    for arm, sd, offset in (("a", setting["seed"][0], own), ("b", setting["seed"][1], 0.0)):
        luck, noise = rng.normal(0, sd, num_seeds), rng.normal(0, setting["mixed"], (num_seeds, num_items))
        arms[arm] = [_mean_table(shared + offset + luck[k] + noise[k]) for k in range(num_seeds)]
    return arms


def coverage(setting: dict, num_seeds: int, num_items: int, studies: int) -> dict[str, float]:
    """Share of simulated studies whose interval of the difference holds 0."""
    rng = np.random.default_rng(7)
    ours = plain = 0
    for number in range(studies):
        replicates = resample(draw_study(rng, num_seeds, num_items, setting), num_resamples=400, seed=number)
        pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
        low, high = np.quantile(replicates.drawn("a") - replicates.drawn("b"), [0.025, 0.975])
        ours, plain = ours + (pair.low <= 0 <= pair.high), plain + (low <= 0 <= high)
    return {"ours": ours / studies, "plain": plain / studies}


def _mean_table(values: np.ndarray) -> ScoreTable:
    return ScoreTable(
        np.stack([values, np.ones_like(values)], axis=1), lambda totals: totals[..., 0] / totals[..., 1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1200, help="simulated studies a row")
    parser.add_argument("--items", type=int, default=100, help="test items of a study")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    settings = parser.parse_args()
    rows = []
    for num_seeds in (2, 3, 5):
        for name, setting in SETTINGS.items():
            row = {
                "seeds": num_seeds,
                "setting": name,
                **coverage(setting, num_seeds, settings.items, settings.studies),
            }
            rows.append(row)
            print(
                f"{num_seeds} seeds  {name:42} ours {row['ours']:.3f}  plain bootstrap {row['plain']:.3f}",
                flush=True,
            )
    if settings.out:
        settings.out.write_text(
            json.dumps({"studies": settings.studies, "items": settings.items, "rows": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
