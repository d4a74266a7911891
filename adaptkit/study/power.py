"""Say before a study which difference it can settle, after it how many seeds or items would settle one."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from adaptkit.study.intervals import half_width, simultaneous_level
from adaptkit.study.statistics import Comparison


def seeds_to_settle(comparison: Comparison, end: float, most: int = 50) -> int | None:
    """Smallest number of seeds per arm at which, were estimate and variances to stay, the interval would
    lie wholly on one side of `end`, the end of the margin that decides.

    An arm with one seed beside one with several is a baseline, which more seeds would not change. None when
    `most` seeds would not do, or there are too few to know how much seeds differ.
    """
    if max(comparison.num_seeds) < 2:
        return None
    apart = abs(comparison.difference - end)
    counts = range(max(comparison.num_seeds), most + 1)
    return _first(counts, lambda count: _width_at(comparison, count, comparison.num_items) < apart)


def items_to_settle(comparison: Comparison, end: float, most: int = 100_000) -> int | None:
    """Smallest number of test items at which, were estimate and variances to stay, the interval would lie
    wholly on one side of `end`.

    It is found to 1 %. The items come in clusters like the present ones; an arm with one seed counts as one
    without seed noise. None when `most` items would not do.
    """
    counts, num_items = [], comparison.num_items
    while num_items <= most:
        counts.append(num_items)
        num_items = max(num_items + 1, math.floor(num_items * 1.01))
    apart = abs(comparison.difference - end)
    return _first(counts, lambda count: _width_at(comparison, None, count) < apart)


def _first(counts: Sequence[int], settles: Callable[[int], bool]) -> int | None:
    """The first count that settles, as all after it do: the more, the narrower the interval."""
    place = bisect_left(counts, True, key=settles)
    return counts[place] if place < len(counts) else None


def _width_at(comparison: Comparison, num_seeds: int | None, num_items: int) -> float:
    """Half width of the interval that other numbers of seeds (None for the present ones) and items would
    give."""
    parts = []
    for variance, freedom, present in zip(
        comparison.seed_variances, comparison.seed_freedom, comparison.num_seeds, strict=True
    ):
        count = present if num_seeds is None else num_seeds
        parts.append((variance / count, freedom + count - present))
    more = num_items / comparison.num_items
    more_seeds = 1.0 if num_seeds is None else num_seeds / max(comparison.num_seeds)
    of_seeds = comparison.interaction * (1 - 1 / more_seeds)
    items = ((comparison.item_variance - of_seeds) / more, comparison.item_freedom * more)
    return half_width(items, parts, comparison.confidence)


def smallest_difference(
    num_items: int,
    num_seeds: int,
    *,
    item_sd: float,
    seed_sd: float,
    confidence: float = 0.95,
    num_arms: int = 2,
) -> float:
    """The true difference between two arms whose interval would lie wholly beyond zero half of the time.

    It is the half width of the interval that the stated noise gives: the estimate falls above or below the
    truth equally often. To lie beyond a margin instead of zero, a difference must be larger by the margin.

    Args:
        item_sd: standard deviation over items of the paired difference. For a share of right answers the root
            of the share of items on which just one of the two arms is right (at most that, less the squared
            difference): .45 where they disagree on one item in five. For bits per byte, per passage: on the
            kept study of trial reports .06 for arms .14 apart, .2 for arms .4 apart, so about 0.4 times the
            difference.
        seed_sd: standard deviation of one arm's score from seed to seed, the same for both; with one seed an
            interval cannot know of it, so it counts as 0.
        num_arms: compared with each other; the interval is the one that holds together with the others'.
    """
    level = simultaneous_level(np.eye(num_arms), 0, confidence)
    parts = [(seed_sd**2 / num_seeds, num_seeds - 1)] * 2
    return half_width((item_sd**2 / num_items, num_items - 1), parts, level)
