"""Choose what a study serves beside its recommended model, so that each tab of the demo has something to ask.

    sources, notes = beside(chosen, others, hardware)      # to write, to classify, to search

`adaptkit serve STUDY` asks for this; a model of it that is named in any way is served alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptkit.errors import AdaptkitError
from adaptkit.export.hardware import Hardware
from adaptkit.export.pick import choose_beside
from adaptkit.export.source import Source
from adaptkit.serve import preflight

PURPOSES = {"generate": "to write", "classify": "to classify", "embed": "to search"}


def beside(chosen: Source, others: Sequence[Source], hardware: Hardware) -> tuple[list[Source], list[str]]:
    """Choose the models of a study to serve beside the recommended one.

    Args:
        others: models from elsewhere that are served too; one that classifies or searches takes the
            place of the study's.
    Returns: the models, and sentences for people: why each is there, which one lacks memory.
    """
    if chosen.study is None:
        return [], []
    added: list[Source] = []
    notes: list[str] = []
    try:
        for source in choose_beside(chosen.study, chosen):
            if source.kind != "generate" and source.kind in {other.kind for other in others}:
                continue
            if problem := _problem([chosen, *others, *added, source], hardware):
                notes.append(f"{source.name}, {PURPOSES[source.kind]}, is not served: {problem}")
            else:
                added.append(source)
                notes.append(f"{source.name}, {PURPOSES[source.kind]}: {source.why}")
    except AdaptkitError as error:  # a run of another arm is damaged or gone
        notes.append(f"nothing else of the study is served: {error.what} ({error.where})")
    if added:
        notes.append(f"for {chosen.name} alone: {_alone(chosen)}")
    return added, notes


def _problem(sources: Sequence[Source], hardware: Hardware) -> str:
    """Say why the last of these models cannot be served beside the others; empty where it can."""
    last = sources[-1]
    try:
        preflight.check_model(last, hardware)
    except AdaptkitError as error:
        return error.what
    if not preflight.fits(sources, hardware):
        return f"there is too little memory for one more; by itself: {_alone(last)}"
    return ""


def _alone(source: Source) -> str:
    """Write the command that serves this model and no other."""
    return f"adaptkit serve {source.study} --task {source.task} --arm {source.arm}"
