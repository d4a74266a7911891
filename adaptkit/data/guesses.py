"""Say what was guessed about files and columns, one sentence each, and doubt groups that are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptkit.data.conversations import names_speakers
from adaptkit.data.records import Record
from adaptkit.notices import Tell

FACTS = ("group", "source", "time")
"""Roles that say something about a row and are no part of what a model sees, nor of the row's id."""
SYNTHETIC = "synthetic"
"""The `source` of rows that a generator wrote: they are learnt from, and nothing is judged on them."""
NONE = "none"
"""In place of a column's name: no column has this role, whatever it is called."""
FEW_GROUPS = 10
"""With fewer groups no tenth of them can be held out."""
LIKE_IDS = 0.95
"""From this share of different values a group column is an id."""
MIN_ROWS = 20
"""With fewer rows nothing is said of their groups."""
NOT_GROUPS = {
    *("control", "controls", "treatment", "treated", "placebo", "intervention", "exposed", "unexposed"),
    *("train", "training", "test", "dev", "valid", "validation", "eval", "heldout", "held-out"),
    *("a", "b", "c", "0", "1", "true", "false", "yes", "no"),
}
"""Values that name a side of an experiment or a part of the data."""


class Guesses:
    """Sentences on what was guessed about files and columns, each once: shown at once, and kept."""

    def __init__(self, tell: Tell):
        self.sentences: list[str] = []
        self._tell = tell

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)
            self._tell(sentence)

    def about_columns(
        self,
        files: Sequence[Path],
        roles: Mapping[str, str],
        chosen: Mapping[str, str],
        samples: Sequence[Record],
        values: Sequence[dict[str, Any]],
    ) -> None:
        """Say which columns were adopted by their names, and what does not look like what it should be.

        Args:
            samples: the first records.
            values: of every row, by role.
        """
        name = str(files[0]) if len(files) == 1 else f"{files[0]} and others"
        if adopted := adopted_columns(roles, chosen):
            self.add(f"{name}: {adopted}")
        if "label_probabilities" in roles and "label_probabilities" not in chosen:
            learnt = "how likely each label is, and heads learn that in place of one label"
            give_up = f"columns: {{label_probabilities: {NONE}}} gives it up"
            self.add(f"{name}: column 'label_probabilities' says, by its name, {learnt}; {give_up}")
        if "group" in roles and (doubt := doubt_about_groups(values, roles["group"])):
            self.add(f"{name}: {doubt}")
        columns = roles.get("messages", "").split("+")
        if names_speakers(samples, columns):
            turns = f"turns in '{columns[0]}' (from, value)"
            self.add(f"{name}: {turns} are read as messages, as ShareGPT means them")


def adopted_columns(roles: Mapping[str, str], chosen: Mapping[str, str]) -> str:
    """A sentence on the facts that were found by the names of their columns; empty where there are none."""
    names = [role for role in FACTS if role in roles and role not in chosen]
    if not names:
        return ""
    columns = ", ".join(f"'{roles[name]}'" for name in names)
    plural = "s" if len(names) > 1 else ""
    say = "say" if len(names) > 1 else "says"
    facts = " and ".join(_FACTS[name] for name in names)
    given_up = ", ".join(f"{name}: {NONE}" for name in names)
    return f"column{plural} {columns} {say}, by its name, {facts}; columns: {{{given_up}}} gives it up"


def doubt_about_groups(values: Sequence[dict[str, Any]], column: str) -> str:
    """A sentence on a group column that does not look like one; empty where it does."""
    sizes = Counter(str(value["group"]) for value in values if "group" in value)
    num_rows = sum(sizes.values())
    if num_rows < MIN_ROWS:
        return ""
    give_up = f"columns: {{group: {NONE}}} gives it up"
    if len(sizes) >= LIKE_IDS * num_rows:
        return f"column '{column}' differs in nearly every row, as an id does: it holds no rows together"
    if len(sizes) >= FEW_GROUPS and max(sizes.values()) <= num_rows / 2:
        return ""
    number = f"{len(sizes)} values" if len(sizes) > 1 else "one value"
    what = f"column '{column}' has {number} in {num_rows:,} rows ({some_of(sizes)})"
    if {name.strip().lower() for name in sizes} <= NOT_GROUPS:
        looks = "that looks like a side of an experiment or a part of the data, not a group"
        return f"{what}: {looks}; {give_up}"
    if len(sizes) >= FEW_GROUPS:
        return f"{what}: more than half of the rows are one group; {give_up}"
    return f"{what}: rows of one value stay on one side of a split, so no tenth can be held out; {give_up}"


def some_of(sizes: Mapping[str, int], most: int = 4) -> str:
    """The most frequent values, for a message."""
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    shown = ", ".join(name if len(name) <= 40 else f"{name[:40]}..." for name in names[:most])
    return shown if len(names) <= most else f"{shown}, ..."


_FACTS = {"group": "which rows belong together", "source": "where rows come from", "time": "of when rows are"}
