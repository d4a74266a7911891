"""The command that says whether a model still answers as it did when it was exported.

adaptkit verify FOLDER             against the answers that its export stored
adaptkit verify OLD NEW            whether an upgrade, a quantisation or a merge changed what users get
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.doctor import extras
from adaptkit.errors import EXIT_UNDECIDED, ConfigError, DataError

if TYPE_CHECKING:
    from adaptkit.export.verify.answer_changes import Given
    from adaptkit.export.verify.driver import Engine
    from adaptkit.export.verify.record import AnswerRecord, Precision

app = typer.Typer()
LIBRARIES = ("transformers", "sentence-transformers", "vllm")
EXIT_CHANGED = 1
EXIT_CODES = {"same": 0, "changed": EXIT_CHANGED, "cannot tell": EXIT_UNDECIDED}

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="An exported folder; the old one of two.", show_default=False)
]
New = Annotated[
    Path | None, typer.Argument(metavar="[NEW]", help="A second folder, which should answer as the first.")
]
EngineWord = Annotated[
    str, typer.Option("--engine", help="transformers, sentence-transformers, vllm, or the URL of a server.")
]
Name = Annotated[str | None, typer.Option("--model", help="Of a server that serves several, the one to ask.")]
KeyFile = Annotated[
    str | None, typer.Option(help="File with the server's key; else ADAPTKIT_API_KEY.", metavar="FILE")
]
Dtype = Annotated[
    Literal["float32", "float16", "bfloat16"] | None,
    typer.Option(help="What the engine computes in; float32 if not given, bfloat16 for a URL."),
]


@command(
    app,
    "verify",
    [
        "adaptkit verify runs/quickstart-1a2b3c4d/export/int8",
        "adaptkit verify models/support --engine http://127.0.0.1:8000 --dtype float32",
        "adaptkit verify models/embedder --engine sentence-transformers",
        "adaptkit verify models/support --engine vllm",
        "adaptkit verify models/support models/support-int8",
    ],
    exits="0 same, 1 changed (or a defect of ours, which says so), 3 cannot tell",
)
def verify(
    folder: Folder,
    new: New = None,
    engine: EngineWord = "transformers",
    model: Name = None,
    key_file: KeyFile = None,
    dtype: Dtype = None,
) -> Outcome:
    """Say whether a model still answers as it did when it was exported.

    Repeats the answers that its export stored, by any engine; or compares two folders.
    """
    _check_words(folder, new, engine, model, dtype)
    from adaptkit.export.verify import driver

    if new is not None:
        result = driver.verify_upgrade(folder, new)
        next_step = f"adaptkit verify {new}"
    else:
        result = driver.verify_folder(folder, _engine(folder, engine, model, key_file, dtype))
        next_step = f"adaptkit serve {folder}"
    if result.verdict != "same":
        next_step = f"adaptkit verify {folder} --json"
    lines = [*result.lines(), "", f"next: {next_step}"]
    return Outcome("\n".join(lines), {**result.as_json(), "next": next_step}, EXIT_CODES[result.verdict])


def _check_words(folder: Path, new: Path | None, engine: str, model: str | None, dtype: str | None) -> None:
    """Refuse words that do not go together.

    Raises: ConfigError, DataError.
    """
    for path in (folder, new):
        if path is not None and not (path / "config.json").is_file():
            fix = "give a folder that `adaptkit export` wrote, or one that transformers loads"
            raise DataError("is no model folder", where=str(path), fix=fix)
    is_url = engine.startswith(("http://", "https://"))
    if engine not in LIBRARIES and not is_url:
        fix = f"use one of {', '.join(LIBRARIES)}, or http://HOST:PORT"
        raise ConfigError(f"no engine '{engine}'", where="--engine", fix=fix)
    if new is not None and (engine != "transformers" or dtype is not None):
        fix = "leave --engine and --dtype out, or verify each folder by itself"
        raise ConfigError("two folders are compared by transformers in float32", where="--engine", fix=fix)
    if model is not None and not is_url:
        raise ConfigError("only a server serves several", where="--model", fix="leave --model out")
    if engine == "vllm" and dtype is not None:
        fix = "leave --dtype out: it follows from the folder and this machine"
        raise ConfigError("vLLM is started as `adaptkit serve` starts it", where="--dtype", fix=fix)


def _engine(
    folder: Path, engine: str, model: str | None, key_file: str | None, dtype: Precision | None
) -> Engine:
    """Choose how the stored questions are asked."""
    if engine == "sentence-transformers":
        extras.require_package("sentence_transformers", "--engine sentence-transformers")
        from adaptkit.export.verify.sentence_answers import ask_sentence_transformers

        return lambda record: ask_sentence_transformers(folder, record, dtype or "float32")
    if engine == "transformers":
        from adaptkit.export.verify.upgrade import ask_folder

        return lambda record: ask_folder(folder, record, dtype or "float32")
    if engine == "vllm":
        extras.require_server()
        return lambda record: _ask_vllm(folder, record)
    return lambda record: _ask_url(engine, model, key_file, record, dtype or "bfloat16")


def _ask_url(
    url: str, model: str | None, key_file: str | None, record: AnswerRecord, precision: Precision
) -> Given:
    from adaptkit.client.key_file import read_key
    from adaptkit.client.openai import Client
    from adaptkit.export.verify.server_answers import ask_server

    key = read_key(key_file) if key_file else os.environ.get("ADAPTKIT_API_KEY", "")
    with Client(url, key) as client:
        return ask_server(client, model, record, precision)


def _ask_vllm(folder: Path, record: AnswerRecord) -> Given:
    """Start vLLM for the folder, ask it, and end it."""
    from adaptkit.client.openai import Client
    from adaptkit.export import hardware
    from adaptkit.export.resolve import resolve
    from adaptkit.export.verify.server_answers import ask_server
    from adaptkit.serve import one_engine
    from adaptkit.serve.status import StatusLine

    launch = one_engine.plan_bare(resolve(folder), hardware.look())

    def work(url: str, key: str) -> Given:
        with Client(url, key) as client:
            return ask_server(client, launch.name, record, one_engine.precision(launch))

    status = StatusLine()
    try:
        return one_engine.with_engine(launch, work, status)
    finally:
        status.quiet()
