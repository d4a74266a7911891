"""A root of runs that never ran: a finished study and its runs, an unneeded one, and one of no study."""

from __future__ import annotations

from pathlib import Path

from fake_study import write_study

from adaptkit.run import Run, write_text
from adaptkit.run_record import RecipeKind, RunRecord
from adaptkit.study.record import read_study, runs_of


def write_root(root: Path) -> Path:
    """Write all of it; returns the study's folder."""
    study = write_study(
        root, arms=["generic+lora"], texts=["generic", "scratch"], seeds=1, num_documents=5, num_rows=5
    )
    for name in runs_of(read_study(study)):
        write_run(root, name, made_by=study.name)
    write_run(root, "trial-of-before", made_by=study.name)
    write_run(root, "tickets-1a2b3c4d")
    return study


def write_run(root: Path, name: str, *, made_by: str = "", base: str = "", status: str = "finished") -> Run:
    """A run with a model and a checkpoint; it has ended where its status says so."""
    run = Run(root / name)
    write_text(run.model / "config.json", "{}")
    write_text(run.checkpoints / "step-000001" / "model.safetensors", "w" * 1000)
    if made_by:
        run.update_manifest(study=made_by)
    run.update_manifest(name=name, identity=name, identity_format=3, created="2026-11-21T08:00:00Z")
    if status == "finished":
        run.finish(record=RunRecord(recipe=RecipeKind.FINETUNE, base=base).model_dump(mode="json"))
    else:
        run.update_manifest(status=status)
    return run
