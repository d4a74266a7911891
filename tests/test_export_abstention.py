"""What an exported classifier says of its confidence: fitted on dev, measured on test, refused without."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from test_audit_selective import made_rows

from adaptkit.audit.confidence import audit_rows
from adaptkit.errors import ConfigError
from adaptkit.export.abstention import confidence_note, confidence_of
from adaptkit.export.driver import Options, export
from adaptkit.export.record import read_export
from adaptkit.export.resolve import resolve
from adaptkit.export.source import Source
from adaptkit.run import Run, write_jsonl


def source_of(folder: Path, dev: list[dict], test: list[dict], kind: str = "classify") -> Source:
    run = Run(folder)
    write_jsonl(run.items("queue", "dev"), dev)
    write_jsonl(run.items("queue"), test)
    return Source(folder, kind, "queues", "", scored_run=folder, suite="queue")


def test_it_is_fitted_on_development_items_and_measured_on_test_items(tmp_path: Path) -> None:
    dev, test = made_rows(300, 2.0, seed=1), made_rows(500, 2.0, seed=2)
    record = confidence_of(source_of(tmp_path, dev, test))
    audit = audit_rows("queues", "queue", [(sorted(test, key=lambda row: row["id"]), dev)], None)
    assert record is not None and record.measured is not None and audit.wanted is not None
    assert (record.temperature, record.threshold) == (audit.temperature, audit.wanted.thresholds[0])
    assert (record.num_fitted, record.measured.num_items) == (300, 500)
    accuracy = audit.wanted.accuracy
    assert record.measured.accuracy == (accuracy.mean, accuracy.low, accuracy.high)
    mean, low, high = record.measured.answered
    assert low < mean < high and mean == pytest.approx(1 - audit.wanted.share.mean)
    note = confidence_note(record)[0]
    assert "scaled on 300 development items" in note and f"{100 * accuracy.mean:.1f} % [" in note


def test_a_wanted_accuracy_is_taken_or_refused(tmp_path: Path) -> None:
    source = source_of(tmp_path, made_rows(300, seed=1), made_rows(300, seed=2))
    cautious, bold = (confidence_of(source, accuracy) for accuracy in (0.9, 0.8))
    assert cautious is not None and bold is not None and cautious.threshold > bold.threshold
    with pytest.raises(ConfigError, match="right less often than 0.999"):
        confidence_of(source, 0.999)


def test_models_without_one_label_or_development_items_have_none(tmp_path: Path) -> None:
    rows = made_rows(100)
    source = source_of(tmp_path, rows, rows)
    assert confidence_of(replace(source, kind="generate")) is None
    assert confidence_of(replace(source, scored_run=None)) is None
    assert confidence_note(None) == []
    few = source_of(tmp_path / "few", rows[:10], rows)
    assert confidence_of(few) is None
    with pytest.raises(ConfigError, match="no answers to 20 or more development items"):
        confidence_of(few, 0.9)
    no_test = source_of(tmp_path / "no test", rows, rows[:10])
    record = confidence_of(no_test)
    assert record is not None and record.measured is None
    assert confidence_note(record)[0].endswith("which was not measured on other items")


def test_the_exported_folder_carries_it_and_the_card_says_it(mood: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(mood.path, tmp_path / mood.path.name))
    assert run.items("mood", "dev").is_file(), "a fine-tuning keeps its answers to development items"
    rows = made_rows(60)
    write_jsonl(run.items("mood", "dev"), rows)
    run.finish(record=run.manifest()["record"])
    done = export(resolve(run.path), "bf16", Options(out=tmp_path / "out"))
    record = read_export(done.folder)
    assert record is not None and record.confidence is not None and record.confidence.num_fitted == 60
    note = confidence_note(record.confidence)[0]
    assert note in (done.folder / "README.md").read_text(encoding="utf-8")
    assert note in done.summary()
