"""Every error a user can cause, each saying what happened, where, and how to fix it.

AdaptkitError           anything the command line reports without a traceback
+-- ConfigError         a config file or override that does not fit its schema
+-- DataError           a row, file or column that cannot be used
+-- ModelError          a model or tokenizer folder that is missing, incomplete or unfit
+-- BudgetError         a plan that costs more than it may
+-- CheckpointError     a checkpoint that does not verify or does not belong to this run
+-- DiskFullError       not enough room to write; the last good files are untouched
+-- NonFiniteError      a loss or gradient norm that is not a number
+-- ServerError         a server that does not start, or does not answer
+-- MissingDependency   an optional package that this command needs
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

EXIT_DECIDED, EXIT_INTERNAL, EXIT_USER, EXIT_UNDECIDED, EXIT_STOPPED = 0, 1, 2, 3, 130


class AdaptkitError(Exception):
    """A mistake that the user can mend.

    Args:
        what: one sentence, what is wrong.
        where: `file:line:col`, a folder, a step: the place to look.
        fix: one sentence, what to do.
    """

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None):
        self.what, self.where, self.fix = what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  fix: {self.fix}" if self.fix else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Stages run in child processes; an exception with keyword arguments does not unpickle by itself.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[AdaptkitError], what: str, where: str | None, fix: str | None) -> AdaptkitError:
    return kind(what, where=where, fix=fix)


class ConfigError(AdaptkitError):
    """A config file or override that does not fit its schema."""


class DataError(AdaptkitError):
    """A row, file or column that cannot be used."""


class ModelError(AdaptkitError):
    """A model or tokenizer folder that is missing, incomplete or unfit for the use."""


class BudgetError(AdaptkitError):
    """A plan that costs more than it may."""


class CheckpointError(AdaptkitError):
    """A checkpoint that does not verify, or belongs to another run."""


class DiskFullError(AdaptkitError):
    """Not enough room to write; what was on disk before is untouched."""


class NonFiniteError(AdaptkitError):
    """A loss or gradient norm that is infinite or not a number; the update was not made.

    Attributes:
        run: name of the run that ended so.
        spent: what it had cost until then.
    """

    run: str | None = None
    spent: dict[str, float] | None = None


class ServerError(AdaptkitError):
    """A server that does not start, dies, or answers with an error."""


class MissingDependency(AdaptkitError):
    """An optional package that this command needs; `fix` holds the install command."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the choice most like `name`, or an empty string."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def first_line(error: Exception) -> str:
    """The first line of what a library said, without its pages of advice."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
