"""Compute how much scores vary with the choice of test items, by leaving out one cluster at a time.

Whole documents (or groups) are the clusters; items that stand alone are clusters of one. What a score loses
without a cluster tells its influence, for any metric that is a function of sums. With shares h of the items,

    variance = sum((1 - h) * (score without the cluster - score)^2),

which is the CR2 estimate of Bell and McCaffrey (Survey Methodology 28(2), 2002): unbiased where items of a
cluster are not alike, and for equal clusters always. Its degrees of freedom are Satterthwaite's for items
that are not alike: the number of clusters less 1 where they are equal, fewer where some hold most items.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.data.score_table import ScoreTable


def influence(tables: Sequence[ScoreTable], places: np.ndarray) -> np.ndarray:
    """What each cluster adds to the scores [num_clusters, num_tables]; squares summed over the clusters are
    the variance.

    Args:
        tables: of one arm, one per seed.
        places: per item the number of its cluster.
    """
    sizes = np.bincount(places)
    if len(sizes) == 1:
        return np.zeros((1, len(tables)))
    columns = []
    for table in tables:
        own = cluster_sums(table.sums, places)
        total = own.sum(axis=0)
        columns.append(table.finish(total - own) - table.finish(total))
    return np.sqrt(1 - sizes / sizes.sum())[:, None] * np.stack(columns, axis=1)


def interaction(influences: np.ndarray) -> float:
    """Variance of an arm's mean due to what is hard for one seed only [num_clusters, num_seeds]."""
    num_seeds = influences.shape[1]
    if num_seeds < 2:
        return 0.0
    deviations = influences - influences.mean(axis=1, keepdims=True)
    return float((deviations**2).sum()) / (num_seeds * (num_seeds - 1))


def freedom(sizes: np.ndarray) -> float:
    """Degrees of freedom of the item variance; 0 with one cluster.

    Args:
        sizes: items of each cluster.
    """
    if len(sizes) == 1:
        return 0.0
    shares = sizes / sizes.sum()
    lost = shares**2 / (1 - shares)
    return float(1 / ((shares**2).sum() + lost.sum() ** 2 - (lost**2).sum()))


def cluster_sums(sums: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Per-item sums added up within each cluster [num_clusters, num_columns]."""
    summed = np.zeros((int(places.max()) + 1, sums.shape[1]))
    np.add.at(summed, places, sums)
    return summed
