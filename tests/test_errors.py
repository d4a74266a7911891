"""The error classes: what, where, fix; they survive a process boundary; close names are suggested."""

from __future__ import annotations

import pickle

import pytest

from adaptkit import errors
from adaptkit.errors import AdaptkitError, DiskFullError, nearest

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AdaptkitError)]


def test_text_has_what_where_and_fix() -> None:
    error = AdaptkitError("no such file", where="a.yaml:3:5", fix="check the path")
    assert str(error) == "a.yaml:3:5: no such file\n  fix: check the path"
    assert str(AdaptkitError("bare")) == "bare"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_crosses_a_process_boundary_whole(kind: type[AdaptkitError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", where="here", fix="this")))
    assert type(error) is kind
    assert (error.what, error.where, error.fix) == ("what", "here", "this")


def test_every_kind_is_drawn_in_the_module_docstring() -> None:
    assert len(KINDS) >= 9
    assert all(kind.__name__ in errors.__doc__ for kind in KINDS)


def test_exit_codes_differ_and_match_the_promise() -> None:
    codes = [
        errors.EXIT_DECIDED,
        errors.EXIT_INTERNAL,
        errors.EXIT_USER,
        errors.EXIT_UNDECIDED,
        errors.EXIT_STOPPED,
    ]
    assert codes == [0, 1, 2, 3, 130]


def test_nearest_suggests_only_what_is_close() -> None:
    assert nearest("budgett", ["budget", "seeds"]) == " (did you mean 'budget'?)"
    assert nearest("zzz", ["budget", "seeds"]) == ""
    assert nearest("x", []) == ""


def test_disk_full_is_an_error_a_user_can_mend() -> None:
    assert issubclass(DiskFullError, AdaptkitError)
