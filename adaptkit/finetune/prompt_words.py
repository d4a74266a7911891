"""What a task says to a model that is asked for it: an instruction, its labels and what each means.

    TaskWords("Sort the message.", {"bill": "asks about an invoice"}).block(["bill", "other"], described=True)

A task without an instruction gets one made from its labels, or from its kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adaptkit.errors import DataError, nearest

LABEL_INSTRUCTION = "Classify the text. Answer with one of the labels, and nothing else."
EXTRACTION_PROMPT = "{text}\nJSON:"
"""What a model that is trained to extract fields is asked, with the text in place."""
PASSAGES_HEAD = "Passages that may help:"
ANSWER_INSTRUCTION = "Answer the question. Write the answer, and nothing else."
"""For a task that gives no instruction of its own."""


@dataclass(frozen=True)
class TaskWords:
    """What a user says about a task.

    Attributes:
        instruction: what to do; empty for one that is made.
        descriptions: label -> what it means; labels without one are only named.
    """

    instruction: str = ""
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def check(self, label_names: Sequence[str], where: str) -> None:
        """Raises: DataError for the description of a label that no training row has."""
        for name in self.descriptions:
            if name not in label_names:
                what = f"describes the label '{name}', which no training row has{nearest(name, label_names)}"
                raise DataError(what, where=where, fix="write labels as the rows do, or leave it out")

    def asked(self, label_names: Sequence[str]) -> str:
        """The instruction: the user's, or one that is made."""
        if self.instruction.strip():
            return self.instruction.strip()
        return LABEL_INSTRUCTION if label_names else ANSWER_INSTRUCTION

    def block(self, label_names: Sequence[str], *, described: bool, lower: bool = False) -> str:
        """The instruction and the labels as they stand before the texts.

        Args:
            described: with what labels mean, one a line.
        """
        names = written_labels(label_names, lower)
        asked = self.asked(label_names)
        if not names:
            return asked
        if not described:
            return f"{asked}\nLabels: {', '.join(names)}"
        lines = [
            f"- {written}: {meaning}"
            if (meaning := self.descriptions.get(label, "").strip())
            else f"- {written}"
            for label, written in zip(label_names, names, strict=True)
        ]
        return "\n".join([f"{asked}\nLabels:", *lines])


def written_labels(label_names: Sequence[str], lower: bool = False) -> list[str]:
    """Labels as they are written in a prompt: with blanks for underscores, in lower case if so wished, unless
    two of them would become one."""
    names = [label.replace("_", " ").strip() or label for label in label_names]
    if lower:
        names = [name.lower() for name in names]
    if len(set(names)) < len(names):
        return list(label_names)
    return names
