"""Lineage: trainings back to the first, foreign models, and the licence that follows from them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_exports import finetuned

from adaptkit.export.driver import export
from adaptkit.export.papers.lineage import trace
from adaptkit.export.resolve import resolve
from adaptkit.run import Run, read_json
from adaptkit.run_record import RecipeKind, RunRecord, read_record


def test_the_licence_of_the_base_is_carried_over(
    runs_root: Path, mood: Run, notes: Run, tmp_path: Path
) -> None:
    base = shutil.copytree(notes.model, tmp_path / "base")
    (base / "README.md").write_text("---\nlicense: llama3.2\n---\n# A base\n")
    (base / "LICENSE.txt").write_text("terms")
    (tmp_path / "run").mkdir()
    run = finetuned(tmp_path / "run", base)
    folder = export(resolve(run.path), "bf16").folder
    card = (folder / "README.md").read_text()
    assert (
        "license: llama3.2" in card
        and "base_model" not in card  # a folder that no hub knows
        and "carried over from its base base" in card
    )
    assert (folder / "LICENSE.txt").read_text() == "terms"
    assert read_json(folder / "manifest.json")["lineage"][-1]["weights"]["model.safetensors"]


def write_run(path: Path, model: Path, record: RunRecord) -> Run:
    """A finished run that kept a copy of this model."""
    run = Run(path)
    shutil.copytree(model, run.model)
    run.config_path.write_text("name: made by hand\n")
    run.update_manifest(name=path.name, status="finished", record=record.model_dump(mode="json"))
    return run


STUDENTS = {
    "another model of the same licence": (
        "other",
        "giant",
        "other",
        "giant",
        "mit, carried over from its base other",
    ),
    "blocks of its teacher": ("giant", "giant", "giant", "giant", "mit, carried over from its base giant"),
    "random weights": ("", "giant", "random weights", "giant", "mit, carried over from its teacher giant"),
    "another model": (
        "small",
        "giant",
        "small",
        "giant",
        "bsd, carried over from its base small; mit for what its teacher giant gave",
    ),
    "a served teacher": (
        "small",
        "https://secret.example:9/v1",
        "small",
        "a model behind HTTP",
        "bsd, carried over from its base small; not stated in its folder for what its teacher a model behind "
        "HTTP gave",
    ),
    "a teacher trained here": (
        "",
        "trained-1/model",
        "random weights",
        "trained-1",
        "mit, carried over from its teacher giant",
    ),
}


@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_carries_its_teachers_licence(
    model_folders: dict[str, Path], tmp_path: Path, student: str
) -> None:
    base, teacher, began, learnt, licence = STUDENTS[student]
    for name, terms in {"giant": "mit", "small": "bsd", "other": "mit"}.items():
        folder = shutil.copytree(model_folders["llama"], tmp_path / name)
        (folder / "README.md").write_text(f"---\nlicense: {terms}\n---\n")
    trained = RunRecord(recipe=RecipeKind.FINETUNE, base=str(tmp_path / "giant"))
    write_run(tmp_path / "trained-1", model_folders["llama"], trained)
    distilled = RunRecord(
        recipe=RecipeKind.DISTILL,
        base=str(tmp_path / base) if base else "",
        teacher=teacher if "//" in teacher else str(tmp_path / teacher),
    )
    run = write_run(tmp_path / "student-1", model_folders["llama"], distilled)
    card = (export(resolve(run.path), "bf16").folder / "README.md").read_text()
    for row in (f"began with | {began}", f"learnt from | {learnt}", f"licence | {licence}"):
        assert f"| {row} |" in card
    assert "adaptkit distill runs/student-1/config.yaml" in card
    assert "secret" not in card and str(tmp_path) not in card
    assert resolve(run.path).role == "distilled"


def test_trainings_are_traced_to_the_first(notes: Run, mood: Run) -> None:
    lineage = trace(resolve(mood.path))
    assert [training.run for training in lineage.trainings] == [mood.path.name, notes.path.name]
    assert lineage.foreign == () and lineage.base is None
    first, last = lineage.trainings[1], lineage.trainings[0]
    assert first.splits == read_record(notes).splits and last.splits.keys() == {"train", "dev", "test"}
    files = lineage.as_json()[0]["data"]["train"]["files"]
    assert [file["name"] for file in files] == ["mood.train.jsonl"], "no folder is written out"
    assert lineage.licence() == ("other", "no base model: whoever owns the training text decides")


def test_a_licence_that_nobody_states_asks_to_look_it_up(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_folders["llama"], tmp_path / "giant")
    words = "that of its base giant, which is not stated in its folder: look it up before you pass this on"
    for header in ("", "# no header", "---\nlicense: [unclosed\n---\n", "---\n- a list\n---\n"):
        (folder / "README.md").write_text(header)
        assert trace(resolve(folder)).licence() == ("other", words)
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: house rules\n---\n")
    assert trace(resolve(folder)).licence()[0] == "house rules"
