"""What was done to a study's data: what overlap took, what is judged on, how tests differ from training."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.study.data_record import CutRecord, DataRecord, LargeCut, ShiftRecord, TestSetRecord
from adaptkit.study.forecast import size_text
from adaptkit.study.task_verdict import Verdict

LARGE_SHIFT = 0.2
"""Of test items, those whose source or time the training data lacks: from here on a limit tells it."""
MOST_PARTS = 5


@dataclass(frozen=True)
class CutRow:
    """What one test set took out of one training set."""

    compared: str
    num_items: int
    num_found: int
    action: str
    parts: str


@dataclass(frozen=True)
class TestSetRow:
    """What one task is judged on."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    name: str
    num_items: int
    num_duplicates: int
    num_clusters: int
    drawn: str


def cut_rows(data: DataRecord) -> list[CutRow]:
    """Every training set against every test set that it was searched for."""
    return [
        CutRow(
            compared=f"{cut.train} against {cut.test}",
            num_items=cut.num_items,
            num_found=cut.num_items_contaminated,
            action=_action(cut),
            parts=_parts(cut),
        )
        for cut in data.cuts
    ]


def _action(cut: CutRecord) -> str:
    if not cut.num_items_contaminated:
        return "none found"
    if not cut.bytes_cut:
        return "kept: no single training row holds a tenth of an item"
    went = f"{size_text(cut.bytes_cut)}, {cut.share_cut:.1%}"
    if cut.whole_rows:
        return f"{cut.num_documents_touched:,} rows removed ({went})"
    return f"shared sentences cut from {cut.num_documents_touched:,} documents ({went})"


def _parts(cut: CutRecord) -> str:
    """The sources and labels that lost most."""
    parts = {**cut.by_source, **cut.by_label}
    if len(parts) < 2:
        return ""
    most = sorted(parts, key=lambda name: -parts[name].num_bytes)[:MOST_PARTS]
    return ", ".join(f"{name or 'unnamed'} {parts[name].share:.1%}" for name in most)


def judged_rows(data: DataRecord) -> list[TestSetRow]:
    """Every set that is judged on."""
    return [_test_set_row(name, record) for name, record in data.test_sets.items()]


def _test_set_row(name: str, record: TestSetRecord) -> TestSetRow:
    return TestSetRow(name, record.num_items, record.num_duplicates, record.num_clusters, record.drawn)


def shift_sentences(data: DataRecord) -> list[str]:
    """How tests differ from the training data beside them, where sources or times are known."""
    return [sentence for name, shift in data.shifts.items() for sentence in _shift(name, shift)]


def expectation_sentences(data: DataRecord, verdict: Verdict) -> list[str]:
    """What was expected of pretraining before anything trained, and whether the verdict on a labelled task
    agrees; none where nothing was recorded."""
    if data.expectation is None:
        return []
    said = data.expectation
    if said.says == "cannot say":
        return [f"before training nothing could be expected of pretraining: {said.reason}."]
    expected = f"before training, pretraining on the domain was {said.says} to gain: {said.reason}"
    if verdict.main.ledger == "text":
        return [f"{expected}; no labelled task decides, so whether that held is not judged."]
    if verdict.main.outcome == "undecided":
        return [f"{expected}; the verdict is undecided, so whether that held is open."]
    held = (said.says == "likely") == (verdict.main.outcome == "gain")
    return [f"{expected}; that {'held' if held else 'did not hold'}."]


def _shift(name: str, shift: ShiftRecord) -> list[str]:
    sentences = []
    if shift.sources:
        differ = f"the shares of sources differ by {shift.source_shift:.0%} between training and test"
        sentences.append(f"{name}: {differ}.")
    if shift.times is not None:
        learnt = f"training rows are from {shift.times.train_from} to {shift.times.train_to}"
        tested = f"test rows from {shift.times.test_from} to {shift.times.test_to}"
        newer = f"{shift.times.test_share_newer:.0%} of them newer than all training rows"
        sentences.append(f"{name}: {learnt}, {tested}, {newer}.")
    return sentences


def data_limits(data: DataRecord) -> list[str]:
    """What was done to the data, or how it lies, that a result may hang on."""
    sentences = [_large_cut(cut) for cut in data.large_cuts]
    for name, tokenizer in data.tokenizers.items():
        if tokenizer.lost_share:
            lost = f"cannot give back {tokenizer.lost_share:.2%} of the bytes of the domain's test"
            sentences.append(f"The {name} tokenizer {lost}: each is charged 8 bits, and where it stood.")
    for name, shift in data.shifts.items():
        if shift.source_shift > LARGE_SHIFT:
            where = f"The test of {name} comes from other sources than its training data"
            sentences.append(f"{where} by {shift.source_shift:.0%}: scores mix skill with that shift.")
        if shift.times is not None and shift.times.test_share_newer > LARGE_SHIFT:
            newer = (
                f"{shift.times.test_share_newer:.0%} of the test of {name} is newer than all training data"
            )
            sentences.append(f"{newer}: scores say how an arm does on what comes next.")
    return sentences


def _large_cut(cut: LargeCut) -> str:
    part = f", {cut.part} {cut.name}" if cut.part else ""
    return f"Overlap with the tests took {cut.share:.0%} of {cut.train}{part} ({size_text(cut.num_bytes)})."
