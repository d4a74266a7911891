"""Scores of one group of test items less those of all others, as tables that intervals are drawn from.

groups = group_items(values, clusters)
inside_N = groups.inside["north"]
table = gap_table(score_table("macro_f1", rows), inside_N, groups.known & ~inside_N, clusters)
table.value                       # macro-F1 in the north less macro-F1 elsewhere
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptkit.data.score_table import ScoreTable, mean_table
from adaptkit.study.item_noise import cluster_sums, freedom

MIN_ITEMS, MIN_CLUSTERS = 20, 5
"""Of a group, and of all other items: below, an interval would promise what so few cannot show."""
MAX_GROUPS = 12
"""The largest are told of."""
NUM_BINS = 4
"""A column of numbers or dates with more values than groups is cut into so many parts of about one size."""


@dataclass(frozen=True)
class ItemGroups:
    """Test items by a column.

    Attributes:
        inside: group -> which items are in it [N], in the order of numbers, or the largest group first.
        known: items with a value [N].
        left_out: groups that are too small, or beyond the largest -> their items.
    """

    inside: dict[str, np.ndarray]
    known: np.ndarray
    left_out: dict[str, int]

    @property
    def num_missing(self) -> int:
        return int((~self.known).sum())


def group_items(values: Sequence[str | None], clusters: Sequence[Hashable]) -> ItemGroups:
    """Groups that are large enough, and that have enough beside them.

    Args:
        values: of each item in the column; None where it has none.
        clusters: what each item belongs to.
    """
    names = _named(values)
    known_N = np.array([name is not None for name in names], bool)
    inside: dict[str, np.ndarray] = {}
    left_out: dict[str, int] = {}
    for name, number in Counter(name for name in names if name is not None).most_common():
        inside_N = np.array([own == name for own in names], bool)
        enough = _enough(inside_N, clusters) and _enough(known_N & ~inside_N, clusters)
        if enough and len(inside) < MAX_GROUPS:
            inside[name] = inside_N
        else:
            left_out[name] = number
    order = _order(inside)
    return ItemGroups({name: inside[name] for name in order}, known_N, left_out)


def _enough(chosen_N: np.ndarray, clusters: Sequence[Hashable]) -> bool:
    places = np.flatnonzero(chosen_N).tolist()
    return len(places) >= MIN_ITEMS and len({clusters[place] for place in places}) >= MIN_CLUSTERS


def _named(values: Sequence[str | None]) -> list[str | None]:
    """Values as names of groups: numbers and dates with many values by quarters of the items."""
    distinct = {value for value in values if value is not None}
    numbers = _all_comparable({value: value for value in distinct})
    if len(distinct) <= MAX_GROUPS or not numbers:
        return list(values)
    ordered = sorted((value for value in values if value is not None), key=lambda value: numbers[value])
    edges = [ordered[len(ordered) * part // NUM_BINS] for part in range(1, NUM_BINS)]
    places = {value: sum(numbers[value] >= numbers[edge] for edge in edges) for value in distinct}
    spans = {}
    for place in set(places.values()):
        own = sorted((v for v in distinct if places[v] == place), key=lambda value: numbers[value])
        spans[place] = own[0] if own[0] == own[-1] else f"{own[0]} to {own[-1]}"
    return [None if value is None else spans[places[value]] for value in values]


def _all_comparable(values: Mapping[str, str]) -> dict[str, Any]:
    """The number or date of each name; nothing where some are neither, or not all of one kind."""
    found = {name: _comparable(value) for name, value in values.items()}
    same = len({type(value) for value in found.values()}) == 1 and None not in found.values()
    return dict(found) if same else {}


def _comparable(value: str) -> float | str | None:
    """A number, or a date as ISO writes it, which sorts as text; None for anything else."""
    try:
        return float(value)
    except ValueError:
        return value if len(value) >= 7 and value[:4].isdigit() and value[4] == "-" else None


def _order(inside: Mapping[str, np.ndarray]) -> list[str]:
    """Numbers and dates in their order; else as they are, the largest first."""
    firsts = _all_comparable({name: name.partition(" to ")[0] for name in inside})
    return sorted(inside, key=firsts.__getitem__) if firsts else list(inside)


def gap_table(
    table: ScoreTable, inside_N: np.ndarray, other_N: np.ndarray, clusters: Sequence[Hashable]
) -> ScoreTable:
    """The metric on a group less that on other items, as what each cluster does to it: a row for each.

    A score of a part is undefined in a resample that misses the part. So each cluster has its jackknife value
    here, what the difference loses without it, and their mean is the difference itself. With h the cluster's
    share of the group, or of the others, values are scaled by the root of 1 - h, which makes the variance
    right for few clusters as well (see `study.item_noise`).
    """
    places = _places(clusters)
    own, rest = (cluster_sums(table.sums * part_N[:, None], places) for part_N in (inside_N, other_N))
    whole = table.finish(own.sum(axis=0)) - table.finish(rest.sum(axis=0))
    without_C = table.finish(own.sum(axis=0) - own) - table.finish(rest.sum(axis=0) - rest)
    shares_C = np.maximum(_shares(inside_N, places), _shares(other_N, places))
    return _jackknife(float(whole), without_C, shares_C)


def part_table(table: ScoreTable, inside_N: np.ndarray, clusters: Sequence[Hashable]) -> ScoreTable:
    """The metric on a group, in the same form."""
    places = _places(clusters)
    own = cluster_sums(table.sums * inside_N[:, None], places)
    whole, without_C = table.finish(own.sum(axis=0)), table.finish(own.sum(axis=0) - own)
    return _jackknife(float(whole), without_C, _shares(inside_N, places))


def gap_freedom(inside_N: np.ndarray, other_N: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """Degrees of freedom of a gap's variance: those of the part with fewer clusters."""
    sizes = (np.bincount(_places(clusters), weights=part_N) for part_N in (inside_N, other_N))
    return min(freedom(part[part > 0]) for part in sizes)


def _places(clusters: Sequence[Hashable]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    return np.array([numbers[name] for name in clusters])


def _shares(part_N: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.bincount(places, weights=part_N) / part_N.sum()


def _jackknife(whole: float, without_C: np.ndarray, shares_C: np.ndarray) -> ScoreTable:
    size = len(without_C)
    lost_C = math.sqrt(size * (size - 1)) * np.sqrt(1 - shares_C) * (whole - without_C)
    return mean_table((whole + lost_C - lost_C.mean()).tolist())
