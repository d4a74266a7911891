"""Who wins, who ties and why, on studies whose truth is set."""

from __future__ import annotations

import json
import re

import pytest
from fake_study import write_study
from tiny_results import TICKET, results_of

from adaptkit.errors import EXIT_TIE, EXIT_WINNER
from adaptkit.study.power import seeds_to_settle
from adaptkit.study.results import collect
from adaptkit.study.verdict import flops_text, interval_text, judge, number

ARMS = ("generic+prompt", "generic+lora", "continued+full", "scratch+full")
LINE = (
    r"VERDICT: scratch\+full WINS over generic\+lora on bits per byte  "
    r"-0\.\d{3} \[-0\.\d{3}, -0\.\d{3}\], 3 seeds, 3\.1e14 FLOPs each"
)


def verdict_of(tmp_path, **truth):
    options = {"arms": ARMS, "tasks": ("language",), "fractions": (1.0,), **truth}
    return judge(collect(write_study(tmp_path, **options)))


def test_pretrained_wins_and_the_line_has_the_agreed_form(tmp_path):
    verdict = verdict_of(tmp_path)
    assert re.fullmatch(LINE, verdict.line)
    assert verdict.exit_code == EXIT_WINNER and verdict.winner == "scratch+full"
    assert verdict.main.versus_generic.outcome == "win"
    assert verdict.main.picked_on == "dev"


def test_generic_wins_told_from_its_own_side(tmp_path):
    verdict = verdict_of(tmp_path, bpb={"continued": 2.1, "scratch": 2.3})
    assert verdict.line.startswith("VERDICT: generic+lora WINS over continued+full on bits per byte  -0.1")
    assert verdict.exit_code == EXIT_WINNER and verdict.main.outcome == "generic"


def test_equal_arms_tie_inside_the_margin(tmp_path):
    verdict = verdict_of(
        tmp_path, bpb={"continued": 1.932, "scratch": 2.0}, seed_noise=0.001, num_documents=600
    )
    assert verdict.line.startswith(
        "VERDICT: TIE: do not pretrain: continued+full - generic+lora on bits per byte"
    )
    assert "inside the margin" in verdict.main.reason
    assert verdict.exit_code == EXIT_TIE and verdict.winner is None and verdict.main.seeds_needed is None


def test_a_true_gain_below_the_margin_is_a_tie(tmp_path):
    # Certain (tiny noise) but too small to matter: 0.5 % against a margin of 1 %.
    verdict = verdict_of(
        tmp_path, bpb={"scratch": 1.93 * 0.995, "continued": 1.99}, seed_noise=0.0005, num_documents=600
    )
    assert verdict.main.versus_generic.high < 0
    assert verdict.main.outcome == "tie"


def test_a_gain_that_the_placebo_has_too_is_a_tie(tmp_path):
    arms = (*ARMS, "placebo+full")
    verdict = verdict_of(tmp_path, arms=arms, bpb={"placebo": 1.71})
    assert verdict.main.versus_generic.outcome == "win"
    assert verdict.main.outcome == "tie" and "placebo" in verdict.main.reason
    without = verdict_of(tmp_path / "without", arms=ARMS)
    assert without.main.outcome == "pretrained" and without.main.placebo is None


def test_the_placebo_does_not_stop_a_real_gain(tmp_path):
    verdict = verdict_of(tmp_path, arms=(*ARMS, "placebo+full"))
    assert verdict.winner == "scratch+full" and verdict.main.versus_placebo.outcome == "win"


def test_one_seed_never_wins(tmp_path):
    verdict = verdict_of(tmp_path, seeds=1)
    assert verdict.main.versus_generic.outcome == "win", "by items alone it would"
    assert verdict.main.outcome == "tie" and "one seed" in verdict.main.reason
    assert ", 1 seed," in verdict.line


def test_noisy_seeds_tie_and_say_how_many_would_settle_it(tmp_path):
    verdict = verdict_of(tmp_path, bpb={"scratch": 1.82, "continued": 2.3}, seed_noise=0.06)
    assert verdict.main.outcome == "tie"
    assert verdict.main.seeds_needed is not None and verdict.main.seeds_needed > 3
    assert f"about {verdict.main.seeds_needed} seeds would settle it" in verdict.main.reason


def test_arms_are_picked_on_development_not_on_test(tmp_path):
    study = write_study(tmp_path, arms=ARMS, tasks=("language",), fractions=(1.0,))
    for run in tmp_path.glob("*-s*"):
        scores = json.loads((run / "eval" / "language.json").read_text())
        scores["dev"]["bits_per_byte"] = 1.0 if run.name.startswith("continued") else 2.0
        (run / "eval" / "language.json").write_text(json.dumps(scores))
    verdict = judge(collect(study))
    assert verdict.main.candidate == "continued+full", (
        "scratch is better on test, but that must not be looked at"
    )
    assert verdict_of(tmp_path / "nodev", dev=False).main.picked_on == "test"


def with_dev(study, dev: dict[str, float]):
    """The study's verdict after development scores are set by the start of runs' names."""
    for run in [study.parent / "base", *study.parent.glob("*-s[0-9]*")]:
        scores = json.loads((run / "eval" / "language.json").read_text())
        scores["dev"]["bits_per_byte"] = next(value for arm, value in dev.items() if run.name.startswith(arm))
        (run / "eval" / "language.json").write_text(json.dumps(scores))
    return judge(collect(study))


def test_a_win_over_the_wrong_opponent_is_no_win(tmp_path):
    bpb = {"generic+prompt": 2.6, "generic+lora": 1.93, "continued": 2.1, "scratch": 2.3}
    study = write_study(tmp_path, arms=ARMS, tasks=("language",), fractions=(1.0,), bpb=bpb)
    verdict = with_dev(study, {"base": 1.0, "generic-lora": 2.0, "continued": 1.5, "scratch": 2.0})
    assert verdict.main.generic == "generic+lora" and verdict.main.versus_generic.outcome == "loss"
    assert verdict.winner is None and "development data take generic+prompt" in verdict.main.reason


def test_the_generic_side_wins_over_the_best_pretrained_arm_only(tmp_path):
    bpb = {"generic+prompt": 2.6, "generic+lora": 1.93, "continued": 1.932, "scratch": 2.3}
    study = write_study(tmp_path, arms=ARMS, tasks=("language",), fractions=(1.0,), bpb=bpb)
    verdict = with_dev(study, {"base": 2.6, "generic-lora": 1.9, "continued": 2.0, "scratch": 1.0})
    assert verdict.main.candidate == "scratch+full" and verdict.winner is None


@pytest.mark.parametrize("arms", [("generic+lora",), ("scratch+full",)])
def test_a_missing_side_is_a_tie_that_says_so(tmp_path, arms):
    verdict = verdict_of(tmp_path, arms=arms)
    assert verdict.exit_code == EXIT_TIE and "no " in verdict.main.reason
    assert verdict.line.startswith("VERDICT: TIE: do not pretrain")


def test_the_primary_task_decides(tmp_path):
    skill = {"generic+prompt": 0.4, "generic+lora": 0.72, "continued+full": 0.9, "scratch+full": 0.7}
    verdict = verdict_of(
        tmp_path, tasks=("language", "rct_role"), primary="rct_role", skill=skill, num_rows=400
    )
    assert verdict.winner == "continued+full" and "accuracy on rct_role  +0." in verdict.line
    by_task = {task.task: task for task in verdict.tasks}
    assert by_task["language"].winner == "scratch+full"


def test_verdict_json_round_trips(tmp_path):
    answer = json.loads(json.dumps(verdict_of(tmp_path).as_json()))
    assert {"line", "exit_code", "winner", "primary", "confidence", "tasks"} == set(answer)
    assert {"difference", "low", "high", "outcome", "margin", "num_seeds"} <= set(
        answer["tasks"][0]["versus_generic"]
    )


# The reasons of ties, word for word

BEHIND = [1.80, 1.801, 1.799]
WIN = {"generic+lora": BEHIND, "scratch+full": [1.70, 1.701, 1.699]}


def tie_of(scores, **options):
    verdict = judge(results_of(scores, **options))
    assert verdict.main.outcome == "tie" and verdict.winner is None and verdict.exit_code == EXIT_TIE
    assert verdict.line.endswith(verdict.main.reason)
    return verdict.main


@pytest.mark.parametrize(
    ("arm", "reason"),
    [
        ("generic+lora", "the study has no pretrained arm to compare"),
        ("scratch+full", "the study has no generic arm to compare"),
        ("placebo+full", "the study has no pretrained arm to compare"),
    ],
)
def test_reason_of_a_missing_side(arm, reason):
    assert tie_of({arm: BEHIND}).reason == reason


def test_reason_of_one_seed():
    main = tie_of({"generic+lora": [1.8], "scratch+full": [1.7]})
    assert main.reason == "one seed cannot tell skill from luck: run at least 3"
    assert tie_of({"generic+lora": [1.7], "scratch+full": [1.8]}).reason == main.reason


def test_reason_where_the_candidate_is_behind():
    scores = {"generic+prompt": [1.90] * 3, "generic+lora": [1.70, 1.701, 1.699]}
    scores |= {"scratch+full": BEHIND, "continued+full": [1.90, 1.901, 1.899]}
    dev = {"generic+prompt": 1.0, "generic+lora": 2.0, "scratch+full": 1.0, "continued+full": 2.0}
    assert tie_of(scores, dev=dev).reason == (
        "it is behind, but development data take generic+prompt, not surely ahead of scratch+full"
    )


def test_reason_of_a_placebo_as_good():
    main = tie_of(WIN | {"placebo+full": [1.699, 1.70, 1.701]})
    assert main.reason == (
        "the placebo may explain it; placebo+full, trained as long on general text, is not beaten beyond the "
        f"margin ({interval_text(main.versus_placebo)})"
    )
    assert main.versus_generic.outcome == "win" and main.seeds_needed is None


def test_reason_inside_the_margin():
    main = tie_of({"generic+lora": BEHIND, "scratch+full": [1.799, 1.80, 1.80]})
    assert main.reason == "the whole interval lies inside the margin" and main.seeds_needed is None


def test_reason_with_the_number_of_seeds_that_would_do():
    main = tie_of({"generic+lora": BEHIND, "scratch+full": [1.70, 1.80, 1.72]})
    needed = seeds_to_settle(main.versus_generic)
    assert main.seeds_needed == needed and 3 < needed < 50
    assert main.reason == (
        f"the interval is too wide to decide; about {needed} seeds would settle it if the difference stays "
        "as it is"
    )


def test_reason_on_the_margin():
    middle = 1.80 * 0.99 + 0.001
    main = tie_of({"generic+lora": BEHIND, "scratch+full": [middle - 0.05, middle, middle + 0.05]})
    assert main.reason == "the difference sits on the margin; no reasonable number of seeds would settle it"
    assert main.seeds_needed is None


def test_reason_of_too_few_items():
    main = tie_of(WIN, item_noise=1.0, num_items=200)
    assert main.reason == (
        "the interval is too wide to decide; more seeds alone will not do: test on more than 200 items"
    )


def test_reason_of_seeds_that_differ_too_much():
    main = tie_of({"generic+lora": BEHIND, "scratch+full": [1.45, 2.05, 1.83]})
    assert main.reason == (
        "the interval is too wide to decide; seeds differ so much that even 50 would not settle it"
    )


# The line


def test_the_line_of_either_winner_and_of_a_tie():
    won, lost, tied = (
        judge(results_of(scores, **options))
        for scores, options in (
            (WIN, {}),
            ({"generic+lora": [0.8, 0.81, 0.79], "scratch+full": [0.7, 0.71, 0.69]}, {"task": TICKET}),
            ({"generic+lora": BEHIND, "scratch+full": [1.799, 1.80, 1.80]}, {}),
        )
    )
    assert won.line == (
        "VERDICT: scratch+full WINS over generic+lora on bits per byte  "
        f"{interval_text(won.main.versus_generic)}, 3 seeds, 3.1e14 FLOPs each"
    )
    pair = lost.main.versus_generic
    told = f"{-pair.difference:+.3f} [{-pair.high:+.3f}, {-pair.low:+.3f}]"
    assert lost.line == (
        f"VERDICT: generic+lora WINS over scratch+full on accuracy on ticket  {told}, 3 seeds, "
        "3.1e14 FLOPs each"
    )
    pair = tied.main.versus_generic
    assert tied.line == (
        "VERDICT: TIE: do not pretrain: scratch+full - generic+lora on bits per byte  "
        f"{interval_text(pair)}, margin {number(pair.margin, pair)}, 3 seeds, 3.1e14 FLOPs each: "
        "the whole interval lies inside the margin"
    )


def test_the_margin_is_a_share_on_language_and_absolute_elsewhere():
    assert judge(results_of(WIN)).main.versus_generic.margin == pytest.approx(0.01 * 1.80)
    scores = {"generic+lora": [0.8, 0.81, 0.79], "scratch+full": [0.7, 0.71, 0.69]}
    assert judge(results_of(scores, task=TICKET)).main.versus_generic.margin == 0.01


def test_flops_are_short():
    assert [flops_text(f) for f in (3.1e14, 9.96e8, 0)] == ["3.1e14", "1.0e9", "0"]
