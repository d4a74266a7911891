"""Which model of a study is served: the winner, in a tie the best generic arm, and never a probe."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_exports import edit_verdict, study_of

from adaptkit.errors import DataError, ModelError
from adaptkit.export.resolve import resolve
from adaptkit.export.source import ModelRole
from adaptkit.run import Run, read_json, write_json
from adaptkit.run_record import read_record


def test_a_study_stands_for_its_winner_with_the_best_seed(model_study: Path) -> None:
    source = resolve(model_study)
    assert source.why == "scratch+full, the winner on bits per byte; seed 1 has the best dev score"
    assert (source.arm, source.origin, source.adaptation) == ("scratch+full", "scratch", "full")
    assert (source.study, source.study_name, source.seed) == (model_study, "clinical-trials", 1)
    assert (source.task, source.name) == ("language", "clinical-trials-scratch-full")
    assert source.role is ModelRole.PRETRAINED and source.kind == "generate"
    assert source.run.name == source.scored_run.name == "language-scratch+full-1"


def test_task_arm_and_seed_can_be_chosen(model_study: Path) -> None:
    source = resolve(model_study, task="mood", arm="generic+lora", seed=0)
    assert (source.task, source.arm, source.seed, source.kind) == ("mood", "generic+lora", 0, "classify")
    assert source.name == "clinical-trials-generic-lora-mood" and source.suite == "mood"
    assert source.why == "generic+lora, asked for by name; seed 0"
    assert source.role is ModelRole.FINETUNED and source.run.name == "mood-generic+lora-0"


def test_only_the_largest_share_of_the_text_counts(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    study = read_json(moved / "study.json")
    for score in study["scores"]:
        if (score["arm"], score["seed"]) == ("scratch+full", 1):
            score["share"] = 0.5
    write_json(moved / "study.json", study)
    source = resolve(moved)
    assert source.seed == 0 and source.why == "scratch+full, the winner on bits per byte; seed 0"
    with pytest.raises(ModelError, match="has no seed 1"):
        resolve(moved, seed=1)


def test_a_run_without_a_dev_score_is_the_last_choice(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    run = Run(moved.parent / "mood-scratch+full-1")
    record = read_record(run)
    unscored = record.suites["mood"].model_copy(update={"dev": {}})
    run.update_manifest(
        record=record.model_copy(update={"suites": {"mood": unscored}}).model_dump(mode="json")
    )
    assert resolve(moved, task="mood", arm="scratch+full").seed == 0


def test_the_untouched_base_answers_for_a_prompt(model_study: Path) -> None:
    for task in ("language", "mood"):
        source = resolve(model_study, task=task, arm="generic+prompt")
        assert source.kind == "generate" and source.run.name == "base"
        assert source.role is ModelRole.GENERIC and source.task == task
    assert resolve(model_study, task="language", arm="generic+probe").run.name == "base"


def test_a_probe_is_no_model_and_gives_way_to_the_next_best(model_study: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="regression on frozen features") as refused:
        resolve(model_study, task="mood", arm="generic+probe")
    assert refused.value.fix == "choose an arm that is a model: scratch+full, generic+lora, generic+prompt"
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    edit_verdict(moved, "mood", outcome="generic", generic="generic+probe")
    source = resolve(moved, task="mood")
    assert source.arm == "generic+lora"
    assert "the best generic model on accuracy on mood (the winner generic+probe is a regr" in source.why


def test_in_a_tie_the_best_generic_model_is_taken(notes: Run, mood: Run, tmp_path: Path) -> None:
    study = study_of(tmp_path, notes, mood, outcome="tie")
    source = resolve(study)
    assert source.arm == "generic+lora" and "tie, so do not pretrain" in source.why
    edit_verdict(study, "language", generic="generic+prompt")
    assert resolve(study).arm == "generic+prompt", "the verdict's own choice"
    edit_verdict(study, "mood", generic="generic+probe")
    assert resolve(study, task="mood").arm == "generic+lora", "no model stands behind the verdict's choice"


def test_an_origin_without_a_model_names_the_arms_that_have_one(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    study = read_json(moved / "study.json")
    study["arms"][1]["origin"] = "distilled"
    write_json(moved / "study.json", study)
    edit_verdict(moved, "mood", candidate="generic+probe")
    with pytest.raises(ModelError, match="no distilled arm of this study is a model") as refused:
        resolve(moved, task="mood")
    assert refused.value.fix == "name one with --arm: scratch+full, generic+lora, generic+prompt"


@pytest.mark.parametrize(
    ("choice", "what", "fix"),
    [
        ({"arm": "generic+lor"}, "did you mean 'generic\\+lora'", "choose from generic+prompt, "),
        ({"seed": 7}, "has no seed 7", "choose from 0, 1"),
        ({"task": "moody"}, "no task 'moody'.*did you mean 'mood'", "choose from language, mood"),
    ],
)
def test_what_a_study_does_not_hold_is_refused(model_study: Path, choice: dict, what: str, fix: str) -> None:
    with pytest.raises(ModelError, match=what) as refused:
        resolve(model_study, **choice)
    assert refused.value.fix.startswith(fix)


def test_a_study_without_a_report_asks_for_it(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    shutil.rmtree(moved / "report")
    with pytest.raises(DataError, match="no report yet") as refused:
        resolve(moved)
    assert refused.value.fix == f"adaptkit report {moved}"


def test_a_study_of_the_first_release_is_refused(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    write_json(moved / "study.json", {"name": "old", "results": []})
    with pytest.raises(DataError, match="was made by an older release of adaptkit") as refused:
        resolve(moved)
    assert refused.value.fix.startswith("run the same command again with another --root")
