"""The section on bias: gaps between groups, sentences that differ in a word, and what lies near to what."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.audit.bias_record import (
    AssociationRecord,
    BiasRecord,
    GroupedTaskRecord,
    GroupRecord,
    GroupScoreRecord,
    SentenceGapRecord,
    SentenceSetRecord,
    WordTestRecord,
    read_bias,
)
from adaptkit.audit.record import FigureRecord
from adaptkit.audit.sentence_sets import PAIR
from adaptkit.run import Run

SMALL_P = 0.05
LEAST_SETS = 6
"""Of so many, all agree by chance with p = 2^-5; of fewer nothing is claimed."""
FEW_SETS = 20
"""Pairs or templates: with fewer, only coarse differences can show."""


@dataclass(frozen=True)
class BiasPart:
    """One table with what it says.

    Attributes:
        lead: the finding, or that none is shown.
        notes: what the figures can and cannot say.
    """

    title: str
    lead: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def bias_parts(run: Run) -> list[BiasPart]:
    """The parts of an audited run or study; none where it was not audited.

    Raises: DataError for an audit that is damaged.
    """
    record = read_bias(run)
    return parts_of(record) if record else []


def parts_of(record: BiasRecord) -> list[BiasPart]:
    """A part for each task by a column, each list of words, and each test of word lists."""
    return [
        *(_task_part(task) for task in record.tasks),
        *(_sentence_part(each, record.control) for each in record.sentences),
        *(_word_part(each, record.control) for each in record.words),
    ]


# Error gaps by a column


def _task_part(task: GroupedTaskRecord) -> BiasPart:
    columns = [task.column, "items (documents)"]
    for arm in (task.before, task.after):
        if arm is not None:
            columns += [arm, f"{arm}: minus the others"]
    if task.before is not None:
        columns.append("change of that gap")
    if task.control is not None:
        columns.append(f"{task.control}: minus the others")
    title = f"{task.title}, by {task.column}"
    rows = tuple(_group_row(task, group) for group in task.groups)
    return BiasPart(title, _task_lead(task), tuple(columns), rows, tuple(_task_notes(task)))


def _group_row(task: GroupedTaskRecord, group: GroupRecord) -> tuple[str, ...]:
    arms = {each.arm: each for each in group.arms}
    row = [group.name, f"{group.num_items:,} ({group.num_clusters:,})"]
    for name in (task.before, task.after):
        if name is not None:
            row += [_figure(arms[name].score), _signed(arms[name].gap)]
    if group.change is not None:
        row.append(_signed(group.change))
    if task.control is not None:
        row.append(_signed(arms[task.control].gap))
    return tuple(row)


def _gap(group: GroupRecord, arm: str) -> GroupScoreRecord:
    return next(each for each in group.arms if each.arm == arm)


def _task_lead(task: GroupedTaskRecord) -> str:
    """The group that fares worst beyond doubt, else best, and whether adaptation changed that."""
    sign = 1 if task.higher_is_better else -1
    gaps = {group.name: _gap(group, task.after).gap for group in task.groups}
    worse = [group for group in task.groups if _beyond(gaps[group.name], -sign)]
    better = [group for group in task.groups if _beyond(gaps[group.name], sign)]
    if not worse and not better:
        least = min(map(_half_width, gaps.values()))
        return (
            f"That {task.after} fares differently by {task.column} is not shown: with these items a gap "
            "has to "
            f"reach {least:.3f} to be seen."
        )
    group = max(worse or better, key=lambda each: abs(gaps[each.name].mean))
    how = "worse" if worse else "better"
    found = f"{task.after} is {how} on {group.name} than on the others: {_signed(gaps[group.name])}"
    if group.change is None:
        return f"{found}."
    if not (_beyond(group.change, 1) or _beyond(group.change, -1)):
        return f"{found}. That this differs from {task.before} is not shown (change {_signed(group.change)})."
    grew = (group.change.mean > 0) == (gaps[group.name].mean > 0)
    return f"{found}, by {'more' if grew else 'less'} than {task.before} (change {_signed(group.change)})."


def _task_notes(task: GroupedTaskRecord) -> list[str]:
    sentences = [
        f"Intervals hold together over the {len(task.groups)} groups, each at {100 * task.level:.1f} %; "
        "seeds and "
        "whole documents are drawn, and the change is paired."
    ]
    widest = max(task.groups, key=lambda group: _half_width(_gap(group, task.after).gap))
    sentences.append(
        f"On {widest.name} ({widest.num_items:,} items) a gap below "
        f"{_half_width(_gap(widest, task.after).gap):.3f} "
        "cannot be seen: that none is shown does not mean that there is none."
    )
    if task.left_out:
        names = [f"{name} ({number:,})" for name, number in list(task.left_out.items())[:8]]
        more = len(task.left_out) - len(names)
        others = f" and {more:,} more" if more > 0 else ""
        sentences.append(
            "Left out, with fewer than 20 items or 5 documents, or beyond the 12 largest: "
            f"{', '.join(names)}{others}."
        )
    if task.num_missing:
        sentences.append(f"{task.num_missing:,} items have no value in this column and count nowhere.")
    if task.control is not None:
        sentences.append(
            f"{task.control} knows words only. Where it has the same gap, the group's texts or labels "
            "are harder "
            "as such."
        )
    sentences.append(
        "A gap says that errors fall unevenly, not why: groups may differ in length, labels or difficulty."
    )
    return sentences


# Sentences that differ in a word


def _sentence_part(sets: SentenceSetRecord, control: str | None) -> BiasPart:
    pairs = sets.words == PAIR
    of = "pairs" if pairs else "templates"
    title = (
        f"{sets.num_sets:,} pairs of sentences"
        if pairs
        else f"{sets.num_sets:,} templates: {', '.join(sets.words)}"
    )
    columns = ["model", "sentence with", "whole, bits", "around the word, bits", f"likelier in, of {of}"]
    if control is not None:
        columns.append(f"around, minus {control}")
    rows = tuple(_sentence_row(row, control) for row in sets.gaps)
    return BiasPart(title, _sentence_lead(sets, control), tuple(columns), rows, tuple(_sentence_notes(sets)))


def _sentence_row(row: SentenceGapRecord, control: str | None) -> tuple[str, ...]:
    cells = [row.subject, row.word, _bits(row.whole), _bits(row.around), _percent(row.likelier)]
    if control is not None:
        cells.append(_bits(row.change) if row.change else "-")
    return tuple(cells)


def _sentence_lead(sets: SentenceSetRecord, control: str | None) -> str:
    """The largest gap of an adapted model that is beyond doubt."""
    rows = [row for row in sets.gaps if row.subject != control]
    shown = [row for row in rows if _beyond(row.around, 1) or _beyond(row.around, -1)]
    other = "the second ones" if sets.words == PAIR else "those with the other words"
    names = " or ".join(dict.fromkeys(row.subject for row in rows))
    if sets.num_clusters < LEAST_SETS:
        return (
            f"{sets.num_clusters:,} independent sets show nothing: {LEAST_SETS} are the least of which "
            "even full agreement is no chance."
        )
    if not shown:
        least = min(_half_width(row.around) for row in rows)
        return (
            f"That {names} favours some of these words is not shown: with {sets.num_sets:,} sets a gap "
            "has to "
            f"reach {least:.2f} bits to be seen."
        )
    row = max(shown, key=lambda each: abs(each.around.mean))
    what = "the first sentences" if sets.words == PAIR else f"sentences with {row.word}"
    than = "likelier" if row.around.mean > 0 else "less likely"
    found = f"To {row.subject}, what stands around the word is {than} in {what} than in {other}"
    found = f"{found}: {_bits(row.around)} bits"
    if row.change is None:
        return f"{found}."
    if _beyond(row.change, 1) or _beyond(row.change, -1):
        return f"{found}; adaptation changed it by {_bits(row.change)}."
    return f"{found}. That adaptation changed it is not shown ({_bits(row.change)})."


def _sentence_notes(sets: SentenceSetRecord) -> list[str]:
    sentences = [
        "A bit is a factor of two. `whole` also tells how common the words themselves are; `around` "
        "counts the tokens "
        "that both sentences share only. A causal model reads from left to right: what stands before the "
        "word "
        "adds nothing."
    ]
    if all(row.around.mean == row.around.low == row.around.high == 0 for row in sets.gaps):
        sentences.append(
            "The words end these sentences, so nothing around them can tell: put them further in front."
        )
    if sets.num_clusters < FEW_SETS:
        least = 2.0 ** (1 - sets.num_clusters)
        even = f"even if all agree, chance gives that with p = {least:.2g}"
        sentences.append(
            f"{sets.num_clusters:,} independent sets are few ({even}): what they do not show may well be "
            "there."
        )
    if len(sets.words) > 2:
        sentences.append(
            "Each word is held against the mean of the others; intervals hold together over the "
            f"{len(sets.words)} words."
        )
    sentences.append(
        "This is of these sentences only, and of a model's likelihoods, not of what an application does "
        "with them."
    )
    return sentences


# Word lists


def _word_part(test: WordTestRecord, control: str | None) -> BiasPart:
    columns = ["model", "vectors of", "effect", "p"]
    if control is not None:
        columns.append(f"minus {control}")
    title = f"{' and '.join(test.targets)}, near to {' or '.join(test.attributes)}"
    rows = tuple(_association_row(row, control) for row in test.found)
    return BiasPart(title, _word_lead(test, control), tuple(columns), rows, tuple(_word_notes(test)))


def _association_row(row: AssociationRecord, control: str | None) -> tuple[str, ...]:
    cells = [row.subject, row.vectors, _bits(row.effect), f"{row.p:.3g}"]
    if control is not None:
        cells.append(_bits(row.change) if row.change else "-")
    return tuple(cells)


def _word_lead(test: WordTestRecord, control: str | None) -> str:
    """What the sentences of an adapted model show most surely, or its words where there are no sentences."""
    rows = [row for row in test.found if row.subject != control and row.vectors == test.found[-1].vectors]
    row = min(rows, key=lambda each: (each.p, -abs(each.effect.mean)))
    first, second = test.targets
    near, far = test.attributes
    if row.p > SMALL_P:
        return (
            f"That {row.subject} puts {first} and {second} at different distances from {near} and {far} "
            "is not shown "
            f"(p = {row.p:.2g}; {sum(test.num_targets)} words)."
        )
    if row.effect.mean < 0:
        near, far = far, near
    return (
        f"In {row.subject}, {first} lies nearer to {near}, and {second} to {far}: {_bits(row.effect)} "
        "standard "
        f"deviations, p = {row.p:.2g}, vectors of {row.vectors}."
    )


def _word_notes(test: WordTestRecord) -> list[str]:
    first, second = test.num_targets
    sentences = [
        "WEAT: the input embeddings of words. SEAT: sentences that hold them, through the model. p is "
        "two-sided, of "
        f"dealing the {first} and {second} target words to both lists at random."
    ]
    if test.least_p > SMALL_P:
        sentences.append(
            "So few words cannot show anything: the smallest p that they can give is "
            f"{test.least_p:.2g}. Use 8 or more "
            "in each list."
        )
    elif min(first, second) < 8:
        sentences.append(
            f"{first} and {second} words are few: only strong effects can show, and the intervals are rough."
        )
    if not test.num_templates:
        sentences.append(
            "No templates were given, so the model itself was not asked, only its input embeddings."
        )
    sentences.append(
        "Distances between vectors say nothing certain about what a model that uses them will do; error "
        "gaps on a task "
        "do."
    )
    return sentences


def _beyond(figure: FigureRecord, sign: int) -> bool:
    """Whether the whole interval lies on one side of 0."""
    return figure.low > 0 if sign > 0 else figure.high < 0


def _half_width(figure: FigureRecord) -> float:
    return (figure.high - figure.low) / 2


def _figure(figure: FigureRecord) -> str:
    return f"{figure.mean:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _signed(figure: FigureRecord) -> str:
    return f"{figure.mean:+.3f} [{figure.low:+.3f}, {figure.high:+.3f}]"


def _bits(figure: FigureRecord) -> str:
    return f"{figure.mean:+.2f} [{figure.low:+.2f}, {figure.high:+.2f}]"


def _percent(figure: FigureRecord) -> str:
    return f"{100 * figure.mean:.0f} % [{100 * figure.low:.0f}, {100 * figure.high:.0f}]"
