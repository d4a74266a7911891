"""How often a study's 95 % intervals, contenders and `enough` hold the truth, by simulation.

    python benchmarks/interval_coverage.py --studies 1200 --out benchmarks/results/interval_coverage.json

A score is a mean over items; it varies with the items (shared by all arms, plus what one arm alone finds
hard), with the seed, and with seed and item together. Standard deviations are per item. Three tables:

pairs     Two arms without a true difference: our interval beside the plain percentile bootstrap.
clusters  The same at 3 seeds with items in documents of several sizes: clusters drawn, and clusters ignored.
fields    2 to 12 arms at 3 seeds whose true differences are set, in margins: whether the truly best arm is a
          contender, whether each arm in `enough` lies within the margin of it, and whether all intervals seen
          from the best arm cover. The margin is 1 or 3 standard errors of a difference, or 0. All patterns of
          differences are laid over the same draws. An arm exactly a margin behind counts as beyond it.

Each share stands with its own Monte-Carlo error, one standard error. Of a field the lowest share over all
patterns and margins is shown, and where it is; a field of 12 arms takes a minute of CPU per 1,000 studies.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from adaptkit.data.score_table import ScoreTable, mean_table
from adaptkit.study.contenders import Field, field
from adaptkit.study.intervals import decide
from adaptkit.study.statistics import resample

SETTINGS = {
    "seeds dominate": {"seed": (0.3, 0.3), "item": 0.3, "mixed": 0.3},
    "seeds and items": {"seed": (0.06, 0.06), "item": 0.4, "mixed": 0.4},
    "items only": {"seed": (0.0, 0.0), "item": 0.5, "mixed": 0.2},
    "seed noise in one arm": {"seed": (0.1, 0.0), "item": 0.4, "mixed": 0.2},
    "seed noise in one arm, few item effects": {"seed": (0.1, 0.0), "item": 0.35, "mixed": 0.0},
    "seeds and items only interact": {"seed": (0.0, 0.0), "item": 0.0, "mixed": 0.5},
}
CLUSTERS = {
    "20 of 10 items": np.full(20, 10),
    "8 of 25 items": np.full(8, 25),
    "60 of unequal sizes": 60,
    "20 of unequal sizes": 20,
    "8 of unequal sizes": 8,
    "31, one with 40 % of the items": np.array([80] + [4] * 30),
}
CORRELATIONS = (0.0, 0.1, 0.3)
NUM_RESAMPLES = 400


@dataclasses.dataclass(frozen=True)
class Noise:
    """What arms of a field vary with; `spread` is the log spread of the arms' own seed noise.

    Attributes:
        baseline: whether the first arm is a baseline, without seeds.
        correlation: of the items of one cluster; None for items that stand alone.
    """

    seed: float
    item: float
    mixed: float
    spread: float = 0.0
    baseline: bool = False
    correlation: float | None = None

    def standard_error(self, num_items: int, sizes: np.ndarray) -> float:
        """Of the difference between two arms with seeds."""
        items = 2 * self.item**2 / num_items
        if self.correlation is not None:
            same = (sizes**2).sum() / num_items**2
            items = 2 * self.item**2 * ((1 - self.correlation) / num_items + self.correlation * same)
        return math.sqrt(items + 2 * self.seed**2 / 3 + 2 * self.mixed**2 / 3 / num_items)


FIELDS = {
    "seeds dominate": Noise(0.3, 0.3, 0.3),
    "seeds dominate, baseline": Noise(0.3, 0.3, 0.3, baseline=True),
    "arms of unlike seed noise, baseline": Noise(0.1, 0.3, 0.3, spread=0.5, baseline=True),
    "seeds and items, baseline": Noise(0.06, 0.4, 0.4, baseline=True),
    "items only": Noise(0.0, 0.5, 0.2),
    "seeds and clusters": Noise(0.06, 0.4, 0.4, correlation=0.3),
}


def draw_study(
    rng: np.random.Generator, num_seeds: int, num_items: int, setting: dict
) -> dict[str, list[ScoreTable]]:
    """Scores of two arms on the same items, `num_seeds` each."""
    shared, own = rng.normal(0, 1.0, num_items), rng.normal(0, setting["item"], num_items)
    arms = {}
    for arm, sd, offset in (("a", setting["seed"][0], own), ("b", setting["seed"][1], 0.0)):
        luck, noise = rng.normal(0, sd, num_seeds), rng.normal(0, setting["mixed"], (num_seeds, num_items))
        arms[arm] = [mean_table(shared + offset + luck[k] + noise[k]) for k in range(num_seeds)]
    return arms


def share(hits: int, studies: int) -> dict[str, float]:
    """A share and its standard error; the error of 0 or 1 is that of one study more or less."""
    value = hits / studies
    inside = min(max(value, 1 / studies), 1 - 1 / studies)
    return {"share": round(value, 4), "error": round(math.sqrt(inside * (1 - inside) / studies), 4)}


def pairs(setting: dict, num_seeds: int, num_items: int, studies: int) -> dict[str, float]:
    """Share of simulated studies whose interval of the difference holds 0."""
    rng = np.random.default_rng(7)
    ours = plain = 0
    for number in range(studies):
        replicates = resample(
            draw_study(rng, num_seeds, num_items, setting), num_resamples=NUM_RESAMPLES, seed=number
        )
        pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
        low, high = np.quantile(replicates.drawn("a") - replicates.drawn("b"), [0.025, 0.975])
        ours, plain = ours + (pair.low <= 0 <= pair.high), plain + (low <= 0 <= high)
    return {"ours": ours / studies, "plain": plain / studies}


def cluster_sizes(kind: str, num_items: int) -> np.ndarray:
    """Items of each cluster; unequal sizes are the quantiles of a lognormal with log spread 1."""
    sizes = CLUSTERS[kind]
    if isinstance(sizes, np.ndarray):
        return sizes
    shares = np.exp(special.ndtri((np.arange(sizes) + 0.5) / sizes))
    return np.maximum(1, np.round(shares / shares.sum() * num_items)).astype(int)


def item_noise(rng: np.random.Generator, places: np.ndarray, correlation: float, sd: float) -> np.ndarray:
    """What one arm finds hard, alike within a cluster."""
    whole = rng.normal(0, math.sqrt(correlation), places.max() + 1)
    return sd * (whole[places] + rng.normal(0, math.sqrt(1 - correlation), len(places)))


def clusters(kind: str, correlation: float, setting: dict, num_items: int, studies: int) -> dict[str, Any]:
    """Coverage of the pair interval with whole clusters drawn, and with clusters ignored."""
    sizes = cluster_sizes(kind, num_items)
    places = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(8)
    hits = {"drawn": 0, "ignored": 0}
    for number in range(studies):
        arms = {}
        for arm, sd in zip("ab", setting["seed"], strict=True):
            own = item_noise(rng, places, correlation, setting["item"])
            mixed = rng.normal(0, setting["mixed"], (3, len(places)))
            arms[arm] = [mean_table(own + rng.normal(0, sd) + mixed[k]) for k in range(3)]
        for name, labels in (("drawn", places.tolist()), ("ignored", None)):
            replicates = resample(arms, labels, num_resamples=NUM_RESAMPLES, seed=number)
            pair = replicates.compare("a", "b", margin=0.0, higher_is_better=True)
            hits[name] += pair.low <= 0 <= pair.high
    return {name: share(count, studies) for name, count in hits.items()}


def patterns(num_arms: int) -> dict[str, np.ndarray]:
    """True scores in margins. The first arm is the baseline where there is one; the best stands first too."""
    first = np.eye(num_arms)[0]
    return {
        "all equal": np.zeros(num_arms),
        **{f"first best by {lead:g}": lead * first for lead in (0.5, 1.0, 2.0, 4.0)},
        "last best by 1": first[::-1].copy(),
        "ladder of 0.5": -0.5 * np.arange(num_arms),
        "ladder of 0.5, baseline last": -0.5 * (np.arange(num_arms)[::-1]),
    }


def draw_field(rng: np.random.Generator, num_arms: int, num_items: int, noise: Noise, places: np.ndarray):
    """Scores of arms that are all equally good."""
    shared = rng.normal(0, 1.0, num_items)
    arms = {}
    for number in range(num_arms):
        baseline = noise.baseline and number == 0
        own = shared + item_noise(rng, places, noise.correlation or 0.0, noise.item)
        sd = 0.0 if baseline else noise.seed * math.exp(rng.normal(0, noise.spread))
        count = 1 if baseline else 3
        luck, mixed = rng.normal(0, sd, count), rng.normal(0, noise.mixed, (count, num_items))
        arms[f"arm{number}"] = [mean_table(own + luck[k] + mixed[k]) for k in range(count)]
    return arms


def shifted(level: Field, truth: Mapping[str, float], margin: float) -> Field:
    """A field of equal arms as it would be had they the scores of `truth`: a mean moves with its shift."""
    seen_from = {}
    for reference, seen in level.seen_from.items():
        seen_from[reference] = {}
        for arm, pair in seen.items():
            by = truth[arm] - truth[reference]
            low, high = pair.low + by, pair.high + by
            seen_from[reference][arm] = dataclasses.replace(
                pair,
                difference=pair.difference + by,
                low=low,
                high=high,
                margin=margin,
                outcome=decide(low, high, margin, True),
            )
    scores = {arm: score + truth[arm] for arm, score in level.scores.items()}
    return Field(level.arms, scores, seen_from, margin, True)


def judged(standing: Field, truth: Mapping[str, float], margin: float) -> dict[str, bool]:
    """What of one simulated study is right."""
    best = max(truth, key=lambda arm: truth[arm])
    beyond = [arm for arm in standing.enough if truth[best] - truth[arm] > margin * (1 - 1e-9) > 0]
    return {
        "contender": best in standing.contenders,
        "some_enough": bool(standing.enough),
        "enough_right": not beyond,
        "enough_wrong": bool(beyond),
    }


def fields(name: str, num_arms: int, num_items: int, studies: int) -> dict[str, Any]:
    """The lowest shares of one field over all margins and patterns of true scores."""
    noise = FIELDS[name]
    sizes = np.ones(num_items, dtype=int)
    if noise.correlation is not None:
        sizes = cluster_sizes("20 of unequal sizes", num_items)
    num_items = int(sizes.sum())
    places = np.repeat(np.arange(len(sizes)), sizes)
    labels = None if noise.correlation is None else places.tolist()
    error = noise.standard_error(num_items, sizes)
    rng = np.random.default_rng(9)
    counts: dict[tuple[float, str], dict[str, int]] = {}
    for number in range(studies):
        arms = draw_field(rng, num_arms, num_items, noise, places)
        replicates = resample(arms, labels, num_resamples=NUM_RESAMPLES, seed=number)
        level = field(replicates, list(arms), margin=0.0, higher_is_better=True)
        covers = all(pair.low <= 0 <= pair.high for pair in level.seen_from["arm0"].values())
        for size in (0.0, 1.0, 3.0):
            for pattern, scores in patterns(num_arms).items():
                if size == 0.0 and pattern != "all equal":
                    continue
                truth = {arm: float(size * error * score) for arm, score in zip(arms, scores, strict=True)}
                facts = judged(shifted(level, truth, size * error), truth, size * error)
                sums = counts.setdefault((size, pattern), dict.fromkeys([*facts, "covers"], 0))
                for fact, holds in {**facts, "covers": covers}.items():
                    sums[fact] += holds
    rows = [
        {
            "where": f"{pattern}, margin {size:g} se",
            "contender": share(sums["contender"], studies),
            "enough_right": share(sums["enough_right"], studies),
            "some_enough": sums["some_enough"],
            "right_of_some_enough": share(
                sums["some_enough"] - sums["enough_wrong"], max(1, sums["some_enough"])
            ),
        }
        for (size, pattern), sums in counts.items()
    ]
    covers = next(iter(counts.values()))["covers"]
    return {
        "noise": name,
        "arms": num_arms,
        "studies": studies,
        "covers_from_first": share(covers, studies),
        **{key: lowest(rows, key) for key in ("contender", "enough_right", "right_of_some_enough")},
    }


def lowest(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """The lowest share over all patterns and margins; a share of few studies is left out."""
    enough = [row for row in rows if row["some_enough"] >= 50]
    usable = enough if enough and key == "right_of_some_enough" else rows
    worst = min(usable, key=lambda row: row[key]["share"])
    return {**worst[key], "where": worst["where"], "some_enough": worst["some_enough"]}


def text(value: Mapping[str, float]) -> str:
    return f"{value['share']:.3f}+-{value['error']:.3f}"


Places = list[dict[str, Any]]
"""What tells the rows of a table apart."""


def pair_places() -> Places:
    return [{"seeds": num_seeds, "setting": name} for num_seeds in (2, 3, 5) for name in SETTINGS]


def cluster_places() -> Places:
    return [
        {"setting": name, "clusters": kind, "correlation": correlation}
        for name in ("items only", "seeds and items")
        for kind in CLUSTERS
        for correlation in CORRELATIONS
    ]


def field_places() -> Places:
    return [{"noise": name, "arms": num_arms} for num_arms in (2, 4, 8, 12) for name in FIELDS]


def pair_row(place: Mapping[str, Any], studies: int, num_items: int) -> dict[str, Any]:
    name, num_seeds = place["setting"], place["seeds"]
    row = {**place, **pairs(SETTINGS[name], num_seeds, num_items, studies)}
    error = share(round(row["ours"] * studies), studies)["error"]
    values = f"ours {row['ours']:.3f}+-{error:.3f}  plain bootstrap {row['plain']:.3f}"
    print(f"{num_seeds} seeds  {name:42} {values}", flush=True)
    return row | {"studies": studies, "items": num_items}


def cluster_row(place: Mapping[str, Any], studies: int, num_items: int) -> dict[str, Any]:
    name, kind, correlation = place["setting"], place["clusters"], place["correlation"]
    row = {**place, "studies": studies}
    row |= clusters(kind, correlation, SETTINGS[name], 2 * num_items, studies)
    values = f"drawn {text(row['drawn'])}  ignored {text(row['ignored'])}"
    print(f"{name:16} {kind:32} correlation {correlation:.1f}  {values}", flush=True)
    return row


def field_row(place: Mapping[str, Any], studies: int, num_items: int) -> dict[str, Any]:
    titles = {
        "contender": "the best is a contender",
        "enough_right": "no arm in `enough` beyond the margin",
        "right_of_some_enough": "  the same, of studies with any `enough`",
    }
    row = fields(place["noise"], place["arms"], num_items, studies)
    print(f"{place['arms']:2} arms  {place['noise']}")
    print(f"   all intervals seen from the first arm cover  {text(row['covers_from_first'])}")
    for key, title in titles.items():
        worst = row[key]
        where = f"{worst['where']}, any in {worst['some_enough']}"
        print(f"   {title:44} {text(worst)}  lowest: {where}", flush=True)
    return row


TABLES: dict[str, tuple[Callable[[], Places], Callable[[Mapping[str, Any], int, int], dict[str, Any]]]] = {
    "pairs": (pair_places, pair_row),
    "clusters": (cluster_places, cluster_row),
    "fields": (field_places, field_row),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1200, help="simulated studies a row")
    parser.add_argument(
        "--items", type=int, default=100, help="test items of a study; twice as many in clusters"
    )
    parser.add_argument("--only", choices=tuple(TABLES), help="one of the tables")
    parser.add_argument("--out", type=Path, help="write each row as JSON once it is done; rows there stay")
    settings = parser.parse_args()
    result: dict[str, Any] = {}
    if settings.out and settings.out.exists():
        result = json.loads(settings.out.read_text())
    for name, (places, row_of) in TABLES.items():
        if settings.only not in (None, name):
            continue
        rows = result.setdefault(name, [])
        for place in places():
            if any(place.items() <= row.items() for row in rows):
                continue
            rows.append(row_of(place, settings.studies, settings.items))
            if settings.out:
                settings.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
