"""Labels that a part of the data lacks are named, and those that only look different."""

from __future__ import annotations

import pytest

from adaptkit.data.label_names import alike_labels, check_labels, missing_labels
from adaptkit.data.readers import Dataset, Row
from adaptkit.errors import DataError


def labelled(*labels: str) -> Dataset:
    rows = [
        Row({"text": str(i), "label": label}, f"x.jsonl:{i + 1}", str(i)) for i, label in enumerate(labels)
    ]
    return Dataset(rows, "labelled", {})


def test_a_label_without_training_rows_is_named_with_its_rows() -> None:
    data = labelled("a", "c", "d", "c")
    with pytest.raises(DataError, match="label 'c' stands in 2 rows of test and does not occur") as error:
        check_labels(data, ["a", "b"], "test")
    assert error.value.where == "x.jsonl:2" and "nor do d" in error.value.what
    assert error.value.fix == "use one of a, b, or add training rows with it"
    check_labels(data, ["a", "c", "d"])
    assert missing_labels(data, ["a"]) == {"c": 2, "d": 1}


def test_a_label_in_other_letters_is_told_how_it_is_written() -> None:
    with pytest.raises(DataError) as error:
        check_labels(labelled("Spam "), ["ham", "spam"])
    assert error.value.fix == "write it as the training rows do: 'spam'"


def test_labels_that_differ_only_in_blanks_or_capitals() -> None:
    assert alike_labels(["a", "A ", "b", "not ok", "notok", "\uff42", "c"]) == [
        ["A ", "a"],
        ["b", "\uff42"],
        ["not ok", "notok"],
    ]
    assert alike_labels(["a", "b"]) == []
