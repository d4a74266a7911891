"""The parity report: what parity.json says, and when an export has passed."""

from __future__ import annotations

import dataclasses

import pytest

from adaptkit import models
from adaptkit.export.parity.answers import ask
from adaptkit.export.parity.evaluation_data import EvaluationData, find_evaluation_data
from adaptkit.export.parity.gate import Check
from adaptkit.export.parity.measure import ParityReport, compare_merge
from adaptkit.export.resolve import resolve
from adaptkit.export.weights import load_trained
from adaptkit.run import Run

DATA = EvaluationData([("a", "the nurse reads")], "one text", seq_len=32)


@pytest.mark.parametrize(("loss", "passed"), [(0.01, True), (0.03, False), (float("nan"), False)])
def test_an_export_passes_if_every_figure_is_within_its_limit(loss: float, passed: bool) -> None:
    checks = (Check("told", None, None, 9.0, None), Check("bits per byte", 1.0, 1.0 + loss, loss, 0.02))
    report = ParityReport("int8", "rtn", DATA, "no adapter", checks)
    assert report.passed is passed
    assert report.as_json() | {"checks": []} == {
        "format": "int8",
        "method": "rtn",
        "passed": passed,
        "text": {"origin": "one text", "texts": 1, "digest": None, "tokens_per_window": 32},
        "items": {"origin": "no task: only the text was compared", "items": 0},
        "merge": "no adapter",
        "checks": [],
    }
    assert [check["ok"] for check in report.as_json()["checks"]] == [True, passed]


def test_the_merge_is_compared_only_where_there_was_an_adapter(notes: Run, mood: Run) -> None:
    phrases: list[str] = []
    source = resolve(mood.path)
    tokenizer, data = models.load_tokenizer(source.folder), find_evaluation_data(source)
    merged = ask(source, load_trained(source), tokenizer, data)
    words, checks = compare_merge(source, tokenizer, data, merged, phrases.append)
    assert words == "base and adapter as trained against the merged model"
    assert [check.name for check in checks] == ["largest change by merging the adapter, relative"]
    assert checks[0].ok and phrases == ["asking base and adapter as trained"]
    whole = dataclasses.replace(source, adapter=None)
    assert compare_merge(whole, tokenizer, data, merged, phrases.append) == (
        "no adapter: the exported weights are the trained ones",
        [],
    )
    gone = dataclasses.replace(source, base="/nowhere/at/all")
    words, checks = compare_merge(gone, tokenizer, data, merged, phrases.append)
    assert "is not here: the merge was checked when it was made, not again" in words and checks == []
