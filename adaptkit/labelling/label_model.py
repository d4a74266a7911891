"""Weigh the votes of rules: by how often each is right on labelled rows, or else by how well they agree.

    model = measured_model(votes_NR, truth_N, num_labels=3)   # NONE where a rule says nothing
    model = agreement_model(votes_NR, num_labels=3)           # without a single true label
    model.probabilities(votes_NR)                             # [N, C]

Each rule is right with a probability of its own when it speaks, whatever the label, and errs alike on all
other labels; given the true label, rules are independent: the one-coin model of Dawid and Skene (1979,
Applied Statistics 28), as data programming uses it (Ratner et al., arXiv 1605.07723). Whether a rule speaks
tells nothing, and no label is likelier than another before it does. Accuracies have a Beta prior; without
labels they are those of maximal posterior, found by expectation maximisation from majority votes on.

Agreement misleads where rules repeat each other: five words for one label that stand in the same sentences
look right together, and what seldom meets another rule looks wrong. So without labels the prior is strong.
Tried on 41 rules for sentence roles and 8,000 rows: a majority of votes, ties broken at random, was right on
74.7 % of the rows that had any, this model on 74.6 %, with a prior of ten votes on 73.0 %, one without any
(crowd-kit 1.4's) on 66.1 %, and weights measured on 100 labelled rows on 75.6 %.

Shape suffixes: N = rows, R = rules, C = labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NONE = -1
PRIOR_RIGHT = 0.7
"""How often a rule is right when it speaks, before anything is known of it."""
MEASURED_PRIOR, AGREEMENT_PRIOR = 10, 100
"""Votes that this is worth beside those on labelled rows, and beside guesses by agreement."""
MAX_STEPS, TOLERANCE = 500, 1e-7


@dataclass(frozen=True)
class LabelModel:
    """What was learnt of rules.

    Attributes:
        accuracies_R: how often each is taken to be right when it speaks.
        num_labels: C.
        num_steps: of the maximisation; 0 where accuracies were counted.
        settled: whether they had stopped moving by then.
    """

    accuracies_R: np.ndarray
    num_labels: int
    num_steps: int
    settled: bool

    def probabilities(self, votes_NR: np.ndarray) -> np.ndarray:
        """Of each label [N, C]; all alike where no rule speaks."""
        right_R = np.log(self.accuracies_R)
        wrong_R = np.log((1 - self.accuracies_R) / (self.num_labels - 1))
        scores_NC = np.stack(
            [(votes_NR == label) @ (right_R - wrong_R) for label in range(self.num_labels)], axis=1
        )
        chances_NC = np.exp(scores_NC - scores_NC.max(axis=1, keepdims=True))
        chances_NC /= chances_NC.sum(axis=1, keepdims=True)
        return chances_NC


def measured_model(votes_NR: np.ndarray, truth_N: np.ndarray, num_labels: int) -> LabelModel:
    """Count how often each rule is right on labelled rows.

    Args:
        votes_NR: the place of the label that each rule gives each row, or NONE.
        truth_N: the place of the true label; anything else where no rule gives that.
    """
    right_R = ((votes_NR == truth_N[:, None]) & (votes_NR != NONE)).sum(axis=0)
    spoken_R = (votes_NR != NONE).sum(axis=0)
    accuracies_R = (right_R + PRIOR_RIGHT * MEASURED_PRIOR) / (spoken_R + MEASURED_PRIOR)
    return LabelModel(accuracies_R, num_labels, num_steps=0, settled=True)


def agreement_model(votes_NR: np.ndarray, num_labels: int) -> LabelModel:
    """Learn how far each rule can be trusted from where rules agree.

    Args:
        votes_NR: the place of the label that each rule gives each row, or NONE.
        num_labels: at least 2.
    """
    votes_NR, weight_N = np.unique(votes_NR, axis=0, return_counts=True)  # few patterns of votes occur
    chances_NC = majority(votes_NR, num_labels)
    accuracies_R, settled, step = np.full(votes_NR.shape[1], 0.5), False, 0
    while not settled and step < MAX_STEPS:
        step += 1
        before_R = accuracies_R
        accuracies_R = _accuracies(votes_NR, weight_N, chances_NC)
        settled = bool(np.abs(accuracies_R - before_R).max() < TOLERANCE)
        chances_NC = LabelModel(accuracies_R, num_labels, step, settled).probabilities(votes_NR)
    return LabelModel(accuracies_R, num_labels, step, settled)


def majority(votes_NR: np.ndarray, num_labels: int) -> np.ndarray:
    """Each label's share of the votes [N, C]; all alike where no rule speaks."""
    counts_NC = np.stack([(votes_NR == label).sum(axis=1) for label in range(num_labels)], axis=1)
    silent_N1 = counts_NC.sum(axis=1, keepdims=True) == 0
    shares_NC: np.ndarray = np.where(silent_N1, 1.0, counts_NC)
    return shares_NC / shares_NC.sum(axis=1, keepdims=True)


def _accuracies(votes_NR: np.ndarray, weight_N: np.ndarray, chances_NC: np.ndarray) -> np.ndarray:
    """The probable share of right votes of each rule, with those of the prior [R]."""
    spoken_NR = votes_NR != NONE
    of_vote_NR = np.take_along_axis(chances_NC, np.where(spoken_NR, votes_NR, 0), axis=1)
    prior = PRIOR_RIGHT * AGREEMENT_PRIOR, (1 - PRIOR_RIGHT) * AGREEMENT_PRIOR
    right_R = weight_N @ (of_vote_NR * spoken_NR) + prior[0] - 1  # the mode of the posterior
    wrong_R = weight_N @ ((1 - of_vote_NR) * spoken_NR) + prior[1] - 1
    accuracies_R: np.ndarray = right_R / (right_R + wrong_R)
    return accuracies_R
