"""Sources: what a run, an export and any other model folder say of themselves, as fields."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adaptkit.adapters import AdapterConfig
from adaptkit.errors import ModelError
from adaptkit.export.driver import Options, export
from adaptkit.export.source import (
    ModelRole,
    find_base,
    is_hub_id,
    of_model,
    of_run,
    role_of,
    run_of,
    served_name,
)
from adaptkit.run import Run
from adaptkit.run_record import RunRecord, local_base, read_record


def test_a_runs_fields_come_from_its_record(notes: Run, mood: Run) -> None:
    source = of_run(mood.path)
    assert source.record == read_record(mood) and source.run == mood.path
    assert (source.kind, source.labels, source.task) == ("classify", ("bad", "good"), "mood")
    assert (source.suite, source.scored_run) == ("mood", mood.path)
    assert source.adapter == mood.adapter and source.base == f"{notes.path.name}/model"
    assert source.study is None and source.study_name is None and source.arm is None and source.seed is None
    language = of_run(notes.path)
    assert (language.kind, language.labels, language.task, language.base) == ("generate", (), None, "")
    assert (language.adapter, language.suite) == (None, "language")


def test_origin_and_adaptation_follow_the_trainings(
    notes: Run, mood: Run, model_folders: dict[str, Path]
) -> None:
    derived = {
        name: (source.origin, source.adaptation, source.role)
        for name, source in {
            "pretraining": of_run(notes.path),
            "its fine-tuning": of_run(mood.path),
            "folder": of_model(model_folders["llama"]),
        }.items()
    }
    assert derived == {
        "pretraining": ("scratch", None, ModelRole.PRETRAINED),
        "its fine-tuning": ("scratch", "lora", ModelRole.PRETRAINED),
        "folder": ("generic", None, ModelRole.GENERIC),
    }


RECORDS = {
    "from random weights": (RunRecord(recipe="pretrain"), "scratch", None),
    "more pretraining": (RunRecord(recipe="pretrain", base="owner/name"), "continued", None),
    "all weights": (RunRecord(recipe="finetune", task="mood", base="owner/name"), "generic", "full"),
    "4-bit base": (
        RunRecord(recipe="finetune", base="owner/name", adapter=AdapterConfig(kind="qlora")),
        "generic",
        "qlora",
    ),
    "passages before each question": (
        RunRecord(
            recipe="finetune", adapter=AdapterConfig(kind="lora"), facts={"looked_up": {"passages": 3}}
        ),
        "generic",
        "rag-lora",
    ),
    "another low-rank update": (
        RunRecord(recipe="embed", base="owner/name", adapter=AdapterConfig(kind="dora")),
        "generic",
        "lora",
    ),
    "no adapter": (
        RunRecord(recipe="embed", base="owner/name", adapter=AdapterConfig(kind="none")),
        "generic",
        "full",
    ),
    "taught": (RunRecord(recipe="distill", base="owner/name", teacher="owner/name"), "distilled", "full"),
}


@pytest.mark.parametrize("name", RECORDS)
def test_origin_and_adaptation_are_those_of_the_record(mood: Run, tmp_path: Path, name: str) -> None:
    record, origin, adaptation = RECORDS[name]
    run = Run(tmp_path / "run")
    shutil.copytree(mood.model, run.model)
    run.config_path.write_text("name: made by hand\n")
    run.update_manifest(name="run", status="finished", record=record.model_dump(mode="json"))
    source = of_run(run.path)
    assert (source.origin, source.adaptation, source.suite) == (origin, adaptation, None)


@pytest.mark.parametrize(
    ("origin", "adaptation", "role"),
    [
        ("generic", None, "generic"),
        ("generic", "prompt", "generic"),
        ("generic", "probe", "generic"),
        ("generic", "lora", "finetuned"),
        ("generic", "qlora", "finetuned"),
        ("generic", "rag-lora", "finetuned"),
        ("generic", "full", "finetuned"),
        ("continued", "lora", "pretrained"),
        ("scratch", "prompt", "pretrained"),
        ("distilled", "full", "distilled"),
        ("placebo", "full", "other"),
        (None, None, "other"),
    ],
)
def test_the_role_follows_from_origin_and_adaptation(
    origin: str | None, adaptation: str | None, role: str
) -> None:
    assert role_of(origin, adaptation) == role


def test_an_export_carries_its_place_in_the_study(model_study: Path, tmp_path: Path) -> None:
    from adaptkit.export.resolve import resolve

    picked = resolve(model_study, task="mood", arm="generic+lora", seed=1)
    source = of_model(export(picked, "bf16", Options(out=tmp_path / "out")).folder)
    for field in (
        "name",
        "kind",
        "study_name",
        "arm",
        "origin",
        "adaptation",
        "task",
        "seed",
        "labels",
        "role",
    ):
        assert getattr(source, field) == getattr(picked, field), field
    assert source.exported and source.export.format == "bf16" and not picked.exported
    assert source.why == f"the bf16 export of {picked.name}" and source.run is None


def test_a_run_without_a_model_says_so(mood: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(mood.path, tmp_path / "run"))
    shutil.rmtree(run.model)
    with pytest.raises(ModelError, match="this run kept no model"):
        of_run(run.path)


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("llama", "generate", ()),
        ("neox", "generate", ()),
        ("bert", "embed", ()),
        ("bert-classes", "classify", ("LABEL_0", "LABEL_1", "LABEL_2")),
        ("bert-pairs", "rerank", ()),
    ],
)
def test_a_folders_kind_follows_from_its_files(
    model_folders: dict[str, Path], name: str, kind: str, labels: tuple[str, ...]
) -> None:
    source = of_model(model_folders[name])
    assert (source.kind, source.labels, source.name) == (kind, labels, name)


def test_a_base_is_found_where_the_runs_have_moved(notes: Run, mood: Run, tmp_path: Path) -> None:
    for run in (notes, mood):
        shutil.copytree(run.path, tmp_path / run.path.name, ignore=shutil.ignore_patterns("export"))
    moved = tmp_path / mood.path.name
    there = tmp_path / notes.path.name / "model"
    assert local_base(moved, str(notes.model)) == there, "not the one that was left behind"
    assert local_base(moved, f"{notes.path.name}/model") == there
    named = f"/elsewhere/{notes.path.name}/model"
    assert local_base(moved, named) == there
    assert run_of(local_base(moved, named)).path == tmp_path / notes.path.name
    assert local_base(moved, "/elsewhere/gone/model") is None and local_base(moved, "") is None
    assert find_base(moved, "owner/not-in-the-cache") is None
    assert run_of(mood.adapter) is None


def test_names_are_made_fit_to_be_served() -> None:
    assert served_name("clinical trials-generic+lora") == "clinical-trials-generic-lora"
    assert served_name("...") == "model" and served_name("a.b_c-1") == "a.b_c-1"
    assert is_hub_id("owner/name") and not is_hub_id("a/b/c") and not is_hub_id("name")
