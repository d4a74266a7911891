"""The section on memorisation: what models keep of their training text, in words and tables."""

from __future__ import annotations

from dataclasses import dataclass

from adaptkit.audit.record import FigureRecord, MemorisationRecord, SubjectRecord, read_memorisation
from adaptkit.run import Run

UNREAD_BITS = 1.44
"""Mean exposure of a secret that was never read: 1 / ln 2."""
CHANCE = 0.5


@dataclass(frozen=True)
class MemorisationTable:
    """A table of the section: a row for each model, its name first."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class MemorisationSection:
    """What the report shows of an audit."""

    lead: str
    tables: tuple[MemorisationTable, ...]
    notes: tuple[str, ...]


def memorisation_section(run: Run) -> MemorisationSection | None:
    """The section of a run or study; None where it was not audited.

    Raises: DataError for an audit that is damaged.
    """
    record = read_memorisation(run)
    if record is None:
        return None
    return MemorisationSection(lead(record), tuple(memorisation_tables(record)), tuple(notes(record)))


def memorisation_tables(record: MemorisationRecord) -> list[MemorisationTable]:
    """Membership of all models, and where they were looked for canaries and passages."""
    tables = [_membership(record)]
    planted = sorted({found.repeats for subject in record.subjects for found in subject.exposures})
    if planted:
        names = tuple(_times(repeats) for repeats in planted)
        rows = tuple(_exposure_row(subject) for subject in record.subjects)
        tables.append(MemorisationTable("Exposure of canaries, in bits, by repeats", ("model", *names), rows))
    groups = list(dict.fromkeys(found.repeats for subject in record.subjects for found in subject.extraction))
    if groups:
        title = f"Passages of which the second {record.half} tokens were written out, by repeats"
        rows = tuple(_extraction_row(subject, groups) for subject in record.subjects)
        tables.append(MemorisationTable(title, ("model", *groups), rows))
    return tables


def _membership(record: MemorisationRecord) -> MemorisationTable:
    columns = ["model", "passes over the text", "AUC"]
    if record.control is not None:
        columns.append(f"minus {record.control}")
    rows = []
    for subject in record.subjects:
        passes = "-" if subject.passes is None else f"{subject.passes:.1f}"
        row = [subject.name, passes, _figure(subject.membership)]
        if record.control is not None:
            beyond = subject.beyond_control
            row.append(_figure(beyond, sign="+") if beyond else "-")
        rows.append(tuple(row))
    title = "Training passages told from held-out ones by their loss (0.5 is chance)"
    return MemorisationTable(title, tuple(columns), tuple(rows))


def _times(repeats: int) -> str:
    if not repeats:
        return "never planted"
    return "once" if repeats == 1 else f"{repeats} times"


def _exposure_row(subject: SubjectRecord) -> tuple[str, ...]:
    cells = []
    for found in subject.exposures:
        asked = found.num * subject.num_seeds
        wrote = f"; {found.num_written} of {asked} written out" if found.num_written else ""
        cells.append(f"{found.bits.mean:.1f} [{found.bits.low:.1f}, {found.bits.high:.1f}]{wrote}")
    return subject.name, *cells


def _extraction_row(subject: SubjectRecord, groups: list[str]) -> tuple[str, ...]:
    found = {each.repeats: each for each in subject.extraction}
    cells = [
        f"{_percent(found[name].share)} of {found[name].num}" if name in found else "-" for name in groups
    ]
    return subject.name, *cells


def lead(record: MemorisationRecord) -> str:
    """How well membership is told of the model that gives most away, and what canaries say of it."""
    readers = [subject for subject in record.subjects if subject.name != record.control]
    worst = max(readers or list(record.subjects), key=lambda subject: subject.membership.mean)
    often = _percent(worst.membership)
    told = (
        f"By its loss under {worst.name}, a training passage is told from a held-out one in {often} of pairs"
    )
    if worst.membership.low <= CHANCE:
        told = f"That {worst.name} tells training passages from held-out ones by loss is not shown ({often})"
    wrote = [found.repeats for found in worst.exposures if found.num_written and found.repeats]
    if wrote:
        return f"{told}; secrets that stand in the text {_times(min(wrote))} were written out."
    if worst.exposures:
        return f"{told}; no planted secret was written out."
    return f"{told}."


def notes(record: MemorisationRecord) -> list[str]:
    """What the figures can and cannot say."""
    parts = f"{record.num_train:,} training and {record.num_held_out:,} held-out passages"
    sentences = [f"AUC: {parts}, intervals over seeds and documents; 0.5 cannot tell, 1 always does."]
    sentences.append(_about_parts(record))
    if record.canaries is not None:
        canaries = record.canaries
        sentences.append(
            f"{canaries.num_texts:,} copies of made-up secrets were planted ({canaries.num_bytes:,} bytes). "
            f"Exposure is 29.9 bits at most, the likeliest of all 10^9 secrets; one that was never read has "
            f"{UNREAD_BITS} on average."
        )
    else:
        sentences.append(
            "No canaries were planted: set `canaries` in the config to see from how many repeats on."
        )
    if any(found.repeats != "held out" for subject in record.subjects for found in subject.extraction):
        sentences.append(
            f"Passages are {2 * record.half} tokens of each model's own vocabulary; held-out ones show what "
            "is written without having been read."
        )
    else:
        sentences.append(f"No document has the {2 * record.half} tokens that extraction takes.")
    sentences.append(
        "These attacks are the simplest ones: others tell more, so a low figure does not prove that nothing "
        "can be got out. Of single persons or texts it says nothing."
    )
    return sentences


def _about_parts(record: MemorisationRecord) -> str:
    """Whether the two parts differ by themselves."""
    blind = f"zlib, which has read neither, has an AUC of {_figure(record.blind)}"
    control = next((subject for subject in record.subjects if subject.name == record.control), None)
    if control is None:
        known = "No model that has not read the text was there to compare with"
        seen = record.blind
    else:
        known = f"{control.name} has not learnt this text here, and has {_figure(control.membership)}"
        seen = control.membership
    if seen.low <= CHANCE <= seen.high:
        return f"{known}; {blind}."
    return f"{known}; {blind}. Away from 0.5 the two parts differ by themselves, and no AUC is memory alone."


def _figure(figure: FigureRecord, sign: str = "") -> str:
    return f"{figure.mean:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def _percent(figure: FigureRecord) -> str:
    return f"{100 * figure.mean:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
