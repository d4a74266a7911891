"""Membership: whether a passage was in the training text can be told from its loss, and how well.

    table = auc_table(scores_of_training_passages, scores_of_held_out_passages)
    table.value                       # 0.5: cannot be told, 1: always

The attack is the simplest there is (Yeom et al. 2018, arXiv 1709.01604): passages with a low loss are taken
for training text. Stronger attacks exist, so a value near 0.5 does not prove that nothing can be told.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from adaptkit.data.readers import Row
from adaptkit.data.score_table import ScoreTable, mean_table


def auc_table(members: np.ndarray, others: np.ndarray) -> ScoreTable:
    """How often a member scores below a non-member, ties counted half, as what each item does to it.

    The items are the members, then the others. Each adds its placement among the other side (DeLong et al.
    1988, Biometrics 44(3)), scaled so that the mean of all items is the AUC and varies as it does when items
    are drawn anew.

    Args:
        members, others: a score of each, such as bits per byte.
    """
    ordered_members, ordered_others = np.sort(members), np.sort(others)
    below = np.searchsorted(ordered_others, members, "right") + np.searchsorted(ordered_others, members)
    of_members = 1 - below / (2 * len(others))
    above = np.searchsorted(ordered_members, others, "right") + np.searchsorted(ordered_members, others)
    of_others = above / (2 * len(members))
    auc, num = float(of_members.mean()), len(members) + len(others)
    values = [auc + num / len(members) * (of_members - auc), auc + num / len(others) * (of_others - auc)]
    return mean_table(np.concatenate(values).tolist())


def packed_scores(rows: Sequence[Row]) -> np.ndarray:
    """Bits per byte that zlib needs for each passage by itself: a score of one who has read no other."""
    texts = [row.text.encode() for row in rows]
    return np.array([8 * len(zlib.compress(text, 9)) / len(text) for text in texts])
