"""Learning rates: the grid, the one that follows from it, the correction to the length of a run."""

from __future__ import annotations

import pytest

from adaptkit.study.tuning import for_length, grid, one_more


def test_a_grid_is_geometric_around_its_centre() -> None:
    assert grid(3e-4, 3) == pytest.approx([1e-4, 3e-4, 9e-4])
    assert grid(1e-3, 1) == [1e-3]
    assert grid(3e-4, 2) == pytest.approx([3e-4 / 3**0.5, 3e-4 * 3**0.5], rel=1e-2)


def test_where_the_best_lies_at_an_edge_the_next_lies_beyond_it() -> None:
    rates = [1e-4, 3e-4, 9e-4]
    assert one_more(rates, [3.0, 2.0, 1.0]) == pytest.approx(2.7e-3)
    assert one_more(rates, [1.0, 2.0, 3.0]) == pytest.approx(1e-4 / 3, rel=1e-2)


def test_else_it_lies_between_the_best_and_its_better_neighbour() -> None:
    rates = [1e-4, 3e-4, 9e-4]
    assert one_more(rates, [2.0, 1.0, 3.0]) == pytest.approx((1e-4 * 3e-4) ** 0.5, rel=1e-2)
    assert one_more(rates, [3.0, 1.0, 2.0]) == pytest.approx((9e-4 * 3e-4) ** 0.5, rel=1e-2)


def test_the_order_of_trials_does_not_matter() -> None:
    assert one_more([9e-4, 1e-4, 3e-4], [1.0, 3.0, 2.0]) == pytest.approx(2.7e-3)


def test_a_longer_run_takes_a_smaller_rate_and_a_shorter_one_a_larger() -> None:
    assert for_length(1e-3, 100, 100) == 1e-3
    assert for_length(1e-3, 20, 100) == pytest.approx(1e-3 * 0.2**0.32, rel=1e-2)
    assert for_length(1e-3, 100, 50) == pytest.approx(1e-3 * 2**0.32, rel=1e-2)
