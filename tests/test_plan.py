"""The plan: which stages there are, what they need, what they cost, what is refused before anything runs.
Home of compare.build_stages, compare.choose_arms, compare.quickstart, compare.stage and compare.workspace."""

import time
from types import SimpleNamespace

import pytest
from tiny_study import study_config, write_texts

from adaptkit.compare.build_stages import FewerLabels, build_stages
from adaptkit.compare.driver import compare, open_study
from adaptkit.compare.fixed import read_fixed
from adaptkit.compare.plan import keep_plan, make_plan
from adaptkit.compare.predict import wall_seconds
from adaptkit.compare.quickstart import quickstart_config
from adaptkit.compare.speed import _work_seconds
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import plan_path
from adaptkit.errors import BudgetError, ConfigError
from adaptkit.study.arms import Origin
from adaptkit.study.budget import BudgetConfig, grant
from adaptkit.study.forecast_record import WHOLE, Portion
from adaptkit.study.stage_record import FORECAST, PREPARE, StageKey, StageKind
from adaptkit.trainer import device

PRETRAINED = "continued+full, continued+probe, scratch+full, tapt+full, placebo+full"
PORTIONS = (Portion(compute=0.125), Portion(text=0.125, compute=0.25))
NO_LABELS = "labels: no forecast of other numbers of labels, as forecast.labels_share is 0 (0.5 is usual)"
ARMS = f"arms=[generic+prompt, generic+lora, {PRETRAINED}]"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return folder


def stages_of(config, portions=()):
    budget = grant(
        config.budget,
        flops_per_token=1.0,
        flops_per_second=1.0,
        num_seeds=config.seeds,
        has_tasks=bool(config.tasks),
    )
    return build_stages(config, budget, portions)


def test_every_need_is_an_earlier_stage(texts):
    seen: set[StageKey] = set()
    for stage in stages_of(study_config(texts, ARMS, "budget.trials=2"), PORTIONS):
        assert set(stage.needs) <= seen, stage.name
        seen.add(stage.key)


def test_an_origin_is_trained_once_per_seed_whatever_uses_it(texts):
    keys = [stage.key for stage in stages_of(study_config(texts, ARMS))]
    assert len(keys) == len(set(keys)) == len({key.name for key in keys})
    runs = [key for key in keys if key.origin is Origin.CONTINUED and key.trial is None]
    assert [(key.seed, key.portion) for key in runs] == [(0, WHOLE), (1, WHOLE)]


def test_every_training_gets_the_same_trials_and_flops(texts):
    config = study_config(texts, ARMS, "budget.trials=3", "seeds=3")
    amount, task_share = config.budget.amount, config.budget.task_share
    trained = [stage for stage in stages_of(config) if stage.flops and stage.key.kind is not StageKind.BASE]
    by_training: dict = {}
    for stage in trained:
        by_training.setdefault((stage.key.origin, stage.key.arm), []).append(stage)
    for (origin, arm), mine in by_training.items():
        granted = amount * (1 - task_share)
        if arm is not None:
            granted = amount * (task_share if arm.origin.learns_text else 1.0)
        assert sum(stage.key.trial is not None for stage in mine) == 4, (origin, arm)
        assert sum(stage.flops for stage in mine) == pytest.approx(3 * granted), (origin, arm)
    pretrained = {Origin.CONTINUED, Origin.SCRATCH, Origin.TAPT, Origin.PLACEBO}
    assert {origin for origin, _ in by_training} == {None, *pretrained}
    assert {arm.name for _, arm in by_training if arm} == {
        "generic+lora",
        "continued+full",
        "scratch+full",
        "tapt+full",
        "placebo+full",
    }


def test_the_last_trial_waits_for_the_grid(texts):
    stages = stages_of(study_config(texts, ARMS, "budget.trials=3"))
    trials = [stage for stage in stages if stage.key.origin is Origin.SCRATCH and stage.key.trial is not None]
    assert [stage.key.trial for stage in trials] == [0, 1, 2, 3]
    assert {stage.key for stage in trials[:3]} <= set(trials[3].needs)
    assert not any(stage.key in trials[0].needs for stage in trials)
    (run, *_) = (s for s in stages if s.key.origin is Origin.SCRATCH and s.key.trial is None)
    assert {stage.key for stage in trials} <= set(run.needs)


def test_the_largest_runs_wait_for_a_prediction_and_cost_what_they_did_without_one(texts):
    config = study_config(texts, ARMS)
    stages, before = ({s.key: s for s in stages_of(config, portions)} for portions in (PORTIONS, ()))
    assert {key: stage.flops for key, stage in stages.items() if key in before} == {
        key: stage.flops for key, stage in before.items()
    }, "what is compared is paid as before"
    added = [stage for key, stage in stages.items() if key not in before]
    assert sum(stage.key == FORECAST for stage in added) == 1
    whole = stages[StageKey.for_language(Origin.SCRATCH)]
    small = {stage.key for stage in added if stage.key.origin is not None}
    assert FORECAST in whole.needs and set(stages[FORECAST].needs) == {PREPARE, *small}
    by_origin = {origin: [s for s in added if s.key.origin is origin] for origin in Origin}
    spent = {origin: sum(stage.flops for stage in mine) for origin, mine in by_origin.items() if mine}
    assert set(spent) == {Origin.CONTINUED, Origin.SCRATCH}, "others read no domain text"
    share = config.seeds * sum(portion.compute for portion in PORTIONS)
    assert list(spent.values()) == pytest.approx([share * whole.flops] * 2), "the same for every arm"
    assert FORECAST not in stages[StageKey.for_language(Origin.PLACEBO)].needs


def test_a_dry_run_names_the_smaller_trainings_in_lines_of_their_own(texts, tmp_path):
    config = study_config(texts, "forecast.share=0.9", "forecast.least_steps=8", "budget.amount=3e11")
    planned = compare(config, tmp_path, dry_run=True)
    rows = {(row["arm"], row["task"]): row["flops"] for row in planned["arms"]}
    plain = compare(study_config(texts, "budget.amount=3e11"), tmp_path, dry_run=True)
    assert plain["forecast"] == [NO_LABELS] and ("scratch", "forecast") not in {
        (row["arm"], row["task"]) for row in plain["arms"]
    }
    assert rows["scratch", "forecast"] <= 0.9 * rows["scratch", "language"]
    assert planned["forecast"][0].startswith("forecast: 4 smaller trainings")


def test_runs_with_all_labels_wait_for_what_fewer_say_of_them(texts):
    config = study_config(texts, ARMS)
    shares = tuple(Portion(labels=share) for share in (0.125, 0.25, 0.5))
    fewer = FewerLabels({"mood": shares}, lambda task, arm, portion: 1e9 * portion.labels)
    budget = grant(config.budget, flops_per_token=1, flops_per_second=1, num_seeds=2, has_tasks=True)
    stages = {stage.key: stage for stage in build_stages(config, budget, fewer_labels=fewer)}
    before = {stage.key: stage for stage in build_stages(config, budget)}
    key = StageKey.for_label_forecast("mood")
    added = [stage for stage in stages.values() if stage.key not in before]
    learning = {arm for arm in config.job_arms if arm.learns_labels}
    small = {stage.key for stage in added if stage.key != key}
    assert {stage.arm for stage in small} == learning and len(small) == 3 * config.seeds * len(learning)
    assert set(stages[key].needs) == {PREPARE, *small}
    for arm in config.arms_on(config.task("mood")):
        whole = stages[StageKey.for_task("mood", arm)]
        assert (key in whole.needs) == (arm in learning), arm.name
        assert whole.flops == before[whole.key].flops, "what is compared is paid as before"
    order = {stage: number for number, stage in enumerate(stages)}
    assert all(order[need] < order[stage.key] for stage in stages.values() for need in stage.needs)


def test_a_dry_run_lists_trainings_with_fewer_labels_and_a_resumed_study_keeps_them(texts, tmp_path):
    config = study_config(texts, "forecast.labels_share=0.9")
    planned = compare(config, tmp_path, dry_run=True)
    assert planned["forecast"][0].startswith("labels of mood: 3 trainings more of each of 3 arms and seed")
    rows = {(row["arm"], row["task"]): row["flops"] for row in planned["arms"]}
    assert 0 < rows["generic+lora", "mood, fewer labels"] < rows["generic+lora", "mood"]
    run = open_study(config, tmp_path)
    plan = keep_plan(make_plan(config, run), run.path)
    assert read_fixed(plan_path(run.path)).label_portions == plan.fixed.label_portions
    assert [portion.labels for portion in plan.fixed.label_portions["mood"]] == [0.125, 0.25, 0.5]


def test_baselines_come_before_the_base_and_every_training(texts):
    kinds = [stage.key.kind for stage in stages_of(study_config(texts, ARMS))]
    assert kinds[:2] == [StageKind.PREPARE, StageKind.BASELINE]
    assert kinds.index(StageKind.BASELINE) < kinds.index(StageKind.BASE) < kinds.index(StageKind.LANGUAGE)


def test_a_budget_too_small_for_a_schedule_is_refused_before_anything_runs(texts, tmp_path):
    config = study_config(texts, "budget.amount=1e8")
    with pytest.raises(BudgetError, match="at least 8 needed"):
        make_plan(config, open_study(config, tmp_path))


def test_a_study_over_its_total_is_refused(texts, tmp_path):
    config = study_config(texts, "budget.total=1e10")
    with pytest.raises(BudgetError, match="the limit is 1.00e\\+10"):
        make_plan(config, open_study(config, tmp_path))


def test_a_dry_run_keeps_nothing_and_a_resumed_study_its_budget_but_not_its_speed(
    texts, tmp_path, monkeypatch
):
    config = study_config(texts, "budget.unit=seconds", "budget.amount=20", "budget.task_share=0.5")
    run = open_study(config, tmp_path)
    assert compare(config, tmp_path, dry_run=True)["seconds_by_gpus"] == {}
    monkeypatch.setattr("adaptkit.compare.speed.visible_gpus", lambda: ["0", "1"])
    planned = compare(config, tmp_path, dry_run=True)
    times = list(planned["seconds_by_gpus"].values())
    assert times == sorted(times, reverse=True) and times[1] == planned["seconds_left"]
    assert list(planned["seconds_by_gpus"]) == ["1", "2", "4", "8"] and planned["machine"]["jobs"] == 2
    assert not plan_path(run.path).exists()
    first = keep_plan(make_plan(config, run), run.path)
    monkeypatch.setattr("adaptkit.compare.speed._speed", lambda *_: 1e3)
    second = keep_plan(make_plan(config, open_study(config, tmp_path)), run.path)
    assert second.budget == first.budget and second.fixed == first.fixed == read_fixed(plan_path(run.path))
    assert second.machine.flops_per_second == 1e3 != first.machine.flops_per_second
    assert second.seconds_left(set()) > 2 * first.seconds_left(set())


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
        (["forecast.share=0.5", "size.params=0"], "set size.params"),
        ("trainer.learning_rate=1e-3", "decided by the plan"),
        ("base_flops=0", "give `base`"),
        ("without=[generic]", "cannot be left out"),
        ("without=[placbo]", "did you mean 'placebo'"),
        ("tasks=[]", "'generic\\+prompt' learns a task, and there is none"),
        ("tasks.0.metric=rouge_l", "metric must be one of accuracy, macro_f1"),
        ("tasks.0.kind=clasify", "kind must be one of .*did you mean 'classify'"),
    ],
)
def test_contradictions_are_refused_with_the_reason(texts, override, what):
    with pytest.raises(ConfigError, match=what):
        study_config(texts, *([override] if isinstance(override, str) else override))


def test_dollars_are_turned_into_flops_at_the_given_price():
    price = {"usd_per_hour": 2.0, "source": "a list", "date": "2026-11-01"}
    config = BudgetConfig(amount=1.0, unit="usd", price=price)
    assert grant(
        config, flops_per_token=1, flops_per_second=10, num_seeds=1, has_tasks=False
    ).flops == pytest.approx(18_000)


def names(config, tmp_path):
    plan = make_plan(config, open_study(config, tmp_path))
    return [arm.name for arm in plan.config.parsed_arms], {
        (row.arm, row.task): row.reason for row in plan.fixed.left_out
    }


def test_arms_that_are_left_out_of_a_config_are_all_that_apply_controls_among_them(texts, tmp_path):
    arms, left_out = names(study_config(texts, "arms=[]"), tmp_path)
    assert arms[:6] == ["generic", "continued", "continued-lora", "mixed", "scratch", "placebo"]
    assert arms[6:9] == ["generic+prompt", "generic+probe", "generic+lora"]
    pretrained = ["continued+full", "mixed+full", "scratch+full", "tapt+full", "placebo+full"]
    assert arms[9:] == ["generic+full", *pretrained]
    assert left_out == {}


def test_a_study_without_tasks_has_arms_of_the_text_ledger_only(texts, tmp_path):
    arms, _ = names(study_config(texts, "arms=[]", "tasks=[]"), tmp_path)
    assert arms == ["generic", "continued", "continued-lora", "mixed", "scratch", "placebo"]


def test_what_is_not_wanted_is_named_by_arm_or_origin(texts, tmp_path):
    arms, _ = names(study_config(texts, "arms=[]", "without=[placebo, generic+prompt]"), tmp_path)
    assert "generic+prompt" not in arms and not [name for name in arms if name.startswith("placebo")]
    assert "generic+probe" in arms and "generic" in arms


def test_named_arms_are_taken_as_they_are_with_the_text_arms_that_they_start_from(texts, tmp_path):
    arms, _ = names(study_config(texts, "arms=[scratch+full, continued-lora]"), tmp_path)
    assert arms == ["generic", "scratch", "continued-lora", "scratch+full"]


def test_a_kind_of_task_that_an_arm_cannot_answer_leaves_it_out_with_the_reason(texts, tmp_path):
    rows = "".join(f'{{"prompt": "say {i}", "completion": "word {i}"}}\n' for i in range(60))
    (texts / "say.jsonl").write_text(rows)
    task = f"tasks=[{{name: say, kind: generate, max_epochs: 2, train: {{files: [{texts}/say.jsonl]}}}}]"
    arms, left_out = names(study_config(texts, "arms=[]", task), tmp_path)
    assert "generic+probe" not in arms and "generic+prompt" in arms
    assert left_out["generic+probe", None] == "probe gives no answers to tasks of kind generate"


def test_an_arm_that_the_budget_is_too_small_for_is_left_out_with_what_it_needs(texts, tmp_path):
    small = ("arms=[]", "budget.amount=1.5e10", "budget.task_share=0.1")
    arms, left_out = names(study_config(texts, *small), tmp_path)
    assert "generic+full" in arms and "continued+full" not in arms and "scratch" not in arms
    reason = left_out["continued+full", None]
    needed = float(reason.split("budget.amount=")[1])
    assert needed > 1.5e10
    arms, _ = names(study_config(texts, "arms=[]", f"budget.amount={needed * 1.01}", *small[2:]), tmp_path)
    assert "continued+full" in arms


def test_a_budget_that_trains_nothing_is_refused_even_where_arms_are_chosen(texts, tmp_path):
    with pytest.raises(BudgetError, match="at least 8 needed"):
        names(study_config(texts, "arms=[]", "budget.amount=1e6"), tmp_path)


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("tasks.0.max_length=80", "task 'mood' reads 80 tokens, and .* has 64 positions"),
        ("tasks.0.max_length=64", ""),
    ],
)
def test_more_tokens_than_a_model_has_positions_for_are_refused_with_both_numbers(
    texts, tmp_path, override, what
):
    config = study_config(texts, override)
    if not what:
        assert make_plan(config, open_study(config, tmp_path)).fixed.max_lengths == {"mood": 64}
        return
    with pytest.raises(ConfigError, match=what):
        make_plan(config, open_study(config, tmp_path))


def test_a_length_that_nobody_names_fits_itself_to_the_positions(texts, tmp_path):
    config = study_config(texts)
    assert make_plan(config, open_study(config, tmp_path)).config.tasks[0].max_length == 64
    config = study_config(texts, "size.seq_len=512", "trainer.global_batch_size=1")
    assert make_plan(config, open_study(config, tmp_path)).config.tasks[0].max_length == 256


def test_the_wall_time_of_stages_follows_what_they_need_and_how_many_run_at_once():
    first, second, third = (StageKey.for_baseline(name) for name in "abc")
    stages = [
        Stage(PREPARE, ""),
        Stage(first, "", (PREPARE,)),
        Stage(second, "", (PREPARE,)),
        Stage(third, "", (first,)),
    ]
    took = {PREPARE: 1.0, first: 2.0, second: 5.0, third: 2.0}
    assert wall_seconds(stages, lambda stage: took[stage.key], jobs=1) == 10.0
    assert wall_seconds(stages, lambda stage: took[stage.key], jobs=2) == 6.0
    assert wall_seconds(stages, lambda stage: took[stage.key], jobs=4) == 6.0, (
        "nothing starts before its needs"
    )
    assert wall_seconds(stages[1:], lambda stage: took[stage.key], jobs=2) == 5.0


def test_the_quickstart_runs_every_control_with_three_seeds(texts, tmp_path, monkeypatch):
    files = {name: texts / f"{name}.jsonl" for name in ("domain", "general")}
    corpus = SimpleNamespace(**files, functions=texts / "mood.jsonl")
    monkeypatch.setattr("adaptkit.compare.quickstart.offline_corpus", lambda *_: corpus)
    config = quickstart_config(tmp_path)
    arms, left_out = names(config, tmp_path)
    assert config.seeds == 3 and left_out == {}
    text = ["generic", "continued", "continued-lora", "scratch", "placebo"]
    jobs = ["prompt", "probe", "lora", "full"]
    pretrained = ["continued+full", "scratch+full", "placebo+full"]
    assert arms == [*text, *(f"generic+{name}" for name in jobs), *pretrained], "ten minutes hold no more"


def test_time_in_which_others_ran_is_no_work_of_a_processor_and_is_of_a_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    before = {device: _work_seconds(device, 1) for device in ("cpu", "cuda")}
    time.sleep(0.5)
    assert _work_seconds("cpu", 1) - before["cpu"] < 0.25 <= _work_seconds("cuda", 1) - before["cuda"]
    begun = time.process_time()
    while time.process_time() - begun < 0.1:
        sum(range(1000))
    assert _work_seconds("cpu", 1) - before["cpu"] >= 0.1


def test_a_machine_that_is_busy_when_a_study_is_planned_is_no_reason_for_fewer_stages_at_once(
    texts, tmp_path, monkeypatch
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: 100.0)
    monkeypatch.setattr(device, "_allowed_cores", lambda: 4.0)
    assert (device.free_cores(), device.allowed_cores()) == (1, 4)
    config = study_config(texts, "jobs=0")
    assert make_plan(config, open_study(config, tmp_path)).machine.jobs == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert device.allowed_cores() == 2
