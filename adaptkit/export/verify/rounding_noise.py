"""Measure how far rounding alone moves a model's answers: the ground that tolerances stand on.

The model is asked again with every number moved by as much as rounding may move it (`models.jitter`). What
its answers then change by is what another engine, kernel or machine of that precision may change them by.
Where servers round the inputs of layers to 8 bits, that is done too, and measured.
"""

from __future__ import annotations

from typing import Any

from adaptkit.export.formats import Grid
from adaptkit.export.quantise.compressed_tensors import round_inputs, rounded_layers
from adaptkit.export.verify.answer_changes import distance
from adaptkit.export.verify.folder_answers import FolderModel
from adaptkit.export.verify.record import (
    ACTIVATIONS,
    UNIT_ROUNDOFF,
    AnswerKind,
    Answers,
    Precision,
    Questions,
)
from adaptkit.models.jitter import jittered
from adaptkit.run import read_json

DRAWS: dict[Precision, int] = {"float32": 2, "bfloat16": 1}
EVERY = 2
"""Every so many-th text is asked again: the largest change is much the same on all of them."""
FLOAT16_PART = UNIT_ROUNDOFF["float16"] / UNIT_ROUNDOFF["bfloat16"]
"""Of bfloat16's noise: rounding errors grow with the unit."""


def measure_noise(model: FolderModel, questions: Questions) -> dict[str, dict[AnswerKind, float]]:
    """Measure the largest change of each kind of number, by precision."""
    few = questions.model_copy(update={"texts": questions.texts[::EVERY]})
    exact = model.numbers(few, long=False)
    noise: dict[str, dict[AnswerKind, float]] = {}
    for precision, draws in DRAWS.items():
        largest: dict[AnswerKind, float] = {}
        for seed in range(draws):
            with jittered(model.model, UNIT_ROUNDOFF[precision], seed):
                moved = model.numbers(few, long=False)
            for kind, change in largest_distances(exact, moved).items():
                largest[kind] = max(change, largest.get(kind, 0.0))
        noise[precision] = largest
    noise["float16"] = {kind: FLOAT16_PART * change for kind, change in noise["bfloat16"].items()}
    grid = activation_grid(model)
    if grid is not None:
        round_inputs(model.model, rounded_layers(model.folder), grid)
        noise[ACTIVATIONS] = largest_distances(exact, model.numbers(few, long=False))
    for each in noise.values():
        if AnswerKind.BITS in each:  # one number may not move by chance; a mean moves no more than its parts
            each[AnswerKind.BITS] = each[AnswerKind.LOG_PROBABILITIES]
    return {
        name: {kind: float(f"{change:.3g}") for kind, change in each.items()} for name, each in noise.items()
    }


def largest_distances(before: Answers, after: Answers) -> dict[AnswerKind, float]:
    """Find the largest change of each kind that is made of numbers, over all questions."""
    return {
        kind: max(
            (distance(kind, a.values, b.values) for a, b in zip(before[kind], after[kind], strict=True)),
            default=0.0,
        )
        for kind in before
        if before[kind] and before[kind][0].values
    }


def activation_grid(model: FolderModel) -> Grid | None:
    """Tell what servers round the inputs of this folder's layers to; None where they do not."""
    settings = read_json(model.folder / "config.json").get("quantization_config") or {}
    groups: dict[str, Any] = settings.get("config_groups") or {}
    for group in groups.values():
        activations = group.get("input_activations")
        if activations and activations.get("type") == "float":
            return "fp8"
        if activations:
            return "int8"
    return None
