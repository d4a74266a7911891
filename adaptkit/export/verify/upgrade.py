"""Make the record of a folder, and ask another folder the same: whether an upgrade changed what users get."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from adaptkit.errors import ModelError
from adaptkit.export.formats import FORMATS
from adaptkit.export.quantise.compressed_tensors import linear, plan_scheme, rounded_layers
from adaptkit.export.quantise.rounding import round_to_nearest
from adaptkit.export.verify.answer_changes import TIMES_NOISE, TIMES_ROUNDED, Given
from adaptkit.export.verify.folder_answers import FolderModel
from adaptkit.export.verify.record import AnswerKind, AnswerRecord, Precision, read_answers
from adaptkit.export.verify.rounding_noise import largest_distances, measure_noise
from adaptkit.weight_files import read_header

STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What safetensors calls a precision -> our word."""
COARSENESS = ("float32", "float16", "bfloat16", "int8", "fp8", "int4")


def make_record(folder: Path) -> AnswerRecord:
    """Ask the model of a folder everything, and measure how far rounding moves it."""
    model = FolderModel.load(folder)
    questions = model.questions()
    return AnswerRecord(
        kind=model.kind,
        stored_as=stored_as(folder),
        problem=model.problem,
        prompts=model.prompts,
        questions=questions,
        answers=model.ask(questions),
        noise=measure_noise(model, questions),
    )


def record_of(folder: Path) -> AnswerRecord:
    """Read the answers that a folder stores, or ask it now."""
    return read_answers(folder) or make_record(folder)


def ask_folder(folder: Path, record: AnswerRecord, precision: Precision = "float32") -> Given:
    """Ask a folder the questions of a record, by transformers.

    Raises: ModelError or DataError where it cannot be loaded.
    """
    model = FolderModel.load(folder, precision)
    if model.kind != record.kind:
        what = f"answers with another kind of thing: {model.kind}, not {record.kind}"
        raise ModelError(what, where=str(folder), fix="compare models of one kind")
    return Given(f"transformers in {precision}", model.ask(record.questions), precision=precision)


def stored_as(folder: Path) -> str:
    """Tell what a folder stores its weights in: the grid of rounded ones, else what most of them are in."""
    if rounded_layers(folder):
        headers = [entry for file in folder.glob("*.safetensors") for entry in read_header(file).items()]
        if any(name.endswith(".weight_packed") for name, _ in headers):
            return "int4"
        return "fp8" if any(entry["dtype"] == "F8_E4M3" for _, entry in headers) else "int8"
    sizes: dict[str, int] = {}
    for file in folder.glob("*.safetensors"):
        for entry in read_header(file).values():
            start, end = entry["data_offsets"]
            sizes[entry["dtype"]] = sizes.get(entry["dtype"], 0) + end - start
    most = max(sizes, key=lambda name: sizes[name], default="F32")
    return STORED.get(most, "float32")


def coarser_rounding(
    old: Path, new: Path, record: AnswerRecord
) -> tuple[Given, Mapping[AnswerKind, float] | None, str]:
    """Ask the new folder, and measure what the coarser of two ways to store weights explains.

    Returns: the new folder's answers; kind -> what that rounding moves, None where both store alike; and the
        coarser way's name.
    Raises: ModelError where the new folder cannot be loaded.
    """
    given = ask_folder(new, record)
    before, after = record.stored_as, stored_as(new)
    coarser = max(before, after, key=COARSENESS.index)
    if before == after:
        return given, None, coarser
    if coarser in record.noise:
        moved = {kind: TIMES_NOISE * change for kind, change in record.noise[coarser].items()}
        return given, moved, coarser
    finer = old if coarser == after else new
    rounding = _rounded_to(finer, coarser, record)
    return given, {kind: TIMES_ROUNDED * change for kind, change in rounding.items()}, coarser


def _rounded_to(folder: Path, format: str, record: AnswerRecord) -> dict[AnswerKind, float]:
    """Round a folder's weights to a format's grid, and measure how far its answers move."""
    model = FolderModel.load(folder)
    exact = model.numbers(record.questions)
    scheme = plan_scheme(model.model, FORMATS[format], str(folder))
    with torch.no_grad():
        for name in scheme.layers:
            weight = linear(model.model, name).weight
            nearest = round_to_nearest(weight.float(), scheme.format.rounds_to, scheme.group_size)
            weight.copy_(nearest.dequantised())
    return largest_distances(exact, model.numbers(record.questions))
