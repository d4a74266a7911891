"""The plan: which stages there are, what they need, what they cost, what is refused before anything runs."""

import pytest
from tiny_study import study_config, write_texts

from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import build_stages, make_plan
from adaptkit.errors import BudgetError, ConfigError
from adaptkit.study.arms import Origin, TextJob
from adaptkit.study.budget import BudgetConfig, grant
from adaptkit.study.stage_record import StageKey

ARMS = "arms=[generic+prompt, generic+lora, continued+full, continued+probe, scratch+full, placebo+full]"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def stages_of(config):
    budget = grant(
        config.budget,
        flops_per_token=1.0,
        flops_per_second=1.0,
        num_seeds=config.seeds,
        num_tasks=len(config.tasks),
    )
    return build_stages(config, budget)


def test_every_need_is_an_earlier_stage(texts):
    seen: set[StageKey] = set()
    for stage in stages_of(study_config(texts, ARMS, "fractions=[0.25, 1.0]", "budget.trials=2")):
        assert set(stage.needs) <= seen, stage.name
        seen.add(stage.key)


def test_an_origin_is_trained_once_per_seed_whatever_uses_it(texts):
    keys = [stage.key for stage in stages_of(study_config(texts, ARMS))]
    assert len(keys) == len(set(keys)) == len({key.name for key in keys})
    runs = [key for key in keys if key.job == TextJob(Origin.CONTINUED) and key.trial is None]
    assert [(key.seed, key.share) for key in runs] == [(0, 1.0), (1, 1.0)]


def test_every_trained_arm_gets_the_same_trials_and_flops(texts):
    config = study_config(texts, ARMS, "budget.trials=3", "seeds=3")
    stages = stages_of(config)
    jobs = {stage.key.job for stage in stages} - {None}
    assert {job.name for job in jobs} == {"generic+lora", "continued", "scratch", "placebo"}
    for job in jobs:
        mine = [s for s in stages if s.key.job == job]
        assert sum(s.key.trial is not None for s in mine) == 3
        assert sum(s.flops for s in mine) == pytest.approx(
            3 * config.budget.amount * (1 - config.budget.task_share)
        )


def test_smaller_shares_of_text_get_smaller_budgets_and_the_placebo_none(texts):
    stages = {s.key: s for s in stages_of(study_config(texts, ARMS, "fractions=[0.25, 1.0]"))}

    def run(origin, share):
        return StageKey.for_language(TextJob(origin), share=share)

    quarter, whole = (stages[run(Origin.SCRATCH, share)].flops for share in (0.25, 1.0))
    assert quarter == pytest.approx(whole / 4)
    assert run(Origin.PLACEBO, 1.0) in stages and run(Origin.PLACEBO, 0.25) not in stages


def test_a_budget_too_small_for_a_schedule_is_refused_before_anything_runs(texts, tmp_path):
    config = study_config(texts, "budget.amount=1e8")
    with pytest.raises(BudgetError, match="at least 8 needed"):
        make_plan(config, open_study(config, tmp_path))


def test_a_study_over_its_total_is_refused(texts, tmp_path):
    config = study_config(texts, "budget.total=1e10")
    with pytest.raises(BudgetError, match="the limit is 1.00e\\+10"):
        make_plan(config, open_study(config, tmp_path))


def test_a_resumed_study_keeps_the_budget_it_was_measured_with(texts, tmp_path):
    config = study_config(texts, "budget.unit=seconds", "budget.amount=20", "budget.task_share=0.5")
    run = open_study(config, tmp_path)
    first = make_plan(config, run).budget
    assert make_plan(config, open_study(config, tmp_path)).budget == first


def test_the_study_folder_follows_config_and_data(texts, tmp_path):
    base = open_study(study_config(texts), tmp_path).path
    assert open_study(study_config(texts, "jobs=1"), tmp_path).path == base
    assert open_study(study_config(texts, "seeds=4"), tmp_path).path != base
    (texts / "mood.jsonl").write_text(
        (texts / "mood.jsonl").read_text() + '{"text": "more", "label": "bad"}\n'
    )
    assert open_study(study_config(texts), tmp_path).path != base


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("primary=nothing", "primary must be 'language' or a task's name"),
        ("arms=[generic+lora, generic+lora]", "each once"),
        ("arms=[genric+lora]", "did you mean 'generic\\+lora'"),
        ("fractions=[0.5, 0.25]", "ending in 1.0"),
        ("trainer.learning_rate=1e-3", "decided by the plan"),
        ("base_flops=0", "give `base`"),
        ("tasks.0.metric=rouge_l", "metric must be one of accuracy, macro_f1"),
        ("tasks.0.kind=clasify", "kind must be one of .*did you mean 'classify'"),
    ],
)
def test_contradictions_are_refused_with_the_reason(texts, override, what):
    with pytest.raises(ConfigError, match=what):
        study_config(texts, override)


def test_dollars_are_turned_into_flops_at_the_given_price():
    price = {"usd_per_hour": 2.0, "source": "a list", "date": "2026-11-01"}
    config = BudgetConfig(amount=1.0, unit="usd", price=price)
    assert grant(
        config, flops_per_token=1, flops_per_second=10, num_seeds=1, num_tasks=0
    ).flops == pytest.approx(18_000)
