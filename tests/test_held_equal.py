"""What a study says that it holds equal is true of a finished one: each sentence is checked against its
runs. Home of compare.account, compare.assemble and study.spend."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tiny_study import study_config, write_texts

from adaptkit.compare.account import MOST, covered
from adaptkit.compare.assemble import study_record
from adaptkit.compare.driver import open_study
from adaptkit.compare.held_equal import held_equal
from adaptkit.compare.plan import Plan, keep_plan, make_plan
from adaptkit.compare.stages.run import run_stage
from adaptkit.compare.workspace import Workspace, result_path
from adaptkit.run import Run, read_json, read_jsonl, read_sealed
from adaptkit.run_record import RecipeKind, read_record
from adaptkit.study.arms import ARMS
from adaptkit.study.record import StudyRecord, read_study, write_study
from adaptkit.study.stage_record import RESULTS, StageKind, read_result

ARMS_RUN = "arms=[generic+prompt, generic+probe, generic+lora, generic+full, continued+full, scratch]"
SMALL = (
    "base_flops=4e9",
    "budget.amount=6e10",
    "trainer.global_batch_size=4",
    "trainer.threads=1",
    "tasks.0.max_epochs=6",
    "jobs=1",
)


@dataclasses.dataclass(frozen=True)
class Finished:
    """A study whose stages have all run."""

    plan: Plan
    path: Path
    record: StudyRecord

    @property
    def root(self) -> Path:
        return self.path.parent

    def runs_by_arm(self) -> Iterator[tuple[str, str, int | None, Run]]:
        """(arm, task, trial, run) of every language and task stage, as the stages left them."""
        for stage in self.plan.stages:
            key = stage.key
            if key.kind not in (StageKind.LANGUAGE, StageKind.TASK):
                continue
            run = Run(self.root / read_sealed(result_path(self.path, key))["run"])
            arm, task = (key.origin.value, "language") if key.origin else (key.arm.name, key.task)
            yield arm, task, key.trial, run

    def trained(self) -> list[tuple[str, str, int | None, Run]]:
        frozen = ("generic+prompt", "generic+probe")
        return [row for row in self.runs_by_arm() if row[0] not in frozen]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    texts = tmp_path_factory.mktemp("texts")
    write_texts(texts)
    config = study_config(texts, ARMS_RUN, *SMALL)
    run = open_study(config, texts / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    for stage in plan.stages:
        run_stage(run.path, stage, 1)
    record = study_record(plan, run)
    write_study(run.path, record)
    return Finished(plan, run.path, record)


def test_the_flops_of_all_runs_add_up_to_the_grant_or_what_is_unspent_is_told(study: Finished) -> None:
    """Every cost.json that a stage left, summed by arm and task; seeds share the trials."""
    spent: dict[tuple[str, str], float] = {}
    for arm, task, _, run in study.runs_by_arm():
        spent[arm, task] = spent.get((arm, task), 0.0) + read_sealed(run.cost_path)["flops"]
    num_seeds, budget = study.plan.budget.num_seeds, study.plan.budget
    told = {(row.arm, row.task): row for row in study.record.spends}
    assert told.keys() == spent.keys() | {("generic", "language")}
    for (arm, task), flops in spent.items():
        row, origin = told[arm, task], ARMS[arm].origin
        text = spent[origin.value, "language"] if task != "language" and origin.learns_text else 0.0
        assert row.spent == pytest.approx((flops + text) / num_seeds), (arm, task)
        assert row.granted == (budget.text if task == "language" else budget.flops)
        assert row.spent <= row.granted, (arm, task)
        assert row.spent >= MOST * row.granted or row.reason, (arm, task)
    reasons = {name: row.reason for (name, task), row in told.items() if task != "language"}
    assert reasons["continued+full"] == "", "it can spend everything"
    capped = "max_epochs: 6 passes over the rows were made"
    assert reasons["generic+full"] == reasons["generic+lora"] == capped
    assert "trains nothing" in reasons["generic+prompt"] and "trains nothing" in reasons["generic+probe"]
    assert told["continued", "language"].reason == told["scratch", "language"].reason == ""


def test_scoring_candidates_is_counted_once(study: Finished) -> None:
    from adaptkit.study.spend import charge_scoring

    for arm, _, _, run in study.trained():
        cost = read_sealed(run.cost_path)
        assert 0 < cost["scoring_flops"] < cost["flops"], arm
    charge_scoring(run, 1e9)
    assert read_sealed(run.cost_path) == cost


def test_every_arm_tries_the_same_number_of_settings(study: Finished) -> None:
    allowed = study.plan.budget.settings_tried
    assert study.record.budget.trials == allowed == 3
    tried: dict[tuple[str, str], set] = {}
    for arm, task, trial, _ in study.trained():
        if trial is not None:
            tried.setdefault((arm, task), set()).add(trial)
    assert {len(trials) for trials in tried.values()} == {allowed} and len(tried) == 5
    assert {(row.arm, row.task): len(row.trials) for row in study.record.tuning} == dict.fromkeys(tried, 3)
    for arm, task, _, run in study.runs_by_arm():
        if arm in ("generic+prompt", "generic+probe"):
            assert len(read_json(run.scores(task))["trials"]) == allowed


def test_rates_lie_around_the_arms_own_size_and_the_run_takes_the_best_corrected(study: Finished) -> None:
    for row in study.record.tuning:
        rates = [trial.learning_rate for trial in row.trials]
        assert rates[1] / rates[0] == pytest.approx(3.0, rel=0.02)
        best = min(row.trials[:2], key=lambda trial: trial.dev).learning_rate
        assert rates[2] == pytest.approx(best * 3 if best == rates[1] else best / 3, rel=0.02)
        chosen = min(row.trials, key=lambda trial: trial.dev).learning_rate
        assert 0.4 * chosen < row.rate < chosen, "a run is longer than a trial"


def test_all_arms_but_those_from_scratch_start_from_the_same_base(study: Finished) -> None:
    workspace = Workspace(study.path)
    for arm, task, _, run in study.trained():
        base = read_record(run).base
        if arm == "scratch":
            assert base == ""
        elif task == "language" or arm.startswith("generic"):
            assert workspace.folder(base) == workspace.base_folder, arm
        else:
            made = [workspace.language(ARMS[arm].origin, seed).model for seed in study.record.seeds]
            assert workspace.folder(base) in [workspace.folder(str(model)) for model in made], arm


def test_all_arms_read_and_are_scored_on_as_many_tokens(study: Finished) -> None:
    length = study.plan.config.tasks[0].max_length
    assert length == 64
    for arm, task, _, run in study.trained():
        assert read_record(run).seq_len == (64 if task == "language" else length), arm
    for run in study.root.glob("score-*"):
        assert yaml.safe_load(Run(run).config_path.read_text())["seq_len"] == 64


def test_all_arms_of_a_ledger_answer_the_same_items(study: Finished) -> None:
    items: dict[str, set] = {}
    for score in study.record.scores:
        ids = tuple(sorted(row["id"] for row in read_jsonl(Run(study.root / score.run).items(score.suite))))
        items.setdefault(score.task, set()).add(ids)
    assert items.keys() == {"language", "mood"} and all(len(ids) == 1 for ids in items.values())


def test_every_arm_is_trained_with_the_same_seeds(study: Finished) -> None:
    seeds: dict[tuple[str, str], set] = {}
    for arm, task, trial, run in study.trained():
        seed = yaml.safe_load(run.config_path.read_text())["trainer"]["seed"]
        if trial is not None:
            assert seed == 0, "trials run on the first seed"
        seeds.setdefault((arm, task), set()).add(seed)
    assert set(map(frozenset, seeds.values())) == {frozenset(study.record.seeds)}


def test_the_sentences_name_the_numbers_that_hold(study: Finished) -> None:
    config, budget = study.plan.config, study.plan.budget
    text = " ".join(study.record.budget.held_equal)
    for words in (
        "6e+10 FLOPs per task and seed",
        "3 settings are tried",
        "64 on mood",
        "rows of 64 tokens",
        "same 2 seeds",
    ):
        assert words in text, words
    alone = held_equal(
        config.model_copy(update={"seeds": 1, "tasks": []}), dataclasses.replace(budget, trials=1)
    )
    assert "one setting is tried" in " ".join(alone) and "each arm has one seed" in alone
    assert not any("on tasks" in sentence for sentence in alone)


def test_text_arms_are_scored_on_text_and_job_arms_on_tasks(study: Finished) -> None:
    ledger = {arm.name: arm.ledger for arm in study.record.arms}
    assert ledger["generic"] == ledger["continued"] == "text" and ledger["continued+full"] == "jobs"
    for score in study.record.scores:
        assert (ledger[score.arm] == "text") == (score.task == "language"), score.arm
    assert {ledger[row.arm] for row in study.record.forgetting} == {"text"}
    assert study.record.primary == "mood"
    assert read_study(study.path) == study.record


def test_baselines_are_ready_before_any_model(study: Finished) -> None:
    results = {
        s.key: read_result(result_path(study.path, s.key), RESULTS[s.key.kind]) for s in study.plan.stages
    }
    (baseline,) = (result for key, result in results.items() if key.kind is StageKind.BASELINE)
    assert baseline.metric == "accuracy" and 0 <= baseline.score <= 1
    assert read_record(Run(study.root / baseline.run)).recipe is RecipeKind.BASELINE
    later = [result.ended for key, result in results.items() if key.kind is not StageKind.PREPARE]
    assert baseline.ended == min(later)


def test_what_was_predicted_stands_beside_what_it_took(study: Finished) -> None:
    plan = study.record.plan
    assert {kind.kind for kind in plan.kinds} == {kind.value for kind in StageKind} - {"forecast"}
    assert plan.predicted_seconds > 0 and sum(kind.num_stages for kind in plan.kinds) == len(
        study.plan.stages
    )
    assert plan.taken_seconds == pytest.approx(sum(kind.taken_seconds for kind in plan.kinds), rel=0.1)


def test_time_that_a_study_lay_still_does_not_count() -> None:
    assert covered([(0.0, 2.0), (1.0, 3.0), (10.0, 11.0)]) == 4.0
    assert covered([(0.0, 5.0), (1.0, 2.0)]) == 5.0 and covered([]) == 0.0
