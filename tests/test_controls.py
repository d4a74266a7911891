"""Which controls a claim needs, and that no claim appears because an arm was left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_study import FULL, TEXTS, edit_study, write_study
from tiny_results import LANGUAGE, TICKET, arm_of, baseline_of, results_of

from adaptkit.study.controls import (
    JOB_CONTROLS,
    TEXT_CONTROLS,
    controls_of,
    gains_from_text,
    missing_controls,
)
from adaptkit.study.record import read_study
from adaptkit.study.results import collect
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import exclusions

JOBS = (
    "generic+prompt",
    "generic+probe",
    "generic+lora",
    "generic+full",
    "placebo+full",
    "continued+full",
    "scratch+full",
)


def missing(arms, task=TICKET, baselines=("tfidf",)):
    scores = {arm: [0.5, 0.5] for arm in arms}
    results = results_of(scores, task=task, baselines=dict.fromkeys(baselines, 0.4))
    return [control.name for control in missing_controls(results, task)]


def test_a_study_with_every_control_misses_none():
    assert missing(JOBS) == []
    assert missing(TEXTS, task=LANGUAGE, baselines=()) == []


@pytest.mark.parametrize("dropped", JOBS)
def test_each_control_of_a_job_is_missed_by_its_name(dropped):
    assert missing([arm for arm in JOBS if arm != dropped]) == [dropped]


@pytest.mark.parametrize("dropped", TEXTS)
def test_each_control_on_text_is_missed_by_its_name(dropped):
    left = [arm for arm in TEXTS if arm != dropped]
    assert missing(left, task=LANGUAGE, baselines=()) == [dropped]


def test_word_counts_are_a_control_where_they_can_answer():
    assert missing(JOBS, baselines=()) == ["word counts"]
    names = {
        kind: [c.name for c in controls_of(TICKET.model_copy(update={"kind": kind}))]
        for kind in ("classify", "retrieve", "generate", "multi_label", "spans", "regression")
    }
    assert names["classify"][:3] == ["word counts", "generic+prompt", "generic+probe"]
    assert names["retrieve"][:3] == ["word counts", "generic+probe", "generic+lora"]
    assert names["generate"][:2] == ["generic+prompt", "generic+lora"]
    for kind in ("multi_label", "spans", "regression"):
        assert names[kind] == names["retrieve"], "a prompt gives no label sets, spans or numbers"


def test_a_prompt_with_passages_stands_in_for_the_prompt_and_no_probe_does():
    assert missing(["generic+rag", *JOBS[1:]]) == []
    assert missing(JOBS[1:]) == ["generic+prompt"]
    assert missing(["generic+prompt", *JOBS[2:]]) == ["generic+probe"]


def test_4_bit_adapters_are_adapters_and_those_of_another_origin_are_not():
    assert missing(["generic+qlora", *(arm for arm in JOBS if arm != "generic+lora")]) == []
    assert missing(["continued+lora", *(arm for arm in JOBS if arm != "generic+lora")]) == ["generic+lora"]


@pytest.mark.parametrize(
    ("name", "on_a_job", "on_text"),
    [
        ("generic", False, False),
        ("placebo", False, False),
        ("continued", True, False),
        ("continued-lora", True, False),
        ("mixed", True, True),
        ("scratch", True, True),
        ("distilled", True, True),
    ],
)
def test_the_side_of_the_question_that_an_arm_is_on(name, on_a_job, on_text):
    assert gains_from_text(arm_of(f"{name}+full"), TICKET) is on_a_job
    assert gains_from_text(arm_of(name), LANGUAGE) is on_text
    assert not gains_from_text(baseline_of("tfidf"), TICKET)


def test_an_arm_that_the_user_took_out_is_named_though_it_is_no_control():
    scores = {arm: [0.5, 0.5] for arm in JOBS}
    options = {"baselines": {"tfidf": 0.4}, "without": ("scratch+probe", "scratch+full")}
    results = results_of({arm: scores[arm] for arm in JOBS if arm != "scratch+full"}, task=TICKET, **options)
    controls = missing_controls(results, TICKET)
    assert [control.name for control in controls] == ["scratch+full", "scratch+probe"], "each once"
    assert exclusions(controls)[1] == (
        "Without scratch+probe the study cannot exclude that scratch+probe does as well or better."
    )
    text = results_of({arm: [1.8, 1.8] for arm in TEXTS}, without=("mixed", "scratch+probe"))
    assert [control.name for control in missing_controls(text, LANGUAGE)] == ["mixed"]


def test_what_a_missing_control_leaves_open_is_a_sentence():
    assert exclusions(TEXT_CONTROLS[:2]) == [
        "Without generic the study cannot exclude that the base as it is does as well.",
        "Without continued the study cannot exclude that training all weights on the text does better.",
    ]
    assert len({control.excludes for control in JOB_CONTROLS}) == len(JOB_CONTROLS)


# Every arm left out in turn of finished studies

TRUTHS = {
    "pretraining helps": {
        "skill": {"continued+full": 0.86, "continued+lora": 0.855, "scratch+full": 0.80},
        "bpb": {"continued": 1.75, "scratch": 1.74, "continued-lora": 1.76},
    },
    "nothing helps": {
        "skill": {"continued+full": 0.755, "placebo+full": 0.752, "continued+lora": 0.75},
        "bpb": {"continued": 1.80, "continued-lora": 1.795, "placebo": 1.81, "scratch": 1.805},
    },
    "a placebo and adapters tie": {
        "skill": {"placebo+full": 0.84, "continued+full": 0.845, "generic+lora": 0.83},
        "bpb": {"continued": 1.78, "placebo": 1.79, "scratch": 1.76},
    },
}


def verdicts(study: Path):
    return {task.task: task for task in judge(collect(study)).tasks}


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("seed_noise", [0.004, 0.02])
def test_no_claim_appears_because_an_arm_was_left_out(tmp_path, truth, seed_noise):
    options = {"num_documents": 80, "num_rows": 500, "seed_noise": seed_noise}
    study = write_study(tmp_path, primary="rct_role", **options, **TRUTHS[truth])
    whole, record = verdicts(study), read_study(study)
    assert {arm.name for arm in record.arms} == {*FULL, *TEXTS, "tfidf"}
    for dropped in record.arms:
        edit_study(
            study,
            arms=tuple(arm for arm in record.arms if arm != dropped),
            scores=tuple(score for score in record.scores if score.arm != dropped.name),
            without=(dropped.name,),
        )
        for task, verdict in verdicts(study).items():
            if verdict.decided and not whole[task].decided:
                name = "word counts" if dropped.origin == "baseline" else dropped.name
                said = verdict.line.rpartition("; not tried: ")[2]
                assert name in said.split(", "), (dropped.name, whole[task].line, verdict.line)
