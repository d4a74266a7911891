"""What is decided at one size and at the next. Home of study.ladder, study.ladder_record,
report.ladder_section and compare.choose_sizes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fake_study import edit_study, write_study
from tiny_study import study_config, write_texts

from adaptkit.architecture import SizeConfig, choose_shape
from adaptkit.compare.build_stages import build_stages
from adaptkit.compare.choose_sizes import choose_rungs, size_sentences
from adaptkit.compare.costs import Costs, TextSizes
from adaptkit.compare.stages.language import carried_rate
from adaptkit.compare.stages.language_job import JobOrder
from adaptkit.compare.stages.pretraining_jobs import Scratch
from adaptkit.errors import ConfigError, DataError
from adaptkit.report.ladder_section import ladder_section
from adaptkit.report.write import write_report
from adaptkit.run import Run, read_jsonl, write_jsonl
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.base_model import base_shape
from adaptkit.study.budget import Budget
from adaptkit.study.ladder import Ladder, Pair, Step, decision_of, measure_ladder
from adaptkit.study.ladder_record import LadderRecord, RungScoreRecord
from adaptkit.study.record import read_study, runs_of
from adaptkit.study.results import collect
from adaptkit.study.stage_record import StageKey
from adaptkit.study.statistics import Comparison
from adaptkit.study.tuning import HORIZON, for_size

SMALL = {"num_documents": 60, "tasks": ("language",), "seed_noise": 0.002}
OWN, SIZES = 3_000_000, (1_000_000, 3_000_000, 10_000_000)
LEVELS = {"scratch": 1.62, "mixed": 1.76, "continued": 1.70, "generic": 2.7}
ARMS = "arms=[generic, continued, mixed, scratch]"
COUNTS = TextSizes(domain=4e6, general=4e6, dev=1e4, test=1e4, num_test=50)
BUDGET = Budget(1e12, 1e12, 3, 0.15, 2)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def ladder_study(root, levels):
    """A study at OWN parameters, with other sizes whose bits per byte are given by arm and size."""
    study = write_study(root, texts=tuple(LEVELS), bpb=LEVELS, **SMALL)
    scores = []
    for (arm, size), level in levels.items():
        for seed in range(3):
            own = next(s for s in read_study(study).scores if (s.arm, s.seed) == (arm, seed))
            run = Run(root / f"{arm}-{size}-s{seed}")
            run.path.mkdir()
            rows = read_jsonl(Run(root / own.run).items("language"))
            factor = level / LEVELS[arm]
            write_jsonl(run.items("language"), [{**row, "nats": row["nats"] * factor} for row in rows])
            where = {"arm": arm, "seed": seed, "size": size, "params": size, "learning_rate": 1e-3}
            scores.append(RungScoreRecord(**where, run=run.path.name, model_run=run.path.name))
    edit_study(study, ladder=LadderRecord(own=OWN, sizes=SIZES, scores=tuple(scores), left_out=(30_000_000,)))
    return study


HOLDS = {("scratch", SIZES[0]): 1.9, ("scratch", SIZES[2]): 1.5}
HOLDS |= {("mixed", SIZES[0]): 2.0, ("mixed", SIZES[2]): 1.6}


def test_decisions_are_counted_as_held_turned_open_or_undecided(tmp_path):
    study = ladder_study(tmp_path, HOLDS)
    ladder = measure_ladder(collect(study))
    fates = {(step.smaller.arm, step.smaller.against, step.smaller.size): step.fate for step in ladder.steps}
    assert len(fates) == 2 * 5, "both steps, of all pairs but continued against generic"
    assert ("continued", "generic", SIZES[0]) not in fates and ("generic", "continued", SIZES[0]) not in fates
    assert fates["scratch", "mixed", SIZES[0]] == fates["scratch", "mixed", SIZES[1]] == "held"
    assert fates["scratch", "continued", SIZES[0]] == "turned", "behind at 1M, ahead at 3M"
    assert fates["scratch", "continued", SIZES[1]] == "held"
    assert ladder.decided == sum(fate != "undecided" for fate in fates.values())
    assert ladder.held == sum(fate == "held" for fate in fates.values())
    rungs = {(rung.arm, rung.size): rung.score.mean for rung in ladder.rungs}
    assert rungs["scratch", SIZES[0]] > rungs["scratch", OWN] > rungs["scratch", SIZES[2]]
    assert {"scratch-1000000-s0", "mixed-10000000-s2"} <= runs_of(read_study(study)), "kept with the study"


def test_the_report_says_how_often_over_how_many_pairs(tmp_path):
    study = ladder_study(tmp_path, HOLDS)
    ladder = measure_ladder(collect(study))
    section = ladder_section(ladder)
    share = f"{ladder.held} of {ladder.decided} decisions held at the next size"
    assert section.lead.startswith(share) and "10 pairs of arms and neighbouring sizes" in section.lead
    assert "1 turned" in section.lead or "2 turned" in section.lead
    assert section.sizes == ("1M", "3M", "10M") and "Left out: 30M" in section.note
    paths = write_report(study)
    for page in (paths.html, paths.markdown):
        text = page.read_text()
        assert "At other sizes" in text and share in text and "arXiv 2504.11393" in text
        assert "One size of the base and one budget" in text
    plain = write_study(tmp_path / "plain", **SMALL)
    assert measure_ladder(collect(plain)) is None and ladder_section(None) is None
    assert "At other sizes" not in write_report(plain).html.read_text()


def test_where_nothing_is_decided_no_share_is_given(tmp_path):
    levels = {key: LEVELS[key[0]] for key in HOLDS}
    study = ladder_study(tmp_path, levels)
    results = collect(study)
    nothing = [pair for pair in measure_ladder(results).steps if pair.fate == "undecided"]
    ladder = measure_ladder(results)
    empty = type(ladder)(ladder.record, ladder.rungs, tuple(nothing), ladder.confidence)
    assert "none was decided" in ladder_section(empty).lead
    assert all(step.fate in ("held", "undecided") for step in ladder.steps), "the same scores at all sizes"


def test_other_passages_or_none_are_refused(tmp_path):
    study = ladder_study(tmp_path, HOLDS)
    items = Run(tmp_path / "scratch-1000000-s0").items("language")
    write_jsonl(items, list(read_jsonl(items))[:-1])
    with pytest.raises(DataError, match="other passages"):
        measure_ladder(collect(study))
    items.unlink()
    with pytest.raises(DataError, match="missing"):
        measure_ladder(collect(study))


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [(-0.3, -0.1, "better"), (0.1, 0.3, "worse"), (-0.01, 0.01, "equal"), (-0.1, 0.01, "open")],
)
def test_an_interval_across_the_margin_decides_nothing(low, high, decision):
    outcome = {"better": "win", "worse": "loss"}.get(decision, "tie")
    compared = Comparison(0.0, low, high, 0.02, outcome, 0, (0, 0), (1, 1), (3, 3), 9, 9, 9.0, 0.0, 0.95)
    assert decision_of(compared) == decision


def test_a_pair_that_is_open_at_the_larger_size_neither_held_nor_turned():
    steps = [
        Step(Pair("a", "b", 1, before), Pair("a", "b", 2, after))
        for before, after in (("better", "open"), ("open", "better"), ("equal", "equal"), ("worse", "better"))
    ]
    assert [step.fate for step in steps] == ["open", "undecided", "held", "turned"]
    ladder = Ladder(LadderRecord(own=1, sizes=(1, 2)), (), tuple(steps), 0.95)
    assert (ladder.decided, ladder.held) == (3, 1)


# Which sizes


def costs_of(config):
    shape, kind = base_shape(config)
    return Costs(config, shape, kind, COUNTS, {})


def test_every_size_spends_what_the_run_that_is_compared_spends(texts):
    config = study_config(texts, ARMS, "tasks=[]", "sizes=[200k, 290k]")
    stages = {stage.key: stage for stage in build_stages(config, BUDGET, (), (200_000, 290_000))}
    others = [stage for key, stage in stages.items() if key.size]
    assert {(s.key.origin, s.key.size, s.key.seed) for s in others} == {
        (origin, size, seed)
        for origin in (Origin.SCRATCH, Origin.MIXED)
        for size in (200_000, 290_000)
        for seed in (0, 1)
    }
    for stage in others:
        whole = stages[StageKey.for_language(stage.key.origin, seed=stage.key.seed)]
        assert stage.flops == whole.flops and set(stage.needs) == set(whole.needs)
    assert len({stage.name for stage in stages.values()}) == len(stages), "each has files of its own"


def test_a_size_without_a_shape_or_with_too_few_steps_is_left_out_with_the_reason(texts):
    config = study_config(texts, ARMS, "tasks=[]", "sizes=[2k, 130k, 290k, 900M]")
    arms, costs = [Arm(Origin.SCRATCH), Arm(Origin.CONTINUED)], costs_of(config)
    rungs = choose_rungs(config, BUDGET, costs, arms)
    assert rungs == (290_000,) and config.ladder == (2_000, 130_000, 290_000, 900_000_000)
    said = "\n".join(size_sentences(config, BUDGET, costs, arms, rungs))
    assert "scratch also at 0.29M" in said and "0.002M: left out, no model of 2,000 parameters" in said
    assert "900M: left out, its runs would be shorter than 8 steps: it needs budget.amount=" in said
    few, many = (
        int(said.split(f"  {name}: ")[1].split(" steps")[0].replace(",", "")) for name in ("0.29M", "0.13M")
    )
    assert few < many, "the same FLOPs"
    assert choose_rungs(config, BUDGET, costs, [Arm(Origin.CONTINUED)]) == ()
    assert size_sentences(study_config(texts), BUDGET, costs, arms, ()) == []


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["sizes=[1M, 1M]"], "each once"),
        (["sizes=[130k]"], "leaves nothing to compare"),
        (["sizes=[1M]", "size.params=0"], "set size.params"),
        (["sizes=[1M]", "arms=[generic+lora]"], "name scratch or mixed"),
    ],
)
def test_sizes_that_compare_nothing_are_refused(texts, overrides, what):
    with pytest.raises(ConfigError, match=what):
        study_config(texts, *overrides)


# The rate that is carried over


def test_a_wider_model_takes_smaller_steps_and_a_shorter_run_larger_ones():
    assert for_size(1e-2, widths=(128, 256), per_token=(1.0, 1.0)) == pytest.approx(5e-3)
    assert for_size(1e-2, widths=(128, 128), per_token=(1.0, 4.0)) == pytest.approx(
        1e-2 * 4**HORIZON, rel=0.01
    )
    back = for_size(for_size(1e-2, widths=(128, 384), per_token=(1, 9)), widths=(384, 128), per_token=(9, 1))
    assert back == pytest.approx(1e-2, rel=0.01)


def test_another_size_takes_the_rate_of_the_size_that_was_tuned(monkeypatch):
    monkeypatch.setattr("adaptkit.compare.stages.language.learning_rate", lambda job, order, trial: 1e-2)
    monkeypatch.setattr("adaptkit.compare.stages.pretraining_jobs.scratch_objective", lambda config: "causal")
    workspace = SimpleNamespace(
        config=SimpleNamespace(size=SizeConfig(params=130_000, seq_len=64)),
        tokenizer=SimpleNamespace(tokenizer=SimpleNamespace(vocab_size=512)),
        tokenizer_folder=None,
    )

    def carried(params):
        return carried_rate(Scratch(), JobOrder(workspace, Origin.SCRATCH, 1.0, 1e10, 0, 1, params=params))

    narrow, wide = (choose_shape(params, 512).width for params in (130_000, 290_000))
    assert narrow < wide and carried(290_000) < 1e-2
    assert carried(290_000) == pytest.approx(1e-2 * narrow / wide * (290 / 130) ** HORIZON, rel=0.15)
    assert carried(130_000) == pytest.approx(1e-2)
