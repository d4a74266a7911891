"""What was done to the data: each sentence where it holds and only there. Home of study.data_record."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from adaptkit.report.data_tables import (
    cut_rows,
    data_limits,
    expectation_sentences,
    judged_rows,
    shift_sentences,
)
from adaptkit.study.data_record import (
    CutRecord,
    DataRecord,
    ExpectationRecord,
    PartCutRecord,
    SharesRecord,
    ShiftRecord,
    TestSetRecord,
    TimesRecord,
    TokenizerRecord,
)


def cut(**fields) -> CutRecord:
    defaults = {
        "train": "domain",
        "test": "ticket",
        "num_items": 400,
        "num_items_contaminated": 12,
        "num_documents_touched": 30,
        "whole_rows": False,
        "bytes_cut": 20_000,
        "share_cut": 0.02,
    }
    return CutRecord(**{**defaults, **fields})


def data(**fields) -> DataRecord:
    return DataRecord(corpora={}, **fields)


@pytest.mark.parametrize(
    ("fields", "action"),
    [
        ({}, "shared sentences cut from 30 documents (20 kB, 2.0%)"),
        ({"whole_rows": True}, "30 rows removed (20 kB, 2.0%)"),
        ({"bytes_cut": 0}, "kept: no single training row holds a tenth of an item"),
        ({"num_items_contaminated": 0, "bytes_cut": 0}, "none found"),
    ],
)
def test_a_cut_says_what_went(fields, action):
    (row,) = cut_rows(data(cuts=(cut(**fields),)))
    assert (row.compared, row.num_items, row.action) == ("domain against ticket", 400, action)


def test_parts_that_lost_most_come_first():
    parts = {f"file{i}": PartCutRecord(num_bytes=1000 * i, share=i / 100) for i in range(1, 8)}
    (row,) = cut_rows(data(cuts=(cut(by_source=parts),)))
    assert row.parts == "file7 7.0%, file6 6.0%, file5 5.0%, file4 4.0%, file3 3.0%"
    (single,) = cut_rows(data(cuts=(cut(by_source={"file": PartCutRecord(num_bytes=1, share=0.5)}),)))
    assert single.parts == "", "one source is the whole"


def test_what_is_judged_on():
    record = TestSetRecord(num_rows=99, num_duplicates=9, num_items=90, num_clusters=30, drawn="by hash")
    (row,) = judged_rows(data(test_sets={"ticket": record}))
    assert (row.name, row.num_items, row.num_duplicates, row.num_clusters) == ("ticket", 90, 9, 30)


def test_more_than_a_tenth_cut_is_a_limit():
    sentence = "Overlap with the tests took 25% of domain (250 kB)."
    assert data_limits(data(cuts=(cut(share_cut=0.25, bytes_cut=250_000),))) == [sentence]
    assert data_limits(data(cuts=(cut(share_cut=0.09),))) == []
    label = {"refund": PartCutRecord(num_bytes=5_000, share=0.4)}
    assert data_limits(data(cuts=(cut(by_label=label),))) == [
        "Overlap with the tests took 40% of domain, label refund (5 kB)."
    ]


def test_a_lossy_tokenizer_is_a_limit():
    fits = {"domain": TokenizerRecord(bytes_per_token=4, vocab_size=9)}
    assert data_limits(data(tokenizers=fits)) == []
    lossy = {"generic": TokenizerRecord(bytes_per_token=4, vocab_size=9, lost_share=0.031)}
    assert data_limits(data(tokenizers=lossy)) == [
        "The generic tokenizer cannot give back 3.10% of the bytes of the domain's test: each is charged 8 "
        "bits, and where it stood."
    ]


def test_a_shift_of_sources_is_told_and_a_large_one_is_a_limit():
    small = ShiftRecord(sources={"a": SharesRecord(train=0.5, test=0.6)}, source_shift=0.1)
    large = small.model_copy(update={"source_shift": 0.5})
    assert shift_sentences(data(shifts={"ticket": small})) == [
        "ticket: the shares of sources differ by 10% between training and test."
    ]
    assert data_limits(data(shifts={"ticket": small})) == []
    assert data_limits(data(shifts={"ticket": large})) == [
        "The test of ticket comes from other sources than its training data by 50%: scores mix skill with "
        "that shift."
    ]


def test_what_was_expected_of_pretraining_is_told_with_whether_it_held():
    def said(says, outcome, ledger="jobs"):
        verdict = SimpleNamespace(main=SimpleNamespace(outcome=outcome, ledger=ledger))
        expectation = ExpectationRecord(says=says, reason="the texts differ")
        return expectation_sentences(data(expectation=expectation), verdict)[0]

    expected = "before training, pretraining on the domain was likely to gain: the texts differ"
    assert said("likely", "gain") == f"{expected}; that held."
    assert said("likely", "no gain") == said("likely", "enough") == f"{expected}; that did not hold."
    assert said("unlikely", "no gain").endswith("unlikely to gain: the texts differ; that held.")
    assert said("unlikely", "gain").endswith("that did not hold.")
    assert said("likely", "undecided").endswith("so whether that held is open.")
    assert said("likely", "gain", "text").endswith("so whether that held is not judged.")
    assert said("cannot say", "gain").endswith("nothing could be expected of pretraining: the texts differ.")
    assert expectation_sentences(data(), SimpleNamespace(main=None)) == [], "studies of older releases"


def test_a_shift_in_time_is_told_and_a_large_one_is_a_limit():
    times = TimesRecord(
        train_from="2025-01-01",
        train_to="2026-01-01",
        test_from="2025-12-01",
        test_to="2026-06-01",
        test_share_newer=0.9,
    )
    assert shift_sentences(data(shifts={"ticket": ShiftRecord(times=times)})) == [
        "ticket: training rows are from 2025-01-01 to 2026-01-01, test rows from 2025-12-01 to 2026-06-01, "
        "90% of them newer than all training rows."
    ]
    assert data_limits(data(shifts={"ticket": ShiftRecord(times=times)})) == [
        "90% of the test of ticket is newer than all training data: scores say how an arm does on what comes "
        "next."
    ]
    old = times.model_copy(update={"test_share_newer": 0.1})
    assert data_limits(data(shifts={"ticket": ShiftRecord(times=old)})) == []
