"""Which part of the story a served model plays: generic, fine-tuned, domain-pretrained, distilled.

`adaptkit serve` names a study's models after study, arm and task; a name given by hand is read for telling
words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from adaptkit.export.source import served_name


class Arm(Protocol):
    """A strategy of the study; what `compare` calls ArmInfo."""

    name: str
    origin: str
    adaptation: str
    describe: str


@dataclass(frozen=True)
class Role:
    """One column of the comparison."""

    title: str
    origin: str
    """Decides the colour."""
    adaptation: str
    """Decides the marker's shape."""
    place: int
    told: str = ""


GENERIC = Role("Generic", "generic", "prompt", 0, "as it came")
TUNED = Role("Fine-tuned", "generic", "lora", 1, "the generic model, taught the task")
DOMAIN = Role("Domain-pretrained", "continued", "full", 2, "has read your text")
DISTILLED = Role("Distilled", "distilled", "full", 3, "small, taught by a larger one")
OTHER = Role("", "ink", "", 4)
_WORDS = (
    (DISTILLED, {"distilled", "distil", "student"}),
    (DOMAIN, {"domain", "continued", "scratch", "pretrained", "pretrain"}),
    (TUNED, {"tuned", "finetuned", "finetune", "lora", "qlora", "sft", "instruct"}),
    (GENERIC, {"generic", "base", "original"}),
)


@dataclass(frozen=True)
class Part:
    """A served model and its role; `arm` and `task` are empty where the name fits nothing of the study."""

    model: str
    role: Role
    arm: str = ""
    task: str = ""
    told: str = ""

    @property
    def title(self) -> str:
        return self.role.title or self.model


def cast(models: Iterable[str], study: str, arms: Sequence[Arm], tasks: Sequence[str]) -> list[Part]:
    """Each model's part, generic ones first."""
    parts = [_part(model, study, arms, tasks) for model in models]
    return sorted(parts, key=lambda part: (part.role.place, part.model))


def _part(model: str, study: str, arms: Sequence[Arm], tasks: Sequence[str]) -> Part:
    prefixes = {served_name(f"{study}-{arm.name}"): arm for arm in arms} | {
        served_name(arm.name): arm for arm in arms
    }
    fitting = [prefix for prefix in prefixes if model == prefix or model.startswith(f"{prefix}-")]
    task = next(
        (name for name in sorted(tasks, key=len, reverse=True) if f"-{name}" in model or model == name), ""
    )
    if fitting:
        arm = prefixes[max(fitting, key=len)]
        return Part(model, _role(arm), arm.name, task, arm.describe)
    words = set(re.split(r"[^a-z]+", model.lower()))
    role = next((role for role, telling in _WORDS if words & telling), OTHER)
    return Part(model, role, task=task, told=role.told)


def _role(arm: Arm) -> Role:
    if arm.origin == "distilled":
        return DISTILLED
    if arm.origin in ("continued", "scratch"):
        return Role(DOMAIN.title, arm.origin, arm.adaptation, DOMAIN.place)
    if arm.origin == "generic":
        known = GENERIC if arm.adaptation in ("prompt", "probe") else TUNED
        return Role(known.title, "generic", arm.adaptation, known.place)
    return Role(arm.name, arm.origin, arm.adaptation, OTHER.place)


def first_of_each(parts: Sequence[Part], most: int = 4) -> list[str]:
    """Models to show at first: one of each role, then others, at most `most`."""
    firsts = {part.role.place: part.model for part in reversed(parts) if part.role.place < OTHER.place}
    chosen = [firsts[place] for place in sorted(firsts)]
    return (chosen + [part.model for part in parts if part.model not in chosen])[:most]
