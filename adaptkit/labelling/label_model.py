"""Weigh the votes of rules by how well they agree, without a single true label.

    model = fit_label_model(votes_NR, num_labels=3)      # NONE where a rule says nothing
    model.probabilities(votes_NR)                        # [N, C]

Each rule is right with a probability of its own when it speaks, whatever the label, and errs alike on all
other labels; given the true label, rules are independent: the one-coin model of Dawid and Skene (1979,
Applied Statistics 28), as data programming uses it (Ratner et al., arXiv 1605.07723). Whether a rule speaks
tells nothing, and no label is likelier than another before it does. The accuracies are those of maximal
posterior under a Beta prior, found by expectation maximisation from majority votes on.

The prior is there for rules that nobody contradicts: without it they would be taken for infallible. Rules
that say the same thing twice count twice, and that no model of agreement can tell.

Shape suffixes: N = rows, R = rules, C = labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NONE = -1
PRIOR_RIGHT, PRIOR_WRONG = 7.0, 3.0
"""Votes that each rule is taken to have been right and wrong with before any is counted: 70 % of ten."""
MAX_STEPS, TOLERANCE = 500, 1e-7


@dataclass(frozen=True)
class LabelModel:
    """What was learnt of rules.

    Attributes:
        accuracies_R: how often each is right when it speaks.
        num_labels: C.
        num_steps: of the maximisation.
        settled: whether the accuracies had stopped moving by then.
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


def fit_label_model(votes_NR: np.ndarray, num_labels: int) -> LabelModel:
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
    right_R = weight_N @ (of_vote_NR * spoken_NR) + PRIOR_RIGHT - 1  # the mode of the posterior
    wrong_R = weight_N @ ((1 - of_vote_NR) * spoken_NR) + PRIOR_WRONG - 1
    accuracies_R: np.ndarray = right_R / (right_R + wrong_R)
    return accuracies_R
