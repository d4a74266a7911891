"""Measure what language models keep of their training text: membership, extraction, and planted canaries.

    record = audit_run(Run("runs/pretrain-1a2b3c4d"))
    record.subjects[-1].membership        # AUC of telling training passages from held-out ones, by loss

Intervals are those of all scores: seeds and clustered items are drawn, and what is compared is paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import beta

from adaptkit import models
from adaptkit.audit.exposure import Exposed, expose
from adaptkit.audit.extractable_text import GROUPS, HALF, HELD_OUT, Passage, draw_by_repeats, written
from adaptkit.audit.membership import auc_table, packed_scores
from adaptkit.audit.record import (
    ExposureRecord,
    ExtractionRecord,
    FigureRecord,
    MemorisationRecord,
    SubjectRecord,
)
from adaptkit.audit.subjects import BASE, Subject, subjects_of_run
from adaptkit.audit.training_text import AuditedText, passes_of, text_of_run
from adaptkit.data.canaries import SPACE_BITS, Canary, canaries, canary_record
from adaptkit.data.drawing import draw_passages
from adaptkit.data.readers import Row
from adaptkit.data.score_table import ScoreTable, mean_table
from adaptkit.models.bits_per_byte import score_documents
from adaptkit.run import Run
from adaptkit.run_record import read_record
from adaptkit.study.statistics import Interval, Replicates, resample
from adaptkit.trainer.device import placed
from adaptkit.trainer.progress import announce

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_PASSAGES = 200
BLIND = "zlib"


@dataclass(frozen=True)
class _Probe:
    """What every model is asked about."""

    members: list[Row]
    others: list[Row]
    made: list[Canary]
    seq_len: int

    @property
    def clusters(self) -> list[str]:
        return [row.cluster for row in (*self.members, *self.others)]


@dataclass(frozen=True)
class _Answers:
    """What the models of a subject gave, a value for each seed."""

    auc: list[ScoreTable]
    exposed: list[list[Exposed]]
    passages: list[Passage]
    num_right: list[list[int]]
    params: int


def audit_memorisation(
    text: AuditedText,
    subjects: Sequence[Subject],
    *,
    num: int = NUM_PASSAGES,
    control: str | None = None,
    confidence: float = 0.95,
) -> MemorisationRecord:
    """Audit models on one training text.

    Args:
        num: passages at most: of training and of held-out text, and of each number of repeats.
        control: the subject that has not read the text.
    """
    made = canaries(text.canaries) if text.canaries else []
    members, others = (draw_passages(part, num).rows for part in (text.train, text.held_out))
    probe = _Probe(members, others, made, text.seq_len)
    answers = {subject.name: _ask(subject, probe, text, num) for subject in subjects}
    tables = {name: found.auc for name, found in answers.items()}
    blind = auc_table(packed_scores(members), packed_scores(others))
    replicates = resample({**tables, BLIND: [blind]}, probe.clusters)
    return MemorisationRecord(
        confidence=confidence,
        subjects=tuple(
            _subject_record(subject, answers[subject.name], replicates, made, control, confidence)
            for subject in subjects
        ),
        control=control,
        num_train=len(members),
        num_held_out=len(others),
        train_digest=text.train_digest,
        held_out_digest=text.held_out.digest,
        blind=_within(replicates.interval(BLIND, confidence)),
        canaries=canary_record(text.canaries) if text.canaries else None,
        half=HALF,
    )


def audit_run(run: Run, *, num: int = NUM_PASSAGES) -> MemorisationRecord:
    """Audit a finished pretraining, beside the base that it started from, if that can be had: the control.

    Raises: DataError for a run of another kind, and where its text is gone or has changed.
    """
    text = text_of_run(run)
    subjects = subjects_of_run(run, passes_of(run, read_record(run)))
    control = BASE if subjects[0].name == BASE else None
    return audit_memorisation(text, subjects, num=num, control=control)


def _ask(subject: Subject, probe: _Probe, text: AuditedText, num: int) -> _Answers:
    auc, exposed, num_right = [], [], []
    passages: list[Passage] = []
    params = 0
    for seed, folder in enumerate(subject.folders):
        announce("audit", {"model": subject.name, "seed": seed, "of": len(subject.folders)})
        model, tokenizer = placed(models.load(folder, "causal")), models.load_tokenizer(folder)
        params = models.param_count(model).total
        scores = _bits_per_byte(model, tokenizer, [*probe.members, *probe.others], probe.seq_len)
        auc.append(auc_table(scores[: len(probe.members)], scores[len(probe.members) :]))
        if probe.made:
            exposed.append(expose(model, tokenizer, probe.made))
        if not passages:  # seeds of an arm share their vocabulary
            passages = draw_by_repeats(text.train.rows, text.held_out.rows, tokenizer, num)
        num_right.append(written(model, tokenizer, passages))
    return _Answers(auc, exposed, passages, num_right, params)


def _bits_per_byte(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], seq_len: int
) -> np.ndarray:
    scored = score_documents(model, tokenizer, [(row.id, row.text) for row in rows], seq_len=seq_len)
    return np.array([row["nats"] / row["num_bytes"] for row in scored]) / np.log(2)


def _subject_record(
    subject: Subject,
    found: _Answers,
    replicates: Replicates,
    made: Sequence[Canary],
    control: str | None,
    confidence: float,
) -> SubjectRecord:
    beyond = None
    if control is not None and subject.name != control:
        difference = replicates.compare(
            subject.name, control, margin=0.0, higher_is_better=True, confidence=confidence
        )
        beyond = FigureRecord(mean=difference.difference, low=difference.low, high=difference.high)
    return SubjectRecord(
        name=subject.name,
        describe=subject.describe,
        num_seeds=len(subject.folders),
        params=found.params,
        passes=subject.passes,
        membership=_within(replicates.interval(subject.name, confidence)),
        beyond_control=beyond,
        exposures=tuple(_exposures(made, found.exposed, confidence)),
        extraction=tuple(_extraction(found.passages, found.num_right, confidence)),
    )


def _exposures(
    made: Sequence[Canary], exposed: Sequence[Sequence[Exposed]], confidence: float
) -> list[ExposureRecord]:
    """Exposure by repeats, mean over canaries and seeds."""
    records = []
    for repeats in sorted({canary.repeats for canary in made}):
        places = [place for place, canary in enumerate(made) if canary.repeats == repeats]
        tables = [mean_table([of_seed[place].bits for place in places]) for of_seed in exposed]
        interval = resample({"bits": tables}).interval("bits", confidence)
        num_written = sum(of_seed[place].written for of_seed in exposed for place in places)
        bits = _within(interval, SPACE_BITS)
        records.append(ExposureRecord(repeats=repeats, num=len(places), bits=bits, num_written=num_written))
    return records


def _extraction(
    passages: Sequence[Passage], num_right: Sequence[Sequence[int]], confidence: float
) -> list[ExtractionRecord]:
    """Shares of passages that were written out, by repeats."""
    records = []
    for group in (HELD_OUT, *(name for name, _, _ in GROUPS)):
        places = [place for place, passage in enumerate(passages) if passage.group == group]
        if not places:
            continue
        right = np.array([[of_seed[place] for place in places] for of_seed in num_right])
        share = share_interval((right == HALF).astype(float), confidence)
        records.append(
            ExtractionRecord(repeats=group, num=len(places), share=share, num_tokens=float(right.mean()))
        )
    return records


def share_interval(hits_SN: np.ndarray, confidence: float) -> FigureRecord:
    """The share of hits of S seeds on N items, in the wider of two intervals: that of the bootstrap over
    seeds and items, and the exact binomial one of the items (Clopper and Pearson 1934), which does not
    shrink to a point where nothing was hit."""
    num, mean, tail = hits_SN.shape[1], float(hits_SN.mean()), (1 - confidence) / 2
    hits = mean * num
    low = float(beta.ppf(tail, hits, num - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, num - hits)) if hits < num else 1.0
    if num > 1:
        tables = [mean_table(hits_N.tolist()) for hits_N in hits_SN]
        drawn = resample({"share": tables}).interval("share", confidence)
        low, high = min(low, max(0.0, drawn.low)), max(high, min(1.0, drawn.high))
    return FigureRecord(mean=mean, low=low, high=high)


def _within(interval: Interval, most: float = 1.0) -> FigureRecord:
    """The interval, which ends where the figure does."""
    return FigureRecord(mean=interval.mean, low=max(0.0, interval.low), high=min(most, interval.high))
