"""Votes of people on two answers: one JSON line each, kept only where the voter has agreed.

append_vote(Path("votes.jsonl"), vote)
votes = read_votes(Path("votes.jsonl"))
write_jsonl("preferences.jsonl", preference_rows(votes))     # a task of kind `pairs`
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pydantic

from adaptkit.disk import writing
from adaptkit.errors import DataError
from adaptkit.run_record import Record

_appending = threading.Lock()


class Choice(StrEnum):
    """What a voter said; the first answer stood on the left."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    NEITHER = "neither"
    """Both answers are bad: for win rates as good as a tie, and counted by itself."""


class VotedAnswer(Record):
    """One of the two answers, and whose it is."""

    model: str
    """What the server calls it."""
    arm: str = ""
    """Of the study; empty outside one."""
    text: str


class Vote(Record):
    """One vote."""

    version: Literal[1] = 1
    at: str
    """UTC, ISO 8601."""
    voter: str
    """A random name of the visit: the same in all votes of one open page, and nothing else about a person."""
    consent: str
    """What the voter has agreed to, word for word."""
    prompt: str
    first: VotedAnswer
    second: VotedAnswer
    choice: Choice


def open_votes(path: Path) -> int:
    """Make a file of votes that only its owner reads, or check the one that is there.

    Returns: how many votes it holds. A last line that a kill cut is taken off.
    Raises: DataError for a file that holds something else, or cannot be written.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        votes = read_votes(path)
        with path.open("r+b") as file:
            whole = file.read().rpartition(b"\n")
            file.truncate(len(whole[0]) + len(whole[1]))
    except OSError as error:
        what = f"votes cannot be kept here: {error.strerror}"
        raise DataError(what, where=str(path), fix="name a file that can be written") from None
    return len(votes)


def append_vote(path: Path, vote: Vote) -> None:
    """Add a vote at the end, on the disk before this returns.

    Raises: DiskFullError or AdaptkitError.
    """
    line = json.dumps(vote.model_dump(mode="json"), ensure_ascii=True) + "\n"
    with _appending, writing(path, len(line)), path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_votes(path: Path) -> list[Vote]:
    """All votes of a file; a last line that a kill cut is none.

    Raises: DataError at file:line for a line that is no vote.
    """
    votes = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        what = f"holds no votes: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        raise DataError(what, where=str(path), fix="give the file of `adaptkit demo --votes`") from None
    for number, line in enumerate(lines, 1):
        try:
            votes.append(Vote.model_validate_json(line))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            what = f"is no vote: {'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
            fix = "give the file of `adaptkit demo --votes`, or take this line out"
            raise DataError(what, where=f"{path}:{number}", fix=fix) from None
    return votes


def preference_rows(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Rows of a task of kind `pairs`: the prompt, the better answer and the other, grouped by prompt.

    Votes without a winner teach nobody which answer is better, and votes on equal texts cannot: both are left
    out.
    """
    rows = []
    for vote in votes:
        chosen, rejected = vote.first.text, vote.second.text
        if vote.choice is Choice.SECOND:
            chosen, rejected = rejected, chosen
        if vote.choice in (Choice.FIRST, Choice.SECOND) and chosen.strip() != rejected.strip():
            group = hashlib.sha256(vote.prompt.encode()).hexdigest()[:12]
            row = {"prompt": vote.prompt, "chosen": chosen, "rejected": rejected}
            rows.append({**row, "group": group, "time": vote.at})
    return rows
