"""What trainings, scorings and answers cost before they run, and how long stages take. Home of
compare.predict, compare.settles, compare.speed, study.base_model and study.task_size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_asked_answers import API
from tiny_embed import bert
from tiny_study import study_config, write_texts

from adaptkit.compare.costs import Costs, text_sizes
from adaptkit.compare.predict import SEARCH_S_PER_SCORE, START_S, Predictor
from adaptkit.compare.settles import settled_by
from adaptkit.compare.speed import Machine
from adaptkit.compare.stage import Stage
from adaptkit.study.arms import ARMS, Arm, Origin
from adaptkit.study.base_model import base_shape, max_lengths
from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import Portion
from adaptkit.study.stage_record import BASE, PREPARE, TOKENIZER, StageKey
from adaptkit.study.task_size import TaskSize

MACHINE = Machine(flops_per_token=8e5, flops_per_second=1e9, bytes_per_second=1e6, memory_bytes=1e8, jobs=1)
BUDGET = Budget(1e11, 7e10, 3, 0.1, 2)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    folder: Path = tmp_path_factory.mktemp("texts")
    write_texts(folder)
    return study_config(folder, "arms=[generic+prompt, generic+full, generic+probe, continued+full, scratch]")


@pytest.fixture(scope="module")
def costs(config: StudyConfig) -> Costs:
    shape, kind = base_shape(config)
    tasks = [t.model_copy(update={"max_length": max_lengths(config, shape)[t.name]}) for t in config.tasks]
    sizes = {task.name: task.task_kind.size(task) for task in tasks}
    return Costs(config, shape, kind, text_sizes(config), sizes)


def test_sizes_are_those_of_the_files(config: StudyConfig, costs: Costs) -> None:
    texts, mood = costs.texts, costs.tasks["mood"]
    assert texts.dev == pytest.approx(0.05 * texts.domain)
    assert texts.test == pytest.approx(0.1 * (texts.domain + texts.general)) and texts.num_test == 30
    assert (mood.num_rows, mood.num_items, mood.batch_rows, mood.num_documents) == (240, 24, 8, 0)
    assert mood.dev_tokens == pytest.approx(0.2 * 240 * mood.row_tokens)
    few = config.domain.model_copy(update={"test_items": 7, "dev_items": 3})
    fewer = text_sizes(config.model_copy(update={"domain": few}))
    assert fewer.num_test == 7 and fewer.dev == pytest.approx(texts.dev * 3 / 15)


def test_a_step_costs_six_flops_per_weight_and_token_of_a_tiny_model(costs: Costs) -> None:
    tokens = 64 * 8
    per_token = costs.text_step(Origin.CONTINUED) / tokens
    assert 5 * costs.params(Origin.GENERIC) < per_token < 8 * costs.params(Origin.GENERIC)
    assert (
        costs.text_step(Origin.SCRATCH)
        == costs.text_step(Origin.PLACEBO)
        == costs.text_step(Origin.CONTINUED)
    )
    assert costs.text_step(Origin.CONTINUED_LORA) != costs.text_step(Origin.CONTINUED)
    assert costs.text_step(Origin.DISTILLED) < 2 * costs.text_step(Origin.CONTINUED)
    assert costs.params(Origin.DISTILLED) < costs.params(Origin.GENERIC)


def test_scoring_reads_development_text_twice_and_windows_that_overlap_once_more(costs: Costs) -> None:
    dev_tokens, step_tokens = costs.texts.dev / 3, 64 * 8
    forward = costs.text_step(Origin.SCRATCH) / step_tokens / 3
    assert costs.text_scoring(Origin.SCRATCH) == pytest.approx(3 * dev_tokens * forward)
    assert costs.text_answers(Origin.SCRATCH) == pytest.approx(2 * costs.texts.test / 3 * forward)


def test_a_prompt_pays_for_every_trial_and_a_probe_for_the_training_rows(
    config: StudyConfig, costs: Costs
) -> None:
    task = config.tasks[0]
    prompt, probe = ARMS["generic+prompt"], ARMS["generic+probe"]
    assert costs.frozen(task, prompt, 4) > 3 * costs.frozen(task, prompt, 1) * 0.9
    assert costs.frozen(task, probe, 4) == costs.frozen(task, probe, 1) > costs.task_answers(task, probe)
    assert costs.task_scoring(task, probe, tuning=False) == pytest.approx(
        4.5 * costs.task_scoring(task, probe, tuning=True)
    )
    assert costs.task_steps_at_most(task, Arm.parse("generic+full")) == 3 * 240 / 8


def predictor(config: StudyConfig, costs: Costs) -> Predictor:
    return Predictor(config, MACHINE, BUDGET, costs)


def test_a_stage_takes_its_flops_at_the_measured_speed_and_what_is_beside_them(
    config: StudyConfig, costs: Costs
) -> None:
    seconds = predictor(config, costs).seconds
    trial = Stage(StageKey.for_language(Origin.SCRATCH, trial=0), "", flops=7e9)
    run = Stage(StageKey.for_language(Origin.SCRATCH), "", flops=7e9)
    texts = costs.texts
    assert seconds(trial) == pytest.approx(START_S + 7.0 + texts.domain / 1e6)
    assert seconds(run) - seconds(trial) == pytest.approx(costs.text_answers(Origin.SCRATCH) / 1e9)
    continued = Stage(StageKey.for_language(Origin.CONTINUED, trial=0), "", flops=7e9)
    assert seconds(continued) - seconds(trial) == pytest.approx(texts.general / 1e6), (
        "replayed text is read too"
    )
    half = Stage(StageKey.for_language(Origin.SCRATCH, portion=Portion(text=0.5), trial=0), "", flops=7e9)
    assert seconds(trial) - seconds(half) == pytest.approx(texts.domain / 2e6)
    for key in (PREPARE, TOKENIZER, BASE, StageKey.for_baseline("mood")):
        assert seconds(Stage(key, "")) > START_S
    assert seconds(Stage(BASE, "", flops=1e10)) > 10 + seconds(Stage(BASE, ""))


def test_a_training_on_a_task_takes_no_longer_than_its_passes_over_the_rows(
    config: StudyConfig, costs: Costs
) -> None:
    seconds = predictor(config, costs).seconds
    key = StageKey.for_task("mood", ARMS["generic+full"])
    granted, plenty, more = (seconds(Stage(key, "", flops=flops)) for flops in (1e9, 1e12, 1e13))
    assert granted < plenty == more < 1e12 / 1e9


def test_probes_of_the_base_are_run_once_for_all_seeds(config: StudyConfig, costs: Costs) -> None:
    seconds = predictor(config, costs).seconds
    first, second = (
        Stage(StageKey.for_task("mood", ARMS["generic+probe"], seed=seed), "") for seed in (0, 1)
    )
    assert seconds(second) == START_S < seconds(first)


def test_a_search_counts_its_documents_and_its_ranks(config: StudyConfig, costs: Costs) -> None:
    few = TaskSize(100, 60.0, 30.0, 16, 3e4, 3e5, num_items=50, num_bytes=1e5, num_documents=1000)
    many = dataclasses.replace(few, num_documents=100_000, test_tokens=3e7)
    arm = ARMS["generic+full"]

    def took(size: TaskSize) -> float:
        sized = dataclasses.replace(costs, tasks={"mood": size})
        return predictor(config, sized).seconds(Stage(StageKey.for_task("mood", arm), "", flops=1e9))

    task = config.tasks[0]
    answers = [
        dataclasses.replace(costs, tasks={"mood": size}).task_answers(task, arm) for size in (few, many)
    ]
    ranks = 50 * 99_000 * SEARCH_S_PER_SCORE
    assert took(many) - took(few) == pytest.approx((answers[1] - answers[0]) / 1e9 + ranks)


def test_an_api_asked_with_passages_waits_for_what_is_encoded_here(
    config: StudyConfig, costs: Costs, tmp_path: Path
) -> None:
    folder = config.domain.train.files[0].rpartition("/")[0]

    def took(arm: str, *overrides: str) -> float:
        asked = study_config(Path(folder), API, "arms=[api+prompt, api+rag]", *overrides)
        searched = dataclasses.replace(costs, config=asked)
        return predictor(asked, searched).seconds(Stage(StageKey.for_task("mood", Arm.parse(arm)), ""))

    assert took("api+rag") == took("api+prompt"), "words are counted in no time"
    encoder = f"rag.encoder={bert(tmp_path / 'encoder')}"
    assert took("api+prompt", encoder) == took("api+prompt")
    flops = (took("api+rag", encoder) - took("api+rag")) * MACHINE.flops_per_second
    assert flops > costs.texts.collection / 3 * 1e4, "the whole collection"


def test_a_dry_run_says_which_difference_the_sizes_can_settle(config: StudyConfig, costs: Costs) -> None:
    language, mood = settled_by(config, costs)
    assert (language["task"], language["unit"], language["arms"]) == ("language", "bits per byte", 3)
    assert (mood["task"], mood["unit"], mood["test_items"], mood["seeds"]) == ("mood", "accuracy", 24, 2)
    assert mood["arms"] == 5, "the baseline is one of them"
    larger = {"mood": dataclasses.replace(costs.tasks["mood"], num_items=2400)}
    (_, settled) = settled_by(config, dataclasses.replace(costs, tasks=larger))
    assert settled["smallest_difference"] < mood["smallest_difference"]
