"""Which model of a study is served: the recommended arm's, or the next contender's where that is no model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_exports import edit_verdict, study_of

from adaptkit.errors import DataError, ModelError
from adaptkit.export.resolve import resolve
from adaptkit.export.source import ModelRole
from adaptkit.run import Run, read_sealed, write_json, write_sealed
from adaptkit.run_record import read_record


def test_a_study_stands_for_its_recommended_arm_with_the_best_seed(model_study: Path) -> None:
    source = resolve(model_study)
    assert source.why == "scratch, recommended on bits per byte; seed 1 has the best dev score"
    assert (source.arm, source.origin, source.adaptation) == ("scratch", "scratch", None)
    assert (source.study, source.study_name, source.seed) == (model_study, "clinical-trials", 1)
    assert (source.task, source.name) == ("language", "clinical-trials-scratch")
    assert source.role is ModelRole.PRETRAINED and source.kind == "generate"
    assert source.run.name == source.scored_run.name == "language-scratch-1"


def test_task_arm_and_seed_can_be_chosen(model_study: Path) -> None:
    source = resolve(model_study, task="mood", arm="generic+lora", seed=0)
    assert (source.task, source.arm, source.seed, source.kind) == ("mood", "generic+lora", 0, "classify")
    assert source.name == "clinical-trials-generic-lora-mood" and source.suite == "mood"
    assert source.why == "generic+lora, asked for by name; seed 0"
    assert source.role is ModelRole.FINETUNED and source.run.name == "mood-generic+lora-0"


def test_only_runs_with_all_of_the_text_and_compute_count(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    study = read_sealed(moved / "study.json")
    for score in study["scores"]:
        if (score["arm"], score["seed"]) == ("scratch", 1):
            score["share"] = 0.5
    write_sealed(moved / "study.json", study)
    source = resolve(moved)
    assert source.seed == 0 and source.why == "scratch, recommended on bits per byte; seed 0"
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


def test_the_untouched_base_answers_for_a_prompt_and_for_the_text_ledgers_generic(model_study: Path) -> None:
    for task, arm in (("language", "generic"), ("mood", "generic+prompt")):
        source = resolve(model_study, task=task, arm=arm)
        assert source.kind == "generate" and source.run.name == "base"
        assert source.role is ModelRole.GENERIC and source.task == task


@pytest.mark.parametrize(
    ("arm", "what"), [("generic+probe", "a regression on frozen features"), ("tfidf", "no language model")]
)
def test_a_probe_or_a_baseline_is_no_model(model_study: Path, arm: str, what: str) -> None:
    with pytest.raises(ModelError, match=f"is {what}: its scores were kept, no model was made") as refused:
        resolve(model_study, task="mood", arm=arm)
    assert refused.value.fix == "choose an arm that is a model: scratch+full, generic+lora, generic+prompt"


@pytest.mark.parametrize("arm", ["generic+probe", "tfidf"])
def test_what_is_no_model_gives_way_to_the_next_contender(
    model_study: Path, tmp_path: Path, arm: str
) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    contenders = [arm, "generic+lora", "scratch+full"]
    edit_verdict(moved, "mood", outcome="no gain", recommended=arm, contenders=contenders)
    source = resolve(moved, task="mood")
    assert source.arm == "generic+lora", "the preferred contender, not the one with the best score"
    what = {"tfidf": "no language model", "generic+probe": "a regression on frozen features"}[arm]
    assert source.why.startswith(
        "generic+lora, the next contender on accuracy on mood "
        f"({arm}, recommended on accuracy on mood, is {what})"
    )
    edit_verdict(moved, "mood", contenders=[arm])
    source = resolve(moved, task="mood")
    assert source.arm == "scratch+full" and "the best model on accuracy on mood (" in source.why


def test_where_nothing_is_decided_the_preferred_contender_is_taken_and_that_is_said(
    notes: Run, mood: Run, tmp_path: Path
) -> None:
    study = study_of(tmp_path, notes, mood, outcome="undecided")
    edit_verdict(study, "mood", recommended="generic+lora", contenders=["generic+lora", "scratch+full"])
    source = resolve(study, task="mood")
    assert source.arm == "generic+lora"
    assert source.why.startswith(
        "generic+lora, the preferred contender on accuracy on mood, which is not decided yet; "
    )


def test_a_task_on_which_no_arm_is_a_model_is_refused(model_study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model_study.parent, tmp_path / "runs") / model_study.name
    study = read_sealed(moved / "study.json")
    servable = ("generic+prompt", "generic+lora", "scratch+full")
    study["scores"] = [score for score in study["scores"] if score["arm"] not in servable]
    write_sealed(moved / "study.json", study)
    edit_verdict(moved, "mood", recommended="tfidf", contenders=["tfidf", "generic+probe"])
    with pytest.raises(
        ModelError, match="no arm of this study is a model that can be served on mood"
    ) as refused:
        resolve(moved, task="mood")
    assert refused.value.fix == "name another task with --task"


@pytest.mark.parametrize(
    ("choice", "what", "fix"),
    [
        (
            {"arm": "generic+lora"},
            "has no arm 'generic\\+lora' on language",
            "choose from generic, continued",
        ),
        ({"arm": "scratsh"}, "did you mean 'scratch'", "choose from generic, continued, scratch"),
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
