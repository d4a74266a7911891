"""The commands that keep house among runs: what is there, what can go, and a study as one file.

adaptkit runs list
adaptkit runs show finetune-1a2b3c4d
adaptkit runs prune --yes
adaptkit runs export tickets tickets.tar
adaptkit runs import tickets.tar
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adaptkit.cli import render
from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.cli.options import Root
from adaptkit.disk import size_in_words, size_of
from adaptkit.errors import DataError

if TYPE_CHECKING:
    from adaptkit.compare.kept_runs import KeptRun
    from adaptkit.compare.prune import Removable

runs = typer.Typer(help="Keep house among runs.", no_args_is_help=True, rich_markup_mode=None)
DAY = 86400.0


@command(runs, "list", ["adaptkit runs list", "adaptkit runs list --root archive --json"], bare=True)
def runs_list(root: Root = Path("runs")) -> Outcome:
    """List all runs: kind, study, state, size, age and score.

    Studies come first, the latest first. A run that a process is at says its pid.
    """
    from adaptkit.compare.kept_runs import kept_runs

    found = kept_runs(root)
    total = size_in_words(sum(run.num_bytes for run in found))
    data = {"root": str(root), "runs": [run.as_json() for run in found]}
    if not found:
        return Outcome(f"no run in {root}", data)
    return Outcome((_table(found), f"{len(found)} runs, {total}"), data)


@command(
    runs, "show", ["adaptkit runs show tickets-5e6f7a8b", "adaptkit runs show finetune-1a2b3c4d --check"]
)
def runs_show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its folder.")],
    check: Annotated[
        bool, typer.Option("--check", help="Also hold every file against its recorded digest.")
    ] = False,
    root: Root = Path("runs"),
) -> Outcome:
    """Show one run: what it is, what it was made from, who needs it, and what takes room."""
    from adaptkit import seal
    from adaptkit.compare.kept_runs import kept_runs
    from adaptkit.run import Run

    folder = find_run(Path(run), root)
    if not Run(folder).manifest_path.is_file():
        where = str(folder if folder.is_dir() else root / run)
        raise DataError("no such run", where=where, fix="`adaptkit runs list` names all of them")
    kept = next(one for one in kept_runs(folder.absolute().parent) if one.name == folder.absolute().name)
    if check:
        seal.check(folder)
    sizes = {part.name: size_of(part) for part in sorted(folder.iterdir())}
    manifest = {} if kept.state == "damaged" else Run(folder).manifest()
    facts = {
        **kept.as_json(),
        "command": " ".join(manifest.get("argv", [])),
        "inputs": manifest.get("inputs", {}),
        "record": manifest.get("record", {}),
        "checked": check,
        "sizes": sizes,
    }
    return Outcome(_shown(kept, facts), facts)


@command(
    runs,
    "prune",
    ["adaptkit runs prune", "adaptkit runs prune --yes", "adaptkit runs prune --alone --yes"],
    bare=True,
)
def runs_prune(
    yes: Annotated[bool, typer.Option("--yes", help="Delete it; without, only say what would go.")] = False,
    alone: Annotated[
        bool, typer.Option("--alone", help="Also finished runs of no study: their models are nowhere else.")
    ] = False,
    root: Root = Path("runs"),
) -> Outcome:
    """Say what is safe to delete, and with --yes delete it.

    Leftovers of kills, checkpoints of finished runs, and runs that a study made and none needs now. Never a
    run that a process is at, and nothing that a study needs.
    """
    from adaptkit.compare.prune import delete, removable
    from adaptkit.run_lock import release

    found = removable(root, alone=alone)
    if yes:
        found = delete(root, found)
        release()
    num_bytes = sum(item.num_bytes for item in found)
    data = {"deleted": yes, "num_bytes": num_bytes, "items": [item.as_json() for item in found]}
    return Outcome(_pruned(found, yes), data)


@command(runs, "export", ["adaptkit runs export runs/tickets-5e6f7a8b tickets.tar"])
def runs_export(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="A study's folder, or its name.")],
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="The file to write.")],
    root: Root = Path("runs"),
) -> Outcome:
    """Write a study, with every run that its records name, into one file.

    Every digest is checked on the way. Checkpoints are left out.
    """
    from adaptkit.compare.archive import archive

    study = find_run(study, root)
    written = archive(study, file)
    words = f"{study.name} and {written.num_runs} runs, {size_in_words(written.num_bytes)}"
    data = {"file": str(file), "num_runs": written.num_runs, "num_bytes": written.num_bytes}
    return Outcome(f"{file}: {words}\nnext: adaptkit runs import {file} --root FOLDER", data)


@command(runs, "import", ["adaptkit runs import tickets.tar", "adaptkit runs import tickets.tar --root kept"])
def runs_import(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="What `adaptkit runs export` wrote.")],
    root: Root = Path("runs"),
) -> Outcome:
    """Unpack an exported study.

    Names that lead out, links, devices, damaged files and existing other runs are refused; then nothing is
    unpacked.
    """
    from adaptkit.compare.archive import unpack

    there = unpack(file, root)
    words = f"{there.num_runs} runs, {size_in_words(there.num_bytes)}"
    if there.already_there:
        words += f"; {there.already_there} were there already"
    data = {"study": str(there.study), "num_runs": there.num_runs, "already_there": there.already_there}
    return Outcome(f"{there.study}: {words}\nnext: adaptkit report {there.study}", data)


def _table(found: Sequence[KeptRun]) -> Any:
    from rich.table import Table

    table = Table(title_justify="left")
    for name in ("run", "kind", "study", "state"):
        table.add_column(name, overflow="fold")
    for name in ("size", "age", "score"):
        table.add_column(name, justify="right")
    for run in found:
        study = ", ".join(run.studies) or run.made_by
        table.add_row(
            run.name,
            run.kind or "-",
            study or "-",
            _state(run),
            size_in_words(run.num_bytes),
            _age(run),
            run.score,
        )
    return table


def _state(run: KeptRun) -> str:
    state = run.state.value
    if run.pid is not None:
        state += f", pid {run.pid} on {run.host}"
    if run.older:
        state += ", older release"
    return state


def _age(run: KeptRun) -> str:
    if not run.ended:
        return "-"
    seconds = max(0.0, time.time() - run.ended)
    return render.duration(seconds) if seconds < DAY else f"{seconds / DAY:.0f} days"


def _shown(run: KeptRun, facts: dict[str, Any]) -> str:
    rows = [
        ("run", run.name),
        ("kind", run.kind),
        ("state", _state(run)),
        ("problem", run.problem),
        ("score", run.score),
        ("age", _age(run)),
        ("needed by", ", ".join(run.studies)),
        ("made by", run.made_by),
        ("stands on", ", ".join(run.stands_on)),
        ("command", facts["command"]),
        ("digests", "all files hold" if facts["checked"] else ""),
        ("size", size_in_words(run.num_bytes)),
    ]
    sizes = [(f"  {name}", size_in_words(size)) for name, size in facts["sizes"].items()]
    return render.table([row for row in rows if row[1]] + sizes)


def _pruned(found: Sequence[Removable], deleted: bool) -> str:
    if not found:
        return "nothing to delete"
    parts = []
    for kind in dict.fromkeys(item.kind for item in found):
        of_kind = [item for item in found if item.kind is kind]
        size = size_in_words(sum(item.num_bytes for item in of_kind))
        rows = [(f"  {item.place}", size_in_words(item.num_bytes)) for item in of_kind]
        parts.append(f"{kind.value}: {len(of_kind)}, {size}\n{render.table(rows)}")
    total = size_in_words(sum(item.num_bytes for item in found))
    last = f"deleted: {total}" if deleted else f"{total} can go; add --yes to delete it"
    return "\n\n".join([*parts, last])
