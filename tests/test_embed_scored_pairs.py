"""Scores of pairs keep their range, or are scaled once, by the training's. Home of embed.scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptkit.data.readers import DataConfig
from adaptkit.embed.examples import train_and_dev
from adaptkit.embed.scored_pairs import Scale
from adaptkit.embed.scores import scores_of
from adaptkit.errors import DataError

numbers = st.integers(-1000, 1000).map(lambda number: number / 100)


def scored(path: Path, values: list, name: str = "score") -> DataConfig:
    rows = ({"text1": f"one {i}", "text2": f"two {i}", name: value} for i, value in enumerate(values))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataConfig(files=[str(path)])


def targets(folder: Path, train: list, dev: list, loss: str = "cosine", name: str = "score"):
    learnt, watched = train_and_dev(
        scored(folder / "train.jsonl", train, name), scored(folder / "dev.jsonl", dev, name), loss
    )
    return [row.target for row in learnt.rows], [row.target for row in watched.rows], learnt.scale


@pytest.mark.parametrize(
    ("train", "dev"),
    [([0.3, 0.5, 0.8], [0.6, 0.7]), ([0, 1], [0.2, 0.9]), ([-1, 0.5], [-0.3, 1.0]), ([0, 0], [0, 1])],
)
def test_what_a_cosine_can_be_stays_as_it_is(tmp_path: Path, train: list, dev: list) -> None:
    learnt, watched, _ = targets(tmp_path, train, dev)
    assert (learnt, watched) == (train, dev)


def test_other_scores_are_scaled_by_the_trainings_range(tmp_path: Path) -> None:
    learnt, watched, scale = targets(tmp_path, [1, 2, 5], [2, 3, 0])
    assert learnt == [0, 0.25, 1] and watched == [0.25, 0.5, -0.25]
    assert str(scale) == "1 to 5 in training, scaled to 0 to 1; dev and test by the same rule"


def test_labels_keep_their_side(tmp_path: Path) -> None:
    for values, expected in (([0, 0], [0, 0]), ([1, 1], [1, 1]), ([1, 2], [0, 1]), (["no", "yes"], [0, 1])):
        learnt, watched, _ = targets(tmp_path, values, values, "margin", "label")
        assert learnt == watched == expected


def test_a_held_out_part_is_on_the_same_scale(tmp_path: Path) -> None:
    values = [round(0.3 + 0.5 * i / 99, 3) for i in range(100)]
    learnt, watched = train_and_dev(scored(tmp_path / "all.jsonl", values), None, "cosine")
    assert sorted(row.target for row in [*learnt.rows, *watched.rows]) == values


@pytest.mark.parametrize(
    ("train", "dev", "match"),
    [
        ([5, 5], [5, 5], "all scores are 5, which tells no scale"),
        ([0.1, 0.9], [0.5, 3], "the score 3 is of another scale than the training's, 0.1 to 0.9"),
        ([0, 5], [50, 70], "the score 50 is of another scale than the training's, 0 to 5"),
    ],
)
def test_scores_of_no_or_another_scale_are_refused(tmp_path: Path, train, dev, match) -> None:
    with pytest.raises(DataError, match=match):
        targets(tmp_path, train, dev)


@given(st.lists(numbers, min_size=2, max_size=20))
def test_targets_keep_order_and_range(values: list[float]) -> None:
    if max(values) == min(values):
        return
    scale = Scale.of(values, "x:1")
    mapped = [scale.target(value, "x:1") for value in values]
    assert all(-1 <= target <= 1 for target in mapped)
    assert [a <= b for a, b in zip(values, values[1:], strict=False)] == [
        a <= b for a, b in zip(mapped, mapped[1:], strict=False)
    ]
    if min(values) >= -1 and max(values) <= 1:
        assert mapped == values
    else:
        assert (min(mapped), max(mapped)) == (0, 1)


def test_a_correlation_with_what_does_not_differ_is_no_score() -> None:
    rows = [{"id": str(i), "score": 0.5, "cosine": i / 9} for i in range(4)]
    assert scores_of(rows) == {}
    assert scores_of([{**row, "score": row["cosine"]} for row in rows]) == {"spearman": 1.0}
