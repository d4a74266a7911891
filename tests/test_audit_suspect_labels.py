"""Confident learning, against a plain transcription of its paper, and cleanlab where that is there."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.audit.suspect_labels import confident_joint, find_suspects, noise_of_labels


def noisy(
    num: int, share: float, seed: int, num_classes: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a fair classifier, given labels of which a share was changed, and the true ones."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(
        num_classes, num, p=np.arange(1, num_classes + 1) / np.arange(1, num_classes + 1).sum()
    )
    logits = rng.normal(0, 1.2, (num, num_classes))
    logits[np.arange(num), truth] += 2.5
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    changed = rng.random(num) < share
    given = np.where(changed, (truth + rng.integers(1, num_classes, num)) % num_classes, truth)
    return chances, given, truth


def joint_of_the_paper(chances: np.ndarray, given: np.ndarray) -> list[list[int]]:
    """Equations 1 and 2 of arXiv 1911.00068, row by row."""
    classes = range(chances.shape[1])
    rows = [(dict(zip(classes, row, strict=True)), label) for row, label in zip(chances, given, strict=True)]
    threshold = {}
    for j in classes:
        own = [row[j] for row, label in rows if label == j]
        threshold[j] = sum(own) / len(own)
    joint = [[0 for _ in classes] for _ in classes]
    for row, label in rows:
        reached = [j for j in classes if row[j] >= threshold[j]]
        if reached:
            joint[label][max(reached, key=lambda j: row[j])] += 1
    return joint


@pytest.mark.parametrize("seed", range(5))
def test_the_confident_joint_is_that_of_the_paper(seed: int) -> None:
    chances, given, _ = noisy(500, 0.15, seed)
    assert confident_joint(chances, given).tolist() == joint_of_the_paper(chances, given)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.2])
def test_cleanlab_finds_the_same_rows_in_the_same_order(share: float) -> None:
    filtering = pytest.importorskip("cleanlab.filter")
    chances, given, _ = noisy(800, share, 3)
    theirs = filtering.find_label_issues(
        given, chances, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    ours = find_suspects(chances, given)
    # more than one class reached: the paper takes the likeliest of these, cleanlab the likeliest of all
    assert len(set(ours) ^ set(theirs.tolist())) <= 0.02 * len(ours)
    shared = set(ours) & set(theirs.tolist())
    assert [row for row in ours if row in shared] == [row for row in theirs.tolist() if row in shared]


def test_changed_labels_are_found_and_the_least_probable_come_first() -> None:
    chances, given, truth = noisy(3000, 0.1, 0)
    suspects = find_suspects(chances, given)
    wrong = set(np.flatnonzero(given != truth).tolist())
    hits = [place in wrong for place in suspects]
    assert sum(hits) / len(hits) > 0.55 and sum(hits) / len(wrong) > 0.7
    assert np.mean(hits[: len(hits) // 2]) > np.mean(hits[len(hits) // 2 :])
    own = chances[suspects, given[suspects]]
    assert (np.diff(own) >= 0).all()


def test_a_row_that_is_predicted_to_be_of_its_label_is_no_suspect() -> None:
    chances, given, _ = noisy(500, 0.2, 1)
    assert all(chances[place].argmax() != given[place] for place in find_suspects(chances, given))
    agreed = chances.argmax(axis=1)
    assert find_suspects(chances, agreed) == []


def test_the_noise_of_each_label_is_estimated() -> None:
    chances, given, _ = noisy(2000, 0.15, 2)
    joint = joint_of_the_paper(chances, given)
    rows = noise_of_labels("abcd", chances, given)
    assert [row.num_rows for row in rows] == sorted((row.num_rows for row in rows), reverse=True)
    for row in rows:
        own = "abcd".index(row.label)
        assert row.num_rows == (given == own).sum()
        assert row.wrong == pytest.approx(1 - joint[own][own] / sum(joint[own]))
    assert sum(row.num_suspects for row in rows) == len(find_suspects(chances, given))


def test_a_label_without_rows_is_nobodys_and_has_no_estimate() -> None:
    chances, given, _ = noisy(200, 0.1, 4, num_classes=3)
    wider = np.concatenate([chances, np.zeros((200, 1))], axis=1)
    assert find_suspects(wider, given) == find_suspects(chances, given)
    empty = next(row for row in noise_of_labels("abcd", wider, given) if row.label == "d")
    assert (empty.num_rows, empty.wrong) == (0, None)
