"""The command that reads what people voted for in the demo.

adaptkit votes votes.jsonl                             who wins how often, with intervals
adaptkit votes votes.jsonl --out preferences.jsonl     a task of kind `pairs` for `compare`
adaptkit votes votes.jsonl --judge URL                 how far a language model agrees with people
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.embed import PATIENCE_S, first_generator, server_key
from adaptkit.errors import DataError
from adaptkit.run import write_jsonl

if TYPE_CHECKING:
    from adaptkit.client.openai import Client
    from adaptkit.study.vote_record import Vote
    from adaptkit.study.win_rates import Cluster, Comparisons, WinRate

app = typer.Typer()
JUDGE_TOKENS = 16


@command(
    app,
    "votes",
    [
        "adaptkit votes votes.jsonl",
        "adaptkit votes votes.jsonl --by voter --out preferences.jsonl",
        "adaptkit votes votes.jsonl --judge https://api.example.com --judge-model large --key-file key",
    ],
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
    judge: Annotated[
        str, typer.Option(help="Address of an OpenAI-compatible server whose model judges the same pairs.")
    ] = "",
    judge_model: Annotated[
        str, typer.Option(help="The judge's name there; else the first generator that the server names.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="The judge's key; else OPENAI_API_KEY or ADAPTKIT_API_KEY.")
    ] = None,
) -> Outcome:
    """Say which model people prefer, and how sure that is.

    Win rates by Bradley and Terry's model, with 95 % intervals; a judge's beside its agreement alone.
    """
    from adaptkit.client.openai import Client
    from adaptkit.study.vote_record import preference_rows, read_votes
    from adaptkit.study.win_rates import comparisons_of, win_rates

    read = read_votes(file)
    if not read:
        fix = "let people vote: adaptkit demo --votes FILE"
        raise DataError("holds no votes yet", where=str(file), fix=fix)
    compared = comparisons_of(read, by)
    rows = win_rates(compared)
    notes, result = _describe(read, compared)
    result["rates"] = [asdict(row) for row in rows]
    views: list[Any] = [_table(rows), "\n".join(notes)]
    if out is not None:
        kept = preference_rows(read)
        write_jsonl(out, kept)
        result |= {"out": str(out), "preferences": len(kept)}
        views.append(
            f"{len(kept):,} preferences in {out}: votes with a winner, and two different answers\n"
            f"next, in a study: tasks: [{{name: preference, kind: pairs, train: {{files: [{out}]}}}}]"
        )
    if judge:
        kept_by_judge = file.with_name(f"{file.stem}.judge.jsonl")
        with Client(judge, server_key(key_file), patience_s=PATIENCE_S) as client:
            name = judge_model or first_generator(client)
            said, result["judge"] = _judge(read, client, name, kept_by_judge, by)
        views += said
    return Outcome(tuple(views), result)


def _describe(read: list[Vote], compared: Comparisons) -> tuple[list[str], dict[str, Any]]:
    """Say what was voted, and what intervals are over."""
    said, num_voters = Counter(vote.choice.value for vote in read), len({vote.voter for vote in read})
    notes = [
        f"{len(read):,} votes of {num_voters:,} voters: {said['tie']} ties, {said['neither']} with both bad, "
        "each half a win of both models",
        f"intervals: 95 %, over {compared.num_clusters:,} {compared.cluster}s",
    ]
    if compared.cluster == "prompt":
        notes.append(f"they hold for these {num_voters} voters, and say nothing of others")
    if not compared.connected:
        notes.append("some models were never compared, not even by way of others: only pairs are shown")
    decided = said["first"] + said["second"]
    left = said["first"] / decided if decided else None
    if left is not None:
        notes.append(f"the answer on the left won {left:.0%} of the {decided:,} votes with a winner")
    result = {"votes": len(read), "voters": num_voters, "choices": dict(said), "left": left}
    return notes, result | {"cluster": compared.cluster, "clusters": compared.num_clusters}


def _judge(
    read: list[Vote], client: Client, name: str, kept: Path, by: Cluster | None
) -> tuple[list[Any], dict[str, Any]]:
    """Have a model judge the same pairs: how far it agrees with people, and only then its win rates."""
    from adaptkit.study.vote_judge import agreement_of, judge_votes, votes_of_judge
    from adaptkit.study.win_rates import comparisons_of, win_rates

    def ask(request: str) -> str:
        return client.answer(name, request, max_tokens=JUDGE_TOKENS)

    judged = judge_votes(read, ask, name, kept)
    agreed, rows = agreement_of(read, judged), win_rates(comparisons_of(votes_of_judge(read, judged), by))
    lines = [
        f"\nthe judge {name} says what people say in {agreed.share:.0%} of their votes "
        f"[{agreed.low:.0%}, {agreed.high:.0%}], kappa {agreed.kappa:.2f} (0: chance)",
        f"the order swayed it in {agreed.swayed:.0%} of the pairs, which count as ties",
    ]
    if agreed.decided is not None:
        lines.append(f"where both name a winner, it is the same one in {agreed.decided:.0%}")
    lines.append(f"win rates by {name}, worth as much as that agreement:")
    result = {"model": name, "agreement": asdict(agreed), "rates": [asdict(row) for row in rows]}
    return ["\n".join(lines), _table(rows)], result


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
