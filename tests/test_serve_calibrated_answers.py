"""The fields that a classifier's answer gets, and answers that stay as they are."""

from __future__ import annotations

import json

import pytest

from adaptkit.export.record import ConfidenceRecord
from adaptkit.serve.gateway.calibrated_answers import with_abstention
from adaptkit.study.calibration import soften


def record(temperature: float = 2.0, threshold: float | None = 0.6) -> ConfidenceRecord:
    return ConfidenceRecord(
        temperature=temperature, threshold=threshold, wanted_accuracy=0.97, num_fitted=100
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_scaling_is_that_of_the_audit(temperature: float) -> None:
    chances = [0.7, 0.2, 0.1, 0.0]
    expected = soften([chances], temperature)[0]
    assert record(temperature).judge(chances)["calibrated_probs"] == pytest.approx(expected.tolist())


def test_it_abstains_below_the_threshold_and_only_there() -> None:
    sure = record(1.0, 0.5).judge([0.5, 0.5])
    assert sure["confidence"] == 0.5 and sure["abstain"] is False
    assert record(1.0, 0.51).judge([0.5, 0.5])["abstain"] is True
    assert record(1.0, None).judge([0.5, 0.5])["abstain"] is False


def test_every_row_of_an_answer_is_judged_and_kept() -> None:
    rows = [{"index": 0, "label": "\u00e9t\u00e9", "probs": [0.9, 0.1]}, {"index": 1, "probs": [0.5, 0.5]}]
    body = json.dumps({"id": "x", "data": rows}, ensure_ascii=False).encode()
    answer = json.loads(with_abstention(body, record()))
    assert answer["id"] == "x" and [row["abstain"] for row in answer["data"]] == [False, True]
    assert all(row.items() <= after.items() for row, after in zip(rows, answer["data"], strict=True))


@pytest.mark.parametrize("body", [b"no json", b'{"error": 1}', b'{"data": [{"label": "a"}]}', b"[1]"])
def test_a_body_of_another_shape_stays_as_it_is(body: bytes) -> None:
    assert with_abstention(body, record()) == body
