"""What all commands share: examples in the help, `--json`, `--debug`, exit codes, errors without a traceback.

A command is a function that returns an `Outcome`; this module prints it. Standard output holds the result and
nothing else: one JSON object with `--json`, text without; progress and errors go to standard error.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TextIO

import typer

from adaptkit.disk import disk_full
from adaptkit.doctor.extras import missing_module
from adaptkit.errors import EXIT_INTERNAL, EXIT_STOPPED, EXIT_USER, AdaptkitError

_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TQDM_DISABLE": "1",
}
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of what typer raises for a mistyped command line: it carries its own copy of click, or imports it."""
_DEBUG, _JSON = "--debug", "--json"
FIRST_WORDS_S = 8.0
"""Seconds after which a command that has said nothing says that it is at work."""
FILE_WIDTH = 160  # columns of tables that go to a file or a pipe


@dataclass(frozen=True)
class Outcome:
    """What a command ends with."""

    view: object
    """For people: text, or something that rich draws; several of them as a tuple."""
    data: Mapping[str, object]
    """The same for programs; JSON-able."""
    exit_code: int = 0


Command = Callable[..., Outcome]


def command(
    group: typer.Typer, name: str, examples: list[str], exits: str = "0 done", *, bare: bool = False
) -> Callable[[Command], Command]:
    """Register a function as a command with `--json`, `--debug`, examples and exit codes in its help.

    Args:
        bare: whether it does something without any word after it; other commands then show their help.
    """
    shown = ["\b", "Examples:", *(f"  {example}" for example in examples)]
    codes = f"{exits}; {EXIT_USER} your mistake, {EXIT_INTERNAL} ours, {EXIT_STOPPED} stopped by Ctrl-C"
    epilog = "\n".join([*shown, "", "", "\b", "Exit codes:", f"  {codes}"])

    def register(function: Command) -> Command:
        group.command(name, epilog=epilog, no_args_is_help=not bare)(_printing(function))
        return function

    return register


def _printing(function: Command) -> Callable[..., int]:
    """Wrap a command as typer calls it: take the shared options, print the outcome, return the exit code."""

    @functools.wraps(function)
    def run(*, as_json: bool, debug: bool, **arguments: Any) -> int:
        with contextlib.ExitStack() as stack:
            if as_json:
                stack.enter_context(contextlib.redirect_stdout(sys.stderr))
            try:
                outcome = function(**arguments)
            except KeyboardInterrupt:  # typer would exit without a word
                raise typer.Abort from None
        if os.environ.get("RANK", "0") != "0":  # torchrun starts this once per GPU
            return outcome.exit_code
        if as_json:
            _show(json.dumps(outcome.data, indent=1, ensure_ascii=False))
        else:
            _show(outcome.view)
        return outcome.exit_code

    signature = inspect.signature(function, eval_str=True)
    parameters = [*signature.parameters.values(), *_SHARED]
    shown: Any = run  # typer reads the options from these two attributes
    shown.__signature__ = signature.replace(parameters=parameters, return_annotation=int)
    shown.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _shared(name: str, flag: str, help: str) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(
        name, kind, default=False, annotation=Annotated[bool, typer.Option(flag, help=help)]
    )


_SHARED = [
    _shared("as_json", _JSON, "Print one JSON object to standard output."),
    _shared("debug", _DEBUG, "Show the traceback of an error."),
]


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler's SIGTERM stops a command as its user's Ctrl-C does: what it started ends with it."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watched:
    """Standard error, which notes whether anything was written."""

    def __init__(self, stream: TextIO):
        self.stream, self.used = stream, False

    def write(self, text: str) -> int:
        self.used = True
        return self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def _first_words(arguments: list[str]) -> Iterator[None]:
    """Say that a command is at work where it has said nothing for some seconds."""
    stream = sys.stderr
    watched: Any = _Watched(stream)

    def say() -> None:
        if watched.used:
            return
        name, seconds = " ".join(arguments[:1]), f"{FIRST_WORDS_S:g}"
        line = json.dumps({"event": "working", "command": name, "seconds": FIRST_WORDS_S})
        if stream.isatty():
            line = f"adaptkit {name}: at work for {seconds} s, reading and loading; Ctrl-C stops it"
        print(line, file=stream, flush=True)

    timer = threading.Timer(FIRST_WORDS_S, say)
    timer.daemon = True
    timer.start()
    sys.stderr = watched
    try:
        yield
    finally:
        sys.stderr = stream
        timer.cancel()


def _show(view: object) -> None:
    """Print text as it is, and draw everything else with rich; of a tuple each part."""
    if isinstance(view, tuple):
        for part in view:
            _show(part)
    elif isinstance(view, str):
        print(view)
    else:
        from rich.console import Console

        width = None if sys.stdout.isatty() else FILE_WIDTH
        Console(width=width).print(view)


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command line and return its exit code; a traceback is shown only with `--debug`."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with _sigterm_as_ctrl_c(), _first_words(arguments):
            return app(args=arguments, prog_name="adaptkit", standalone_mode=False) or 0
    except typer.Abort:
        print("\nstopped; run the same command to resume", file=sys.stderr)
        return EXIT_STOPPED
    except BrokenPipeError:
        # What reads our output is gone: the flush at exit must not fail.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return EXIT_INTERNAL
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer has its own copy of click's
            print(str(getattr(error, "message", error)))
            return EXIT_USER
        if _DEBUG in arguments:
            traceback.print_exc()
        problem, code = _explain(error)
        print(f"error: {problem}", file=sys.stderr)
        if _JSON in arguments:
            print(json.dumps({"error": _fields(problem), "exit_code": code}, indent=1, ensure_ascii=False))
        return code


def _explain(error: Exception) -> tuple[AdaptkitError, int]:
    """Turn any error into one with a place and a fix, and the exit code it ends in."""
    if isinstance(error, AdaptkitError):
        return error, EXIT_USER
    if isinstance(error, _CLICK_ERROR):
        path = "adaptkit"
        if context := getattr(error, "ctx", None):
            path = context.command_path
        what = getattr(error, "format_message", error.__str__)()
        return AdaptkitError(what, where="command line", fix=f"{path} --help"), EXIT_USER
    if isinstance(error, ModuleNotFoundError) and (missing := missing_module(error)):
        return missing, EXIT_USER
    if full := disk_full(error):
        return full, EXIT_USER
    if isinstance(error, MemoryError):
        fix = "set trainer.microbatch_size or jobs lower, then run the same command: it resumes"
        return AdaptkitError("out of memory", fix=fix), EXIT_USER
    first_line = (str(error).strip().splitlines() or [""])[0]
    what = f"unexpected {type(error).__name__}: {first_line}"
    fix = (
        "this is a defect of adaptkit's: run the same command with --debug and report what it shows, "
        "with `adaptkit doctor`"
    )
    return AdaptkitError(what, fix=fix), EXIT_INTERNAL


def _fields(error: AdaptkitError) -> dict[str, str | None]:
    return {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix}
