"""The votes of rules, weighed: against sums over every label written out, and on planted rules. Home of
labelling.label_model."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from adaptkit.labelling import label_model
from adaptkit.labelling.label_model import NONE, LabelModel, agreement_model, majority, measured_model

VOTES_NR = np.array([[0, 0, 1], [1, NONE, 1], [2, 0, NONE], [NONE, NONE, 2], [0, 0, NONE], [NONE, 1, 1]])
NUM_LABELS = 3


def likelihood(votes_R: np.ndarray, label: int, accuracies_R: np.ndarray) -> float:
    """Of the votes on a row, if a label is the true one."""
    product = 1.0
    for vote, accuracy in zip(votes_R, accuracies_R, strict=True):
        if vote != NONE:
            product *= accuracy if vote == label else (1 - accuracy) / (NUM_LABELS - 1)
    return product


def log_posterior(accuracies_R: np.ndarray) -> float:
    """Of the accuracies, up to a constant: summed over every assignment of labels to all rows."""
    total = 0.0
    for labels in itertools.product(range(NUM_LABELS), repeat=len(VOTES_NR)):
        parts = [likelihood(row, label, accuracies_R) for row, label in zip(VOTES_NR, labels, strict=True)]
        total += math.prod(parts) / NUM_LABELS ** len(VOTES_NR)
    prior = label_model.AGREEMENT_PRIOR
    right, wrong = label_model.PRIOR_RIGHT * prior, (1 - label_model.PRIOR_RIGHT) * prior
    return math.log(total) + float(
        ((right - 1) * np.log(accuracies_R) + (wrong - 1) * np.log(1 - accuracies_R)).sum()
    )


def test_probabilities_are_those_of_bayes_written_out() -> None:
    accuracies_R = np.array([0.9, 0.6, 0.75])
    chances_NC = LabelModel(accuracies_R, NUM_LABELS, 0, True).probabilities(VOTES_NR)
    for votes_R, chances_C in zip(VOTES_NR, chances_NC, strict=True):
        each = np.array([likelihood(votes_R, label, accuracies_R) for label in range(NUM_LABELS)])
        assert chances_C == pytest.approx(each / each.sum())
    silent = LabelModel(accuracies_R, NUM_LABELS, 0, True).probabilities(np.full((1, 3), NONE))
    assert silent[0] == pytest.approx([1 / 3] * 3)


def test_agreement_finds_a_peak_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_model, "AGREEMENT_PRIOR", 10)
    model = agreement_model(VOTES_NR, NUM_LABELS)
    peak = log_posterior(model.accuracies_R)
    assert model.settled and len(set(model.accuracies_R.round(6))) > 1
    for rule, step in itertools.product(range(3), (-1e-2, 1e-2)):
        moved = model.accuracies_R.copy()
        moved[rule] += step
        assert log_posterior(moved) < peak
    slope = [
        (log_posterior(model.accuracies_R + e) - log_posterior(model.accuracies_R - e)) / 2e-5
        for e in 1e-5 * np.eye(3)
    ]
    assert slope == pytest.approx([0, 0, 0], abs=1e-3)


def planted(rng: np.random.Generator, accuracies: list[float], num: int) -> tuple[np.ndarray, np.ndarray]:
    """Votes of independent rules that speak of half of the rows, and the truth."""
    truth_N = rng.integers(0, NUM_LABELS, num)
    votes = []
    for accuracy in accuracies:
        wrong_N = (truth_N + rng.integers(1, NUM_LABELS, num)) % NUM_LABELS
        said_N = np.where(rng.random(num) < accuracy, truth_N, wrong_N)
        votes.append(np.where(rng.random(num) < 0.5, said_N, NONE))
    return np.stack(votes, axis=1), truth_N


def test_independent_rules_are_told_apart_by_agreement_alone() -> None:
    accuracies = [0.95, 0.9, 0.7, 0.55, 0.4]
    votes_NR, truth_N = planted(np.random.default_rng(0), accuracies, 20_000)
    model = agreement_model(votes_NR, NUM_LABELS)
    assert model.accuracies_R == pytest.approx(accuracies, abs=0.02)
    spoken_N = (votes_NR != NONE).any(axis=1)
    weighed = (model.probabilities(votes_NR).argmax(axis=1) == truth_N)[spoken_N].mean()
    voted = (majority(votes_NR, NUM_LABELS).argmax(axis=1) == truth_N)[spoken_N].mean()
    assert weighed > voted + 0.03


def test_measured_weights_count_right_votes_and_the_prior() -> None:
    model = measured_model(VOTES_NR, np.array([0, 1, 2, 2, 1, -2]), NUM_LABELS)
    # right of spoken: 3 of 4, 1 of 4, 2 of 4; the prior is 7 of 10; -2 is no vote of any rule
    assert model.accuracies_R == pytest.approx([10 / 14, 8 / 14, 9 / 14])
    nothing = measured_model(VOTES_NR[:0], np.array([], int), NUM_LABELS)
    assert nothing.accuracies_R == pytest.approx([0.7] * 3)


def test_an_absent_label_is_not_taken_for_silence() -> None:
    votes_NR = np.array([[NONE], [NONE], [0]])
    assert measured_model(votes_NR, np.array([NONE, NONE, 0]), 2).accuracies_R == pytest.approx([8 / 11])


def test_a_majority_is_shares_of_votes() -> None:
    assert majority(VOTES_NR, NUM_LABELS)[0] == pytest.approx([2 / 3, 1 / 3, 0])
    assert majority(np.full((1, 2), NONE), 4)[0] == pytest.approx([0.25] * 4)
