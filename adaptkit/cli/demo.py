"""The command that shows a study to the people who decide.

adaptkit demo runs/STUDY           a page on which people try the models and see what was measured
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adaptkit.cli.arguments import find_run
from adaptkit.cli.console import Outcome, command
from adaptkit.doctor import extras
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run
from adaptkit.study.record import is_study

if TYPE_CHECKING:
    from adaptkit.demo.study_view import Study

app = typer.Typer()

Shown = Annotated[
    Path, typer.Argument(metavar="STUDY", help="A study's, run's or model's folder.", show_default=False)
]
Server = Annotated[str, typer.Option(help="Where `adaptkit serve` answers.")]
Host = Annotated[str, typer.Option(help="The address to listen on; any but loopback asks for a login.")]
Port = Annotated[int, typer.Option(help="The page's port.", min=1, max=65535)]
KeyFile = Annotated[
    Path | None, typer.Option(help="The server's key; else ADAPTKIT_API_KEY, else this machine's.")
]
PasswordFile = Annotated[
    Path | None, typer.Option(help="The login's password; else ADAPTKIT_DEMO_PASSWORD, else one is made.")
]
Prices = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Prices of a server and an API, with their sources.")
]
Corpus = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Text to search in, instead of the study's.")
]
Votes = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Offer a blind mode, and keep the votes of who agrees in this file."),
]
SharePublicly = Annotated[
    bool,
    typer.Option(
        "--share-publicly", help="Also make a public address, through Gradio's relay; asks for a login."
    ),
]


@command(
    app,
    "demo",
    [
        "adaptkit demo runs/quickstart-1a2b3c4d",
        "adaptkit demo runs/quickstart-1a2b3c4d --server http://10.0.0.5:8000 --key-file key",
        "adaptkit demo runs/quickstart-1a2b3c4d --prices prices.yaml",
        "adaptkit demo runs/quickstart-1a2b3c4d --votes votes.jsonl",
        "adaptkit demo runs/quickstart-1a2b3c4d --corpus notes.jsonl --host 0.0.0.0 --password-file password",
    ],
    exits="0 stopped by SIGTERM or Ctrl-C",
)
def demo(
    study: Shown,
    server: Server = "http://127.0.0.1:8000",
    host: Host = "127.0.0.1",
    port: Port = 7860,
    key_file: KeyFile = None,
    password_file: PasswordFile = None,
    prices: Prices = None,
    corpus: Corpus = None,
    votes: Votes = None,
    share_publicly: SharePublicly = False,
) -> Outcome:
    """Show a study to the people who decide.

    Compare, classify, search, and a break-even to play with, in a browser; works without internet.
    """
    extras.require("demo", ("gradio", "starlette", "httpx"), "the demo page")
    study = find_run(study)
    from adaptkit.demo import launch
    from adaptkit.demo.search_index import Passages, from_file

    address = launch.listen_address(host, port, password_file, share_publicly)
    shown = _study_view(study, prices)
    passages: Passages = []
    if corpus is not None:
        passages = from_file(corpus)
    found = launch.find_server(server, key_file)
    page = launch.make_page(found, shown, passages, address, _card(study), votes)
    launch.run(page, address)
    return Outcome(f"stopped {address.url}", {"url": address.url, "server": server})


def _study_view(folder: Path, prices: Path | None) -> Study:
    """Choose what the page shows of a folder: a study's findings, or that nothing was compared."""
    from adaptkit.demo.study_view import NoStudy
    from adaptkit.report.demo_view import StudyView

    if is_study(folder):
        return StudyView(folder, prices)
    return NoStudy(folder)


def _card(folder: Path) -> str:
    """Read the card of the model that the folder stands for, if it was exported; else write a sentence."""
    from adaptkit.export.resolve import resolve

    try:
        source = resolve(folder)
    except AdaptkitError as error:
        if is_study(folder):  # it has findings to show, and perhaps no model or no report
            return f"There is no card: {error.what}."
        raise
    cards = [source.folder / "README.md"]
    if source.run is not None:
        cards += sorted(Run(source.run).exports.glob("*/README.md"))
    for card in cards:
        if card.is_file():
            return card.read_text(encoding="utf-8").split("\n---\n", 1)[-1]
    return f"{source.name}: {source.why}."
