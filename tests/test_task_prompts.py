"""What a task's config says to prompted arms: read from YAML, refused where no prompt reads it, part of the
run's identity, shown by the dry run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_study import study_config, write_texts

from adaptkit.compare.plan import prompt_instructions
from adaptkit.compare.stages import task as task_stage
from adaptkit.config import load
from adaptkit.errors import ConfigError, DataError
from adaptkit.finetune.prompt_words import LABEL_INSTRUCTION
from adaptkit.study.config import StudyConfig
from adaptkit.study.prepared_files import PreparedFiles
from adaptkit.study.rag import Library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_texts(tmp_path)
    return tmp_path


def test_instruction_and_labels_reach_the_prompt_and_the_dry_run(folder: Path) -> None:
    config = study_config(folder)
    made = prompt_instructions(config)["mood"]
    assert made == {"text": f"{LABEL_INSTRUCTION}\nLabels:\n- bad\n- good", "made": True}
    config = study_config(
        folder, "tasks.0.instruction=What mood is it?", "tasks.0.labels={good: all is well}"
    )
    assert prompt_instructions(config)["mood"] == {
        "text": "What mood is it?\nLabels:\n- bad\n- good: all is well",
        "made": False,
    }
    unprompted = config.model_copy(update={"arms": ["generic+probe"]})
    assert prompt_instructions(unprompted) == {}


def test_the_description_of_an_unknown_label_is_refused_before_anything_runs(folder: Path) -> None:
    task = study_config(folder, "tasks.0.labels={goood: all is well}", "tasks.0.max_length=32").tasks[0]
    with pytest.raises(DataError, match=r"labels of the task 'mood'.*'goood'.*'good'"):
        task.task_kind.size(task)


def test_numbers_and_truth_values_name_labels_as_rows_do(folder: Path) -> None:
    path = folder / "numbers.yaml"
    study_config(folder)
    text = (folder / "study.yaml").read_text()
    path.write_text(text.replace("max_epochs: 3", "labels: {0: low, 1: high, true: yes it is}"))
    assert load(StudyConfig, path).config.tasks[0].labels == {"0": "low", "1": "high", "true": "yes it is"}


@pytest.mark.parametrize(
    ("kind", "field"),
    [("retrieve", "instruction=find it"), ("retrieve", "examples=2"), ("generate", "labels={a: b}")],
)
def test_what_no_prompt_reads_is_refused(folder: Path, kind: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"`{field.partition('=')[0]}` is for prompts"):
        study_config(folder, f"tasks.0.kind={kind}", f"tasks.0.{field}")


def test_another_instruction_is_another_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[dict, dict]] = []

    class Stop(Exception):
        pass

    class Workspace:
        files = PreparedFiles(folder)

        def content(self, folder: Path) -> str:
            return f"digest of {folder.name}"

        def open_fields(self, name: str, fields: dict, **inputs: str) -> None:
            opened.append((fields, inputs))
            raise Stop

    library = Library(folder / "domain.train.jsonl")

    def fields(arm: str, *overrides: str, searched: Library = library) -> tuple[dict, dict]:
        config = study_config(folder, f"arms=[{arm}]", *overrides)
        work = type("Work", (), {"task": config.tasks[0], "arm": config.job_arms[0], "seed": 0, "trials": 2})
        work.origin, work.api, work.library = folder, None, searched
        work.files = Workspace.files.task(work.task.name)
        with pytest.raises(Stop):
            task_stage._frozen(Workspace(), work, None)  # type: ignore[arg-type]
        return opened[-1]

    for other in (Library(folder / "rag.collection.train.jsonl"), Library(library.collection, folder / "e")):
        assert fields("generic+rag", searched=other) != fields("generic+rag")
        assert fields("generic+prompt", searched=other) == fields("generic+prompt")
    assert fields("generic+rag", "tasks.0.examples=3") != fields("generic+rag")
    plain = fields("generic+prompt")
    for change in ("instruction=Say it", "labels={good: fine}", "examples=3"):
        assert fields("generic+prompt", f"tasks.0.{change}") != plain
        assert fields("generic+probe", f"tasks.0.{change}") == fields("generic+probe")
