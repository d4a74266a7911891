"""Which rows are chosen for labelling, against each method written out. Home of labelling.selection."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from adaptkit.labelling import selection
from adaptkit.labelling.selection import STRATEGIES, Pool, margins, select

RNG = np.random.default_rng(3)
VECTORS_ND = RNG.normal(size=(30, 6)) * (RNG.random((30, 6)) < 0.6)
LABELLED_MD = RNG.normal(size=(5, 6))
CHANCES_NC = RNG.dirichlet(np.ones(3), 30)
POOL = Pool(VECTORS_ND, LABELLED_MD, CHANCES_NC)
SPARSE = Pool(csr_matrix(VECTORS_ND), csr_matrix(LABELLED_MD), CHANCES_NC)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_seed_always_chooses_the_same_rows_each_once(strategy: selection.Strategy) -> None:
    chosen = select(strategy, POOL, 12, seed=4)
    assert len(set(chosen)) == 12 == len(chosen) and chosen == select(strategy, SPARSE, 12, seed=4)
    assert sorted(select(strategy, POOL, 99, seed=4)) == list(range(30))


@pytest.mark.parametrize("strategy", ["random", "both"])
def test_another_seed_draws_others(strategy: selection.Strategy) -> None:
    assert select(strategy, POOL, 12, seed=4) != select(strategy, POOL, 12, seed=5)


def test_the_smallest_margins_come_first_and_ties_by_seed() -> None:
    chances_NC = np.array([[0.5, 0.4, 0.1], [0.9, 0.1, 0.0], [0.4, 0.3, 0.3], [0.6, 0.3, 0.1]])
    assert margins(chances_NC) == pytest.approx([0.1, 0.8, 0.1, 0.3])
    pool = Pool(np.ones((4, 1)), np.ones((1, 1)), np.round(chances_NC, 1))
    orders = {tuple(select("uncertainty", pool, 4, seed)) for seed in range(8)}
    assert {order[2:] for order in orders} == {(3, 1)} and {order[0] for order in orders} <= {0, 2}
    equal = Pool(np.ones((4, 1)), np.ones((1, 1)), np.full((4, 2), 0.5))
    assert len({select("uncertainty", equal, 1, seed)[0] for seed in range(20)}) > 1


def test_each_centre_is_the_farthest_from_all_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "CHUNK_ROWS", 2)
    near = list(LABELLED_MD)
    for place in select("diversity", POOL, 10, seed=0):
        distances = [min(np.linalg.norm(row - other) for other in near) for row in VECTORS_ND]
        assert distances[place] == pytest.approx(max(distances))
        near.append(VECTORS_ND[place])


def test_without_labels_the_first_centre_is_drawn() -> None:
    pool = Pool(VECTORS_ND, LABELLED_MD[:0])
    chosen = select("diversity", pool, 3, seed=0)
    distances = np.linalg.norm(VECTORS_ND - VECTORS_ND[chosen[0]], axis=1)
    assert chosen[1] == distances.argmax() and chosen[0] != select("diversity", pool, 1, seed=1)[0]


def test_both_is_k_means_plus_plus_over_gradients_written_out() -> None:
    errors_NC = CHANCES_NC - np.eye(3)[CHANCES_NC.argmax(axis=1)]
    gradients = np.einsum("nc,nd->ncd", errors_NC, VECTORS_ND).reshape(30, -1)
    rng, chosen = np.random.default_rng(7), list[int]()
    for _ in range(12):
        centres = [np.zeros(18), *(gradients[place] for place in chosen)]
        squares = np.array([min(((g - c) ** 2).sum() for c in centres) for g in gradients])
        squares[chosen] = 0
        chosen.append(int(rng.choice(30, p=squares / squares.sum())))
    assert select("both", POOL, 12, seed=7) == chosen


def test_both_asks_no_text_twice_while_others_are_left() -> None:
    vectors_ND = np.repeat(np.eye(4), 3, axis=0)
    chances_NC = np.repeat([[0.6, 0.4], [0.55, 0.45], [0.5, 0.5], [0.7, 0.3]], 3, axis=0)
    chosen = select("both", Pool(vectors_ND, vectors_ND[:0], chances_NC), 12, seed=0)
    assert {place // 3 for place in chosen[:4]} == {0, 1, 2, 3} and sorted(chosen) == list(range(12))


def test_a_model_is_needed_to_be_unsure() -> None:
    with pytest.raises(ValueError, match="'uncertainty' needs a model's probabilities"):
        select("uncertainty", Pool(VECTORS_ND, LABELLED_MD), 3, seed=0)
