"""Scores of one group of items less those of the others: against plain arithmetic, and their coverage. Home
of audit.group_gaps."""

from __future__ import annotations

import numpy as np
import pytest

from adaptkit.audit.group_gaps import gap_freedom, gap_table, group_items, part_table
from adaptkit.data.score_table import accuracy_table, macro_f1_table, mean_table
from adaptkit.study.statistics import resample


def test_groups_need_items_documents_and_something_beside_them() -> None:
    values = ["north"] * 40 + ["south"] * 30 + ["east"] * 10 + ["west"] * 30 + [None] * 5
    clusters = [f"d{i}" for i in range(80)] + ["one"] * 30 + [f"e{i}" for i in range(5)]
    groups = group_items(values, clusters)
    assert list(groups.inside) == ["north", "south"]
    assert groups.left_out == {"west": 30, "east": 10} and groups.num_missing == 5
    assert groups.inside["south"].sum() == 30 and groups.known.sum() == 110
    assert not group_items(["all"] * 50, list(range(50))).inside


def test_numbers_and_dates_with_many_values_are_cut_into_quarters() -> None:
    years = [str(1980 + i % 40) for i in range(400)]
    groups = group_items(years, list(range(400)))
    assert list(groups.inside) == ["1980 to 1989", "1990 to 1999", "2000 to 2009", "2010 to 2019"]
    assert {int(part.sum()) for part in groups.inside.values()} == {100}
    dates = [f"2{i % 100:03}-06-01" for i in range(400)]
    assert list(group_items(dates, list(range(400))).inside)[0] == "2000-06-01 to 2024-06-01"
    assert list(group_items([str(i % 3) for i in range(90)], list(range(90))).inside) == ["0", "1", "2"]
    names = [f"journal {i % 40}" for i in range(4000)]
    named = group_items(names, list(range(4000)))
    assert len(named.inside) == 12 and len(named.left_out) == 28


def test_a_gap_is_the_difference_of_both_parts_for_any_metric() -> None:
    rng = np.random.default_rng(0)
    truth, said = rng.choice(list("abc"), 120), rng.choice(list("abc"), 120)
    inside, known = rng.random(120) < 0.4, rng.random(120) < 0.9
    inside &= known
    other = known & ~inside
    clusters = rng.integers(0, 40, 120).tolist()
    for make in (accuracy_table, macro_f1_table):
        own, rest = make(said[inside], truth[inside]).value, make(said[other], truth[other]).value
        table = make(said, truth)
        assert gap_table(table, inside, other, clusters).value == pytest.approx(own - rest)
        assert part_table(table, inside, clusters).value == pytest.approx(own)


def test_its_variance_is_that_of_two_samples() -> None:
    rng = np.random.default_rng(1)
    values, inside = rng.normal(size=300), np.arange(300) < 60
    clusters = list(range(300))
    replicates = resample({"a": [gap_table(mean_table(values.tolist()), inside, ~inside, clusters)]})
    own, rest = values[inside], values[~inside]
    wanted = own.var(ddof=1) / 60 + rest.var(ddof=1) / 240
    found = replicates.compare("a", "a", margin=0, higher_is_better=True).difference
    assert found == 0
    half = (replicates.interval("a").high - replicates.interval("a").low) / 2
    assert half == pytest.approx(1.96 * np.sqrt(wanted), rel=0.06)


@pytest.mark.parametrize(("num_inside", "size"), [(5, 8), (12, 4)])
def test_intervals_of_few_documents_cover(num_inside: int, size: int) -> None:
    """Documents of unlike difficulty, five of them in the group: 95 % intervals hold the truth, 0."""
    rng, hits, runs = np.random.default_rng(num_inside), 0, 150
    clusters = np.repeat(np.arange(num_inside + 30), size)
    inside = clusters < num_inside
    freedom = gap_freedom(inside, ~inside, clusters.tolist())
    assert freedom == pytest.approx(num_inside - 1)
    for _ in range(runs):
        values = rng.normal(size=num_inside + 30)[clusters] + rng.normal(size=len(clusters))
        table = gap_table(mean_table(values.tolist()), inside, ~inside, clusters.tolist())
        interval = resample({"a": [table]}, num_resamples=400, item_freedom=freedom).interval("a")
        hits += interval.low <= 0 <= interval.high
    assert 0.90 <= hits / runs <= 0.99
