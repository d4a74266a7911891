"""Which arms a claim needs beside it, and what it cannot exclude where one of them is missing.

A verdict is about the arms of a study. That pretraining on the domain text pays is only shown against an arm
that did without it, one that trained as long on other text, the base as it is, and word counts; that
something is enough is only shown where the alternatives ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adaptkit.study.arms import ARMS
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import BASELINE, Results, is_language

DOMAIN_TRAINED = frozenset(
    {"continued", "continued-lora", "continued-vocabulary", "mixed", "scratch", "distilled"}
)
"""Origins that were pretrained on the domain text. `tapt` is none of them: it needs no more than the rows of
the task, so what domain text adds has to be more than it reaches."""
OWN = frozenset({"mixed", "scratch", "distilled"})
"""Origins that are a model of one's own."""
TEXT_ORIGINS = DOMAIN_TRAINED | {"generic", "placebo"}
"""Origins that are arms of the text ledger."""
WORD_COUNTED = frozenset({"classify", "multi_label", "spans", "regression", "retrieve"})
"""Kinds of task that word counts can answer."""


@dataclass(frozen=True)
class Control:
    """An arm that a claim needs.

    Attributes:
        name: how it is asked for in a config.
        excludes: what cannot be excluded without it.
    """

    name: str
    excludes: str

    def is_met(self, arm: ArmRecord) -> bool:
        """Whether an arm is this control."""
        return arm.name == self.name


@dataclass(frozen=True)
class _WordCounts(Control):
    def is_met(self, arm: ArmRecord) -> bool:
        return arm.origin == BASELINE


@dataclass(frozen=True)
class _Prompted(Control):
    def is_met(self, arm: ArmRecord) -> bool:
        return arm.origin == "generic" and arm.adaptation in ("prompt", "rag")


@dataclass(frozen=True)
class _Adapters(Control):
    def is_met(self, arm: ArmRecord) -> bool:
        return arm.origin == "generic" and arm.adaptation in ("lora", "qlora")


@dataclass(frozen=True)
class _TrainedOnly(Control):
    def is_met(self, arm: ArmRecord) -> bool:
        return arm.origin == "generic" and arm.adaptation == "lora"


TEXT_CONTROLS = (
    Control("generic", "that the base as it is does as well"),
    Control("continued", "that training all weights on the text does better"),
    Control("continued-lora", "that adapters on the text do as well"),
    Control("scratch", "that a model of one's own does better"),
    Control("placebo", "that more training on any text does as well"),
)
WORD_COUNTS = _WordCounts("word counts", "that word counts do as well")
COPIED = _WordCounts("values copied", "that values seen in training rows, looked for in the text, do as well")
PROMPTED = _Prompted("generic+prompt", "that the base as it is, prompted, does as well")
PROBED = Control("generic+probe", "that the features of the base as it is do as well")
UNTOUCHED: dict[str, tuple[Control, ...]] = {
    "retrieve": (PROBED,),
    "generate": (PROMPTED,),
    "extract": (PROMPTED,),
    "multi_label": (PROBED,),
    "spans": (PROBED,),
    "regression": (PROBED,),
}
"""Uses of the untouched base, by the kinds of task that have but one: a prompt gives no vectors, sets of
labels, spans or numbers, a probe no text."""
JOB_CONTROLS = (
    _Adapters("generic+lora", "that adapters on the base do as well"),
    Control("generic+full", "that fine-tuning the base does as well"),
    Control("placebo+full", "that more training on any text does as well"),
    Control("continued+full", "that pretraining on the text first does better"),
    Control("scratch+full", "that a model of one's own does better"),
)


LOOKING_UP = (
    Control("generic+rag", "that looking things up does as well without training"),
    _TrainedOnly("generic+lora", "that training does as well without looking things up"),
)
"""What an arm that does both is measured against: each of the two alone."""
LATER_CONTROLS = {
    control.name: control
    for control in (
        Control("mixed", "that a model of one's own on domain and general text does better"),
        Control("mixed+full", "that a model of one's own on domain and general text does better"),
        Control("tapt+full", "that pretraining on the text of the task's own rows does as well"),
    )
}
"""Arms that came after the first release, by name: needed where the study's own record asks for them."""


def gains_from_text(arm: ArmRecord, task: TaskRecord) -> bool:
    """Whether an arm is on the side that a task's question asks about.

    On a job: pretrained on the domain text. On text: a model of one's own.
    """
    return arm.origin in (OWN if is_language(task) else DOMAIN_TRAINED)


def controls_of(task: TaskRecord) -> tuple[Control, ...]:
    """The arms that a claim on a task needs."""
    later = [control for name, control in LATER_CONTROLS.items() if name in task.controls]
    if is_language(task):
        return (*TEXT_CONTROLS, *later)
    untouched = UNTOUCHED.get(task.kind, (PROMPTED, PROBED))
    simplest: tuple[Control, ...] = (WORD_COUNTS,) if task.kind in WORD_COUNTED else ()
    if task.kind == "extract":
        simplest = (COPIED,)
    return (*simplest, *untouched, *JOB_CONTROLS, *later)


def missing_controls(results: Results, task: TaskRecord) -> tuple[Control, ...]:
    """The controls that a study did not run on a task, and what the user took out of it by name.

    An arm that is no control counts too: with fewer arms the intervals that hold together are narrower, so
    leaving one out can decide what was open.
    """
    arms: Sequence[ArmRecord] = results.scored_arms(task.name)
    needed = {control.name: control for control in controls_of(task)}
    if any(arm.adaptation == "rag-lora" for arm in arms):
        needed |= {control.name: control for control in LOOKING_UP}
    missing = [control for control in needed.values() if not any(control.is_met(arm) for arm in arms)]
    named = {control.name for control in missing}
    named |= {ARMS[name].origin.value for name in named if name in ARMS}
    for name in results.record.without:
        applies = name in TEXT_ORIGINS or not is_language(task)
        if applies and name not in named:
            missing.append(Control(name, f"that {name} does as well or better"))
    return tuple(missing)
