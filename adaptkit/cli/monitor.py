"""The command that holds texts which are served against those that a model learnt from.

adaptkit monitor served.jsonl --against tickets.csv
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli.console import Outcome, command

if TYPE_CHECKING:
    from adaptkit.data.input_drift import Drift, Reference

app = typer.Typer()
ALARM = 3
"""Exit code where a window alarms."""


@command(
    app,
    "monitor",
    [
        "adaptkit monitor served.jsonl --against tickets.csv",
        "adaptkit monitor 'logs/*.jsonl.gz' --against train.jsonl --window 500 --false-alarms 0.005",
        "adaptkit monitor served.csv --against tickets.csv --column text=body --column time=received --json",
    ],
    exits=f"0 no alarm, {ALARM} an alarm",
)
def monitor(
    log: Annotated[list[str], typer.Argument(help="Texts that were served: files with a text column.")],
    against: Annotated[
        list[str], typer.Option(metavar="FILES", help="What the model learnt from; may be repeated.")
    ],
    window: Annotated[int, typer.Option(help="Texts of a window.", min=40, max=100_000)] = 200,
    false_alarms: Annotated[
        float, typer.Option(help="Share of windows that may alarm by chance alone.", min=0.003, max=0.5)
    ] = 0.01,
    column: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=COLUMN of the log, as in a config's `columns`; may be repeated."),
    ] = None,
) -> Outcome:
    """Say whether texts that come in are still like those that were learnt from.

    Window by window: which words, how many unknown ones, how long. A window alarms where it lies further from
    the training text than chance allows, at a stated rate of false alarms (docs/audits.md).
    """
    from adaptkit.cli.arguments import pairs
    from adaptkit.data.input_drift import Reference, windows
    from adaptkit.data.readers import DataConfig, read

    reference = Reference.of(read(DataConfig(files=against), "text").rows)
    rows = read(DataConfig(files=log, columns=pairs(column or [], "--column")), "text").rows
    parts, left_out = windows(rows, window)
    drifts = [reference.compare(part, rate=false_alarms) for part in parts]
    found = {
        "windows": [dataclasses.asdict(drift) for drift in drifts],
        "left_out": left_out,
        "false_alarms": false_alarms,
        "alarms": sum(drift.alarm for drift in drifts),
    }
    view = _view(drifts, reference, left_out, false_alarms)
    return Outcome(view, found, ALARM if found["alarms"] else 0)


def _view(drifts: Sequence[Drift], reference: Reference, left_out: int, rate: float) -> tuple[Any, ...]:
    """A line for each window, the words of those that alarm, and what it cannot say."""
    from rich.table import Table

    table = Table()
    for name in ("window from", "texts", "words, bits", "unknown words", "length", "p", ""):
        table.add_column(name, overflow="fold", justify="left" if name in ("window from", "") else "right")
    for drift in drifts:
        words, unknown, length = drift.signs
        table.add_row(
            drift.first,
            f"{drift.num_texts:,}",
            f"{words.value:.3f} (usual {words.expected:.3f})",
            f"{100 * unknown.value:.1f} % ({100 * unknown.expected:.1f})",
            f"{length.value:.0f} ({length.expected:.0f})",
            f"{drift.p:.3g}",
            "ALARM" if drift.alarm else "",
        )
    alarms = [drift for drift in drifts if drift.alarm]
    lead = f"{len(alarms)} of {len(drifts)} windows alarm; {rate * len(drifts):.2g} would by chance alone."
    told = [
        f"{drift.first}: more often {', '.join(drift.more)}; less often {', '.join(drift.fewer)}"
        for drift in alarms
    ]
    return (table, lead, *told, *(f"- {note}" for note in _notes(reference, left_out)))


def _notes(reference: Reference, left_out: int) -> list[str]:
    sentences = [
        f"Held against {reference.num_profile:,} documents of the training text, with "
        f"{reference.num_beside:,} others as "
        "what chance gives; `usual` is of these."
    ]
    if left_out:
        sentences.append(f"{left_out:,} texts at the end are less than half a window, and were left out.")
    sentences.append(
        "The rate holds where texts come one by one: where a caller sends many alike, name who in a "
        "column `group`. An "
        "alarm says that inputs changed, not that answers got worse; no alarm does not say that they are "
        "right."
    )
    return sentences
