"""Which arm is recommended, what is claimed of it, and what is not: on studies whose truth is set."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest
from fake_study import write_study
from tiny_results import TICKET, results_of

from adaptkit.errors import EXIT_DECIDED, EXIT_UNDECIDED
from adaptkit.study.results import collect
from adaptkit.study.verdict import ONE_SEED, absolute_margin, judge
from adaptkit.study.verdict_line import verdict_line

JOB = {"task": TICKET, "num_items": 2000}
BASE = {"generic+prompt": [0.40] * 3, "generic+probe": [0.60] * 3, "generic+lora": [0.70, 0.705, 0.695]}
FULL = {"generic+full": [0.80, 0.805, 0.795]}
PLACEBO = {"placebo+full": [0.78, 0.785, 0.775]}
SCRATCH = {"scratch+full": [0.60, 0.605, 0.595]}
CONTINUED = {"continued+full": [0.90, 0.905, 0.895]}
JOBS = {**BASE, **FULL, **PLACEBO, **SCRATCH, **CONTINUED}
TEXT = {
    "generic": [2.70] * 3,
    "continued": [1.80, 1.801, 1.799],
    "continued-lora": [1.90, 1.901, 1.899],
    "scratch": [1.70, 1.701, 1.699],
    "placebo": [2.60, 2.601, 2.599],
}
WORDS = {"tfidf": 0.5}
CLOSE = [0.80, 0.8005, 0.7995]


def answer(scores, **options):
    return judge(results_of(scores, **options)).main


def on_jobs(scores, **options):
    return answer(scores, **{**JOB, "baselines": WORDS, **options})


# Jobs: with pretraining on the text against without it


def test_pretraining_pays_where_it_beats_every_arm_without_it():
    main = on_jobs(JOBS)
    assert (main.outcome, main.recommended, main.rival) == ("gain", "continued+full", "generic+full")
    assert main.contenders == ("continued+full",) and main.settled and not main.missing
    assert re.fullmatch(
        r"VERDICT: continued\+full on ticket: \+0\.100 \[\+0\.0\d\d, \+0\.1\d\d\] over the best without "
        r"pretraining \(generic\+full\), also over placebo\+full",
        main.line,
    )


def test_a_placebo_as_good_takes_the_claim_away():
    main = on_jobs({**JOBS, "placebo+full": [0.90, 0.905, 0.895]})
    assert main.outcome != "gain" and "placebo+full" in main.contenders


def test_the_placebo_is_named_only_where_the_recommended_arm_itself_beats_it():
    main = on_jobs(JOBS)
    assert main.pair is not None and main.line.endswith(", also over placebo+full")
    close = {**main.differences, "placebo+full": dataclasses.replace(main.pair, outcome="tie")}
    assert "placebo" not in verdict_line(dataclasses.replace(main, differences=close))


def test_a_baseline_as_good_takes_the_claim_away_and_is_recommended_for_being_simpler():
    main = on_jobs(JOBS, baselines={"tfidf": 0.95})
    assert (main.outcome, main.recommended, main.settled) == ("no gain", "tfidf", True)
    assert re.fullmatch(
        r"VERDICT: tfidf is enough on ticket: no arm is better by 0\.010 \(closest continued\+full "
        r"-0\.050 \[-0\.\d{3}, -0\.\d{3}\]\)",
        main.line,
    )


def test_an_arm_within_the_margin_of_the_best_is_enough():
    scores = {**JOBS, "generic+full": CLOSE, "continued+full": [0.801, 0.8015, 0.8005]}
    main = on_jobs(scores, num_items=20_000)
    assert (main.outcome, main.recommended) == ("no gain", "generic+full")
    assert set(main.contenders) == {"generic+full", "continued+full"} and main.settled
    assert main.line.startswith("VERDICT: generic+full is enough on ticket: no arm is better by 0.010")
    assert main.rival == "continued+full", "the arm that comes closest to beating it"


def test_too_little_evidence_is_undecided_and_says_what_would_do():
    scores = {**JOBS, "generic+full": CLOSE, "continued+full": [0.82, 0.8205, 0.8195]}
    main = on_jobs(scores, num_items=400)
    assert (main.outcome, main.recommended, main.rival) == ("undecided", "generic+full", "continued+full")
    assert main.power is not None and main.power.items is not None and main.power.items > 400
    assert f"{main.power.items:,} test items would settle it" in main.line
    assert main.line.startswith(
        "VERDICT: undecided on ticket between generic+full and continued+full (+0.020 ["
    )
    assert judge(results_of(scores, **{**JOB, "num_items": 400})).exit_code == EXIT_UNDECIDED


def test_no_pretraining_is_decided_though_two_arms_without_it_are_not_told_apart():
    scores = {**JOBS, "generic+lora": [0.80, 0.78, 0.82], "continued+full": [0.5, 0.505, 0.495]}
    main = on_jobs(scores, num_items=400)
    assert main.outcome == "no gain" and not main.settled
    assert main.recommended == "generic+lora", "the simpler one"
    assert main.line.startswith(
        "VERDICT: no pretraining on ticket: every arm with it is behind; not told apart"
    )


def test_two_pretrained_arms_that_are_not_told_apart_still_answer_the_question():
    scores = {**JOBS, "scratch+full": [0.91, 0.93, 0.89]}
    main = on_jobs(scores, num_items=400)
    assert main.outcome == "gain" and set(main.contenders) == {"continued+full", "scratch+full"}
    assert main.recommended == "continued+full" and "; not told apart from scratch+full" in main.line


def test_the_simplest_pretrained_contender_is_enough_where_the_other_side_is_not_beaten():
    probe = {"continued+probe": [0.801, 0.8015, 0.8005]}
    main = on_jobs({**BASE, "placebo+full": CLOSE, **probe, **SCRATCH}, num_items=20_000)
    assert main.recommended == "placebo+full", "simpler than pretraining on the text"
    assert main.outcome == "no gain"


def test_one_seed_decides_nothing():
    main = on_jobs({arm: seeds[:1] for arm, seeds in JOBS.items()})
    assert main.outcome == "undecided" and main.reason == ONE_SEED and ONE_SEED in main.line


def test_a_study_of_one_side_claims_no_gain():
    main = answer({**CONTINUED, **SCRATCH}, **JOB)
    assert (main.outcome, main.recommended) == ("enough", "continued+full")
    main = answer({**FULL, "generic+lora": [0.60, 0.605, 0.595]}, **JOB)
    assert (main.outcome, main.recommended, main.settled) == ("no gain", "generic+full", True)


def test_a_single_arm_decides_nothing():
    main = answer(FULL, **JOB)
    assert main.pair is None and main.outcome == "undecided"
    assert main.line == "VERDICT: undecided on ticket: generic+full is the only arm"


# Text: a model of one's own against keeping on with the base


def test_a_model_of_ones_own_wins_on_text():
    main = answer(TEXT)
    assert (main.outcome, main.recommended, main.rival) == ("gain", "scratch", "continued")
    assert re.fullmatch(
        r"VERDICT: scratch on bits per byte: -0\.10\d* \[-0\.\d+, -0\.\d+\] over keeping on with the base "
        r"\(continued\), also over placebo",
        main.line,
    )


def test_keeping_on_with_the_base_is_enough_on_text():
    main = answer({**TEXT, "scratch": [1.95, 1.951, 1.949], "continued-lora": [1.801, 1.802, 1.80]})
    assert (main.outcome, main.recommended) == ("no gain", "continued-lora"), "adapters are simpler"
    assert main.line.startswith(
        "VERDICT: continued-lora is enough on bits per byte: no arm is better by 0.018"
    )


def test_the_margin_is_a_share_of_the_best_on_text_and_absolute_elsewhere():
    text = results_of(TEXT)
    assert absolute_margin(text, text.primary) == pytest.approx(0.01 * 1.70)
    job = results_of(JOBS, **JOB)
    assert absolute_margin(job, job.primary) == 0.01


# No claim without its control


@pytest.mark.parametrize(
    "dropped",
    ["generic+prompt", "generic+probe", "generic+lora", "generic+full", "placebo+full", "scratch+full"],
)
def test_a_claim_names_the_control_that_did_not_run(dropped):
    main = on_jobs({arm: seeds for arm, seeds in JOBS.items() if arm != dropped})
    assert main.outcome == "gain" and main.line.endswith(f"; not tried: {dropped}")
    assert ("also over placebo" in main.line) == (dropped != "placebo+full")


def test_word_counts_are_missed_only_where_they_could_answer():
    assert on_jobs(JOBS, baselines={}).line.endswith("; not tried: word counts")
    generate = TICKET.model_copy(update={"kind": "generate"})
    assert not on_jobs(JOBS, baselines={}, task=generate).missing


def test_an_undecided_line_claims_nothing_and_so_misses_nothing():
    scores = {**FULL, "continued+full": [0.83, 0.84, 0.82]}
    main = on_jobs(scores, num_items=400)
    assert main.outcome == "undecided" and main.missing and "not tried" not in main.line


@pytest.mark.parametrize("continued", [0.90, 0.83, 0.80, 0.70])
def test_dropping_an_arm_never_turns_a_tie_into_a_claim_unsaid(continued):
    scores = {**JOBS, "continued+full": [continued, continued + 0.01, continued - 0.01]}
    before = on_jobs(scores, num_items=400)
    for dropped in scores:
        after = on_jobs({arm: seeds for arm, seeds in scores.items() if arm != dropped}, num_items=400)
        if not before.decided and after.decided:
            assert dropped in after.line, (dropped, after.line)


# Several tasks


def test_the_primary_task_decides_and_text_is_evidence(tmp_path):
    skill = {"generic+prompt": 0.4, "generic+lora": 0.72, "generic+full": 0.72, "continued+full": 0.95}
    arms = (*skill, "scratch+full", "placebo+full")
    options = {"arms": arms, "primary": "rct_role", "skill": skill, "num_rows": 1500}
    verdict = judge(collect(write_study(tmp_path, **options)))
    assert verdict.main.task == "rct_role" and verdict.exit_code == EXIT_DECIDED
    assert verdict.line == verdict.main.line and verdict.main.recommended == "continued+full"
    text = next(task for task in verdict.tasks if task.task == "language")
    assert (text.ledger, text.recommended) == ("text", "scratch")


def test_two_jobs_share_the_confidence_and_text_keeps_its_own(tmp_path):
    study = write_study(tmp_path, tasks=("language", "a", "b"), num_rows=60)
    verdict = judge(collect(study))
    levels = {task.task: task.confidence for task in verdict.tasks}
    assert levels["language"] == 0.95
    open_jobs = [task for task in verdict.tasks if task.ledger == "jobs" and not task.decided]
    assert open_jobs and all(levels[task.task] > 0.95 for task in open_jobs) or len(open_jobs) == 1


def test_verdict_json_round_trips(tmp_path):
    study = write_study(tmp_path, tasks=("language",))
    written = json.loads(json.dumps(judge(collect(study)).as_json()))
    assert {"line", "exit_code", "recommended", "primary", "confidence", "tasks"} == set(written)
    assert {"difference", "low", "high", "margin", "num_items"} <= set(written["tasks"][0]["pair"])
    assert written["line"] == written["tasks"][0]["line"] and written["exit_code"] == EXIT_DECIDED
