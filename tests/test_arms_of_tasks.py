"""Which arms learn which task of a study, by what its base can do. Home of
compare.fixed and compare.usable_base."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_kinds import SMALL, write_data
from transformers import BertConfig, LlamaConfig

from adaptkit import models
from adaptkit.compare.driver import open_study
from adaptkit.compare.fixed import read_fixed
from adaptkit.compare.plan import Plan, keep_plan, make_plan
from adaptkit.compare.settles import settled_by
from adaptkit.compare.workspace import plan_path
from adaptkit.config import load
from adaptkit.data.tokenizers import train_tokenizer
from adaptkit.errors import ConfigError, ModelError
from adaptkit.run import read_jsonl
from adaptkit.study.config import StudyConfig

SIZE = {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
SHAPES = {
    "masked": BertConfig(**SIZE, num_attention_heads=2, max_position_embeddings=256),
    "causal": LlamaConfig(**SIZE, num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped config of all kinds of task, its data, and a base of either form."""
    folder = tmp_path_factory.mktemp("tasks")
    write_data(folder)
    prose = [row["text"] for row in read_jsonl(folder / "general.jsonl")]
    for form, shape in SHAPES.items():
        masked = form == "masked"
        tokenizer = train_tokenizer(prose, "wordpiece" if masked else "bpe", 512, masked=masked)
        models.save(models.build(shape, form, seed=0), tokenizer, folder / form)
    return folder


def planned(folder: Path, form: str, root: Path, *overrides: str) -> Plan:
    given = [f"base={folder / form}", "base_flops=0", "arms=[]", *overrides]
    config = load(StudyConfig, folder / "kinds.yaml", [*SMALL, *given]).config
    return make_plan(config, open_study(config, root))


def arms_of(plan: Plan) -> dict[str, set[str]]:
    return {task.name: {arm.name for arm in plan.config.arms_on(task)} for task in plan.config.tasks}


def test_an_arm_stands_on_the_tasks_that_the_base_can_do(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    masked = planned(folder, "masked", tmp_path)
    arms = arms_of(masked)
    assert {"generic+prompt", "generic+full", "generic+lora"} <= arms["topics"] & arms["duplicate"]
    assert "generic+full" in arms["entities"]
    assert "generic+prompt" not in arms["entities"] and arms["bill"] == set(), "they are written"
    why = {(row.arm, row.task): row.reason for row in masked.fixed.left_out}
    for arm, task in (("generic+full", "bill"), ("generic+prompt", "entities"), ("scratch+full", "bill")):
        assert "masked" in why[arm, task], (arm, task)
    settled = {row["task"] for row in settled_by(masked.config, masked.predictor.costs)}
    assert settled == {"topics", "entities", "rating", "duplicate", "preferred"}, "no arm is on `bill`"
    causal = arms_of(planned(folder, "causal", tmp_path))
    assert {"generic+prompt", "generic+full"} <= causal["bill"] & causal["entities"]


def test_a_resumed_study_leaves_out_the_same(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    plan = planned(folder, "masked", tmp_path)
    study = tmp_path / "kept"
    study.mkdir()
    keep_plan(plan, study)
    again = read_fixed(plan_path(study)).applied_to(plan.measured.config)
    assert [task.without for task in again.tasks] == [task.without for task in plan.config.tasks]
    assert "generic+full" in again.task("bill").without


def test_named_arms_are_refused_where_the_base_gives_no_start_on_any_task(
    folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(folder)
    plan = planned(folder, "masked", tmp_path, "arms=[generic+full, generic+prompt]")
    assert arms_of(plan)["bill"] == set() and "generic+prompt" in arms_of(plan)["topics"]
    only = "tasks=[{name: bill, kind: extract, train: {files: [data/bill.jsonl]}}]"
    with pytest.raises(ModelError, match=r"arm 'generic\+full': the base"):
        planned(folder, "masked", tmp_path, only, "arms=[generic+full]")


def test_arms_are_taken_off_one_task_by_name(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(folder)
    plan = planned(folder, "causal", tmp_path, "tasks.0.without=[generic+probe]")
    topics, *others = arms_of(plan).values()
    assert "generic+probe" not in topics and any("generic+probe" in arms for arms in others)
    reasons = {
        row.reason for row in plan.fixed.left_out if row.arm == "generic+probe" and row.task == "topics"
    }
    assert reasons == {"the task's `without` names it"}
    with pytest.raises(ConfigError, match="'scratch' learns no task"):
        planned(folder, "causal", tmp_path, "tasks.0.without=[scratch]")
    with pytest.raises(ConfigError, match="`depth` is for kind retrieve"):
        planned(folder, "causal", tmp_path, "tasks.0.depth=20")
    with pytest.raises(ConfigError, match="unknown arm 'nothing"):
        planned(folder, "causal", tmp_path, "tasks.0.without=[nothing+full]")
