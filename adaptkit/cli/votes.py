"""The command that reads what people voted for in the demo.

adaptkit votes votes.jsonl                             who wins how often, with intervals
adaptkit votes votes.jsonl --out preferences.jsonl     a task of kind `pairs` for `compare`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from adaptkit.cli.console import Outcome, command
from adaptkit.errors import DataError
from adaptkit.run import write_jsonl

if TYPE_CHECKING:
    from adaptkit.study.win_rates import WinRate

app = typer.Typer()


@command(
    app,
    "votes",
    ["adaptkit votes votes.jsonl", "adaptkit votes votes.jsonl --by voter --out preferences.jsonl"],
)
def votes(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `adaptkit demo --votes` wrote.", show_default=False)
    ],
    by: Annotated[
        Literal["voter", "prompt"] | None,
        typer.Option(help="What is drawn for intervals; else voters where there are ten, or prompts."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the preferences, as a task of kind `pairs`, to this file.")
    ] = None,
) -> Outcome:
    """Say which model people prefer, and how sure that is.

    Win rates by Bradley and Terry's model, with 95 % intervals.
    """
    from adaptkit.study.vote_record import preference_rows, read_votes
    from adaptkit.study.win_rates import comparisons_of, win_rates

    read = read_votes(file)
    if not read:
        raise DataError(
            "holds no votes yet", where=str(file), fix="let people vote: adaptkit demo --votes FILE"
        )
    compared = comparisons_of(read, by)
    rows, said = win_rates(compared), Counter(vote.choice.value for vote in read)
    num_voters = len({vote.voter for vote in read})
    notes = [
        f"{len(read):,} votes of {num_voters:,} voters: {said['tie']} ties, {said['neither']} with both bad, "
        "each half a win of both models",
        f"intervals: 95 %, over {compared.num_clusters:,} {compared.cluster}s",
    ]
    if compared.cluster == "prompt":
        notes.append(f"they hold for these {num_voters} voters, and say nothing of others")
    if not compared.connected:
        notes.append("some models were never compared, not even by way of others: only pairs are shown")
    left = said["first"] / max(1, said["first"] + said["second"])
    notes.append(
        f"the answer on the left won {left:.0%} of the votes with a winner: 50 % where order is no matter"
    )
    result = {"votes": len(read), "voters": num_voters, "choices": dict(said), "cluster": compared.cluster}
    result |= {"clusters": compared.num_clusters, "rates": [asdict(row) for row in rows], "left": left}
    if out is not None:
        kept = preference_rows(read)
        write_jsonl(out, kept)
        result |= {"out": str(out), "preferences": len(kept)}
        notes += [f"{len(kept):,} preferences in {out}: votes with a winner, and two different answers"]
        notes += [f"next, in a study: tasks: [{{name: preference, kind: pairs, train: {{files: [{out}]}}}}]"]
    return Outcome((_table(rows), "\n".join(notes)), result)


def _table(rows: Sequence[WinRate]) -> Table:
    table = Table("model", "against", "wins", "votes", box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row.model,
            row.against or "all others",
            f"{row.rate:.0%} [{row.low:.0%}, {row.high:.0%}]",
            str(row.votes),
        )
    return table
