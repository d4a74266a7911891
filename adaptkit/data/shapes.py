"""What kind of data a file holds: its columns by the role that they play, found by name or as the user says.

text                               running text
text + label                       classification (label_probabilities: how likely each label is)
prompt + completion                question and answer (also by these names; instruction, input, output)
messages (+ tools, documents)      conversations
prompt                             prompts to be answered
anchor + positive (+ negative...)  pairs, triplets (also query and passage, question and answer)
text1 + text2 + score or label     scored pairs; with labels for a task on pairs as well
prompt + chosen + rejected         preferences, read as two answers and which of them is better
text + labels                      classification with several labels each, or none
text + spans, or tokens + tags     spans of a text, each with a label
text + score                       a number to predict
text + fields                      an object of fields that the text gives

Beside these a row may say what it belongs to (`group`), where it comes from (`source`) and of when it is
(`time`): facts about a row, not part of its content. A role is given up by naming `none` as its column.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from adaptkit.data.conversations import in_two_lists
from adaptkit.data.guesses import FACTS, NONE
from adaptkit.data.message_fields import TEMPLATE_INPUTS
from adaptkit.data.records import Fault, Record
from adaptkit.data.row_fields import object_of
from adaptkit.errors import nearest

NEGATIVE = re.compile(r"negative(_\d+)?")


@dataclass(frozen=True)
class Shape:
    """A kind of data: the required roles with the column names they go by, and optional roles."""

    kind: str
    required: dict[str, tuple[str, ...]]
    optional: tuple[str, ...] = ()

    def match(self, names: Iterable[str], chosen: dict[str, str]) -> dict[str, str] | None:
        """role -> column for these column names, or None; `chosen` columns win over names, and roles that are
        given up have none."""
        names = set(names)
        given_up = {role for role, column in chosen.items() if column == NONE}
        chosen = {role: column for role, column in chosen.items() if role not in given_up}
        if given_up & set(self.required) or not all(self._takes(role) for role in chosen):
            return None
        roles: dict[str, str] = {}
        for role, aliases in self.required.items():
            column = chosen.get(role) or next((alias for alias in aliases if alias in names), None)
            if column is None:
                return None
            roles[role] = column
        by_name = [role for role in (*self.optional, *FACTS) if role in names and role not in roles]
        if "anchor" in self.required:
            by_name += [name for name in sorted(names) if NEGATIVE.fullmatch(name)]
        roles |= {role: role for role in by_name if role not in given_up}
        roles |= chosen
        return roles if all(columns_of(column, names) for column in roles.values()) else None

    def _takes(self, role: str) -> bool:
        if "anchor" in self.required and NEGATIVE.fullmatch(role):
            return True
        return role in (*self.required, *self.optional, *FACTS)


FIRST_TEXTS, SECOND_TEXTS = ("text1", "sentence1", "text_a"), ("text2", "sentence2", "text_b")
SHAPES = (
    Shape("messages", {"messages": ("messages", "conversations", "conversation")}, TEMPLATE_INPUTS),
    Shape(
        "sft",
        {
            "prompt": ("prompt", "instruction", "question"),
            "completion": ("completion", "output", "response", "answer"),
        },
        ("input",),
    ),
    Shape("pairs", {"anchor": ("anchor", "query"), "positive": ("positive", "passage")}),
    Shape("pairs", {"anchor": ("question",), "positive": ("answer",)}),
    Shape("labelled_pairs", {"prompt": ("prompt",), "chosen": ("chosen",), "rejected": ("rejected",)}),
    Shape("pairs", {"text1": FIRST_TEXTS, "text2": SECOND_TEXTS}, ("score", "label")),
    Shape("labelled_pairs", {"text1": FIRST_TEXTS, "text2": SECOND_TEXTS, "label": ("label",)}, ("prompt",)),
    Shape("spans", {"text": ("text",), "spans": ("spans", "entities")}, ("tokens",)),
    Shape("spans", {"tokens": ("tokens", "words"), "tags": ("tags", "ner_tags")}),
    Shape("labelled", {"text": ("text",), "label": ("label",)}, ("label_probabilities",)),
    Shape("multi_label", {"text": ("text",), "labels": ("labels",)}),
    Shape("scored", {"text": ("text",), "score": ("score",)}),
    Shape("extract", {"text": ("text",), "fields": ("fields",)}),
    Shape("text", {"text": ("text",)}),
    Shape("prompts", {"prompt": ("prompt",)}),
)
KINDS_FOR = {
    "text": ("text",),
    "labelled": ("labelled",),
    "sft": ("messages", "sft", "text"),
    "pairs": ("pairs",),
    "labelled_pairs": ("labelled_pairs",),
    "spans": ("spans",),
    "multi_label": ("multi_label",),
    "scored": ("scored",),
    "extract": ("extract",),
    None: None,
}
ROLES = sorted(
    {role for shape in SHAPES for role in (*shape.required, *shape.optional)} | {"negative", *FACTS}
)

COLUMN_NAMES = {
    *(alias for shape in SHAPES for aliases in shape.required.values() for alias in aliases),
    *ROLES,
}
"""Names of columns that mean something by themselves."""


def detect(
    samples: list[Record], chosen: dict[str, str], want: str | None
) -> tuple[str, dict[str, str]] | None:
    """(kind, role -> column) that fits most of the first records, or None. Earlier shapes win.

    A vote, not the first record: a first row that lacks its label must not turn a labelled file into plain
    text.
    """
    kinds = KINDS_FOR[want]
    for shape in SHAPES:
        if kinds is not None and shape.kind not in kinds:
            continue
        fits = [
            roles
            for sample in samples
            if (roles := shape.match(sample, chosen)) is not None
            and (kinds is not None or _plausible(shape.kind, roles, sample))
        ]
        if len(fits) * 2 > len(samples) or (fits and len(fits) * 2 == len(samples) and shape.kind != "text"):
            roles = max(fits, key=lambda roles: sum(roles == other for other in fits))
            return _as_messages(shape.kind, roles, samples)
    return None


def _plausible(kind: str, roles: dict[str, str], sample: Record) -> bool:
    """Whether a record holds what the names of its columns promise, where nobody has said what it is for."""
    if kind == "spans" and "spans" in roles:
        return isinstance(sample.get(roles["spans"]), list | str)
    if kind == "extract":
        return not isinstance(object_of(sample.get(roles["fields"]), "fields"), Fault)
    if kind == "scored":
        with contextlib.suppress(TypeError, ValueError):
            return math.isfinite(float(sample[roles["score"]]))
        return False
    return True


def _as_messages(kind: str, roles: dict[str, str], samples: list[Record]) -> tuple[str, dict[str, str]]:
    """Prompts and completions that are lists of messages make one conversation; anything else stays."""
    if kind != "sft" or not in_two_lists(samples[0], (roles["prompt"], roles["completion"])):
        return kind, roles
    facts = {role: column for role, column in roles.items() if role in FACTS}
    return "messages", {"messages": f"{roles['prompt']}+{roles['completion']}", **facts}


def describe_columns(samples: list[Record]) -> str:
    """The first column names of some records, for an error message."""
    names = list(dict.fromkeys(str(name) for sample in samples for name in sample))[:12]
    return ", ".join(name if len(name) <= 60 else f"{name[:60]}..." for name in names) or "none"


def unknown_role(chosen: dict[str, str]) -> str | None:
    """The complaint about a role that does not exist, if there is one."""
    for role in chosen:
        if role not in ROLES and not NEGATIVE.fullmatch(role):
            return f"'{role}' is not a role{nearest(role, ROLES)}"
    return None


def columns_of(column: str, names: Iterable[str]) -> list[str]:
    """The columns behind `column`: itself, or the parts of `a+b+c`; empty if one is missing."""
    names = set(names)
    if column in names:
        return [column]
    parts = [part.strip() for part in column.split("+")]
    return parts if all(part in names for part in parts) else []
