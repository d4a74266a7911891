"""What a run is, read back from its manifest: whole, checked, and never of an older release."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptkit.adapters import AdapterConfig
from adaptkit.errors import DataError
from adaptkit.run import Run
from adaptkit.run_record import (
    ModelKind,
    RecipeKind,
    RunRecord,
    SplitRecord,
    SuiteRecord,
    read_record,
    validated,
)

RECORD = RunRecord(
    recipe=RecipeKind.FINETUNE,
    model_kind=ModelKind.CLASSIFIER,
    task="ticket",
    suite="ticket",
    base="somebody/base",
    adapter=AdapterConfig(kind="lora"),
    seq_len=64,
    splits={"train": SplitRecord(kind="labelled", documents=3, num_bytes=30, digest="d" * 64)},
    suites={"ticket": SuiteRecord(judged_on="test", num_items=2, metrics={"accuracy": 0.5})},
    num_steps=10,
    params=1000,
    facts={"labels": ["a", "b"]},
)


def _finished(tmp_path: Path, **fields: object) -> Run:
    run = Run.open(tmp_path, "one", {})
    run.finish(**fields)
    return run


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(_finished(tmp_path, record=RECORD.model_dump(mode="json"))) == RECORD


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RECORD.task = "another"  # type: ignore[misc]


@pytest.mark.parametrize("status", ["new", "running", "failed"])
def test_a_run_that_has_not_ended_has_none(tmp_path: Path, status: str) -> None:
    run = Run.open(tmp_path, "one", {})
    run.update_manifest(status=status)
    with pytest.raises(DataError, match=rf"not ended \(status: {status}\)") as refused:
        read_record(run)
    assert "resumes" in refused.value.fix


@pytest.mark.parametrize("record", [None, {}, {"format": 1, "recipe": "finetune"}, "x"])
def test_runs_of_an_older_release_are_refused_with_what_to_do(tmp_path: Path, record: object) -> None:
    fields = {} if record is None else {"record": record}
    if record == {}:
        fields = {"record": {"format": 3}}
    with pytest.raises(DataError, match="older release") as refused:
        read_record(_finished(tmp_path, **fields))
    assert "another --root" in refused.value.fix


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"recipe": "cooking"}, "recipe"),
        ({"unknown": 1}, "unknown"),
        ({"splits": {"train": {"kind": "text"}}}, "splits.train.documents"),
    ],
)
def test_a_record_that_does_not_fit_is_named_by_its_key(change: dict, key: str) -> None:
    value = RECORD.model_dump(mode="json") | change
    with pytest.raises(DataError, match=f"does not fit at '{key}'") as refused:
        validated(RunRecord, value, "run/manifest.json")
    assert refused.value.where == "run/manifest.json"
