"""Ask models for two kinds of bias: sentences that differ in a word, and words that lie near to others.

    record = audit_bias(subjects, pairs=Path("pairs.jsonl"), words=Path("regions.yaml"), control="base")
    record.sentences[0].gaps, record.words[0].found

Every subject is asked the same, so what adaptation changed is paired by sentence set and by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit import models
from adaptkit.audit.bias_record import (
    AssociationRecord,
    BiasRecord,
    SentenceGapRecord,
    SentenceSetRecord,
    SubjectNameRecord,
    WordTestRecord,
)
from adaptkit.audit.memorisation import share_interval
from adaptkit.audit.record import FigureRecord
from adaptkit.audit.sentence_gaps import SentenceGaps, sentence_gaps
from adaptkit.audit.sentence_sets import SentenceSets, read_sentence_sets
from adaptkit.audit.subjects import BASE, Subject, subjects_of_run
from adaptkit.audit.word_association import (
    WordTest,
    associations,
    effect_table,
    least_p,
    permutation_p,
    read_word_test,
)
from adaptkit.data.score_table import mean_table
from adaptkit.embed.encoder import Encoder
from adaptkit.errors import DataError, ModelError
from adaptkit.run import Run
from adaptkit.study.statistics import Replicates, resample
from adaptkit.trainer.device import placed
from adaptkit.trainer.progress import announce

LANGUAGE_MODELS = ("causal", "masked")
MOST_EFFECT = 2.0


@dataclass(frozen=True)
class _Answers:
    """What the models of a subject gave: per seed a value for each set of sentences, and each kind of
    vectors."""

    gaps: list[list[SentenceGaps]]
    associations: list[dict[str, np.ndarray]]


def audit_bias(
    subjects: Sequence[Subject],
    *,
    pairs: Path | None = None,
    words: Path | None = None,
    control: str | None = None,
    confidence: float = 0.95,
) -> BiasRecord:
    """Audit models on the user's own sentences and word lists.

    Args:
        pairs: a file for `read_sentence_sets`.
        words: a file for `read_word_test`.
        control: the subject before adaptation.
    Raises: DataError or ConfigError for files that do not fit, ModelError for a model that gives no
        likelihood of sentences.
    """
    sets = read_sentence_sets(pairs) if pairs else []
    test = read_word_test(words) if words else None
    answers = {subject.name: _ask(subject, sets, test) for subject in subjects}
    compared = _Compared(tuple(answers), control, confidence)
    return BiasRecord(
        confidence=confidence,
        subjects=tuple(
            SubjectNameRecord(name=each.name, describe=each.describe, num_seeds=len(each.folders))
            for each in subjects
        ),
        control=control,
        sentences=tuple(_sentence_record(n, each, answers, compared) for n, each in enumerate(sets)),
        words=(_word_record(test, answers, compared),) if test else (),
    )


def audit_run_bias(run: Run, *, pairs: Path | None = None, words: Path | None = None) -> BiasRecord:
    """Audit the model of a finished run, beside the base that it started from, if that can be had.

    Raises: DataError for a run without a model, or without anything to ask; and as `audit_bias` does.
    """
    if pairs is None and words is None:
        what = "an audit of bias needs sentences or words of yours"
        raise DataError(what, where=str(run.path), fix="give --pairs FILE or --words FILE (docs/audits.md)")
    if not run.model.is_dir():
        what = "this run kept no model that can be asked"
        raise DataError(
            what, where=str(run.path), fix="audit a pretraining, a fine-tuning or an embedding model"
        )
    subjects = subjects_of_run(run)
    control = BASE if subjects[0].name == BASE else None
    return audit_bias(subjects, pairs=pairs, words=words, control=control)


def _ask(subject: Subject, sets: Sequence[SentenceSets], test: WordTest | None) -> _Answers:
    gaps, found = [], []
    for seed, folder in enumerate(subject.folders):
        announce("audit", {"model": subject.name, "seed": seed, "of": len(subject.folders)})
        if sets:
            kind = models.model_kind(folder)
            if kind not in LANGUAGE_MODELS:
                what = f"a {kind} gives no likelihood of a sentence"
                fix = "audit the language model that it was trained from, or ask it with --words alone"
                raise ModelError(what, where=str(folder), fix=fix)
            model, tokenizer = placed(models.load(folder, kind)), models.load_tokenizer(folder)
            gaps.append([sentence_gaps(model, tokenizer, each) for each in sets])
        if test is not None:
            found.append(associations(Encoder.load(folder), test))
    return _Answers(gaps, found)


@dataclass(frozen=True)
class _Compared:
    """Figures of all subjects on the same units."""

    subjects: tuple[str, ...]
    control: str | None
    confidence: float

    def change(self, replicates: Replicates, subject: str, level: float) -> FigureRecord | None:
        """A subject less the control, paired."""
        if self.control is None or subject == self.control:
            return None
        found = replicates.compare(subject, self.control, margin=0.0, higher_is_better=True, confidence=level)
        return FigureRecord(mean=found.difference, low=found.low, high=found.high)


def _figure(replicates: Replicates, subject: str, level: float, most: float = np.inf) -> FigureRecord:
    interval = replicates.interval(subject, level)
    return FigureRecord(mean=interval.mean, low=max(-most, interval.low), high=min(most, interval.high))


def _sentence_record(
    number: int, sets: SentenceSets, answers: dict[str, _Answers], compared: _Compared
) -> SentenceSetRecord:
    """All words of one list, or the first sentences of pairs: the gap of the second ones mirrors it."""
    shown = 1 if len(sets.words) == 2 else len(sets.words)
    level = 1 - (1 - compared.confidence) / shown
    rows = []
    for k in range(shown):
        found = {
            name: [(of[number].whole_UK[:, k], of[number].around_UK[:, k]) for of in given.gaps]
            for name, given in answers.items()
        }
        whole, around = (
            resample(
                {name: [mean_table(seed[part].tolist()) for seed in seeds] for name, seeds in found.items()},
                sets.clusters,
            )
            for part in (0, 1)
        )
        for name, seeds in found.items():
            hits_SC = np.array([_by_cluster(seed[0] > 0, sets.clusters) for seed in seeds])
            rows.append(
                SentenceGapRecord(
                    subject=name,
                    word=sets.words[k],
                    whole=_figure(whole, name, level),
                    around=_figure(around, name, level),
                    likelier=share_interval(hits_SC, level),
                    change=compared.change(around, name, level),
                )
            )
    return SentenceSetRecord(
        words=sets.words,
        num_sets=len(sets.sentences),
        num_clusters=sets.num_clusters,
        level=level,
        gaps=tuple(sorted(rows, key=lambda row: compared.subjects.index(row.subject))),
    )


def _by_cluster(hits_U: np.ndarray, clusters: Sequence[str]) -> list[float]:
    """The share of hits in each cluster."""
    names = np.array(clusters)
    return [float(hits_U[names == name].mean()) for name in dict.fromkeys(clusters)]


def _word_record(test: WordTest, answers: dict[str, _Answers], compared: _Compared) -> WordTestRecord:
    num_first, num_second = len(test.first), len(test.second)
    rows = []
    for vectors in ("words", "sentences") if test.templates else ("words",):
        found = {name: [seed[vectors] for seed in given.associations] for name, given in answers.items()}
        tables = {name: [effect_table(s_W, num_first) for s_W in seeds] for name, seeds in found.items()}
        replicates = resample(tables, item_freedom=min(num_first, num_second) - 1)
        rows += [
            AssociationRecord(
                subject=name,
                vectors=vectors,
                effect=_figure(replicates, name, compared.confidence, MOST_EFFECT),
                p=permutation_p(np.mean(seeds, axis=0), num_first),
                change=compared.change(replicates, name, compared.confidence),
            )
            for name, seeds in found.items()
        ]
    first, second = test.targets
    near, far = test.attributes
    return WordTestRecord(
        targets=(first, second),
        attributes=(near, far),
        num_targets=(num_first, num_second),
        num_attributes=(len(test.attributes[near]), len(test.attributes[far])),
        num_templates=len(test.templates),
        least_p=least_p(num_first, num_second),
        found=tuple(rows),
    )
