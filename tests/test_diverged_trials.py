"""A tuning trial that diverges is the worst of its trials, paid for and told, and not the end of a study."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_results import results_of
from tiny_study import study_config, write_texts

from adaptkit.compare.assemble import study_record
from adaptkit.compare.driver import open_study
from adaptkit.compare.plan import keep_plan, make_plan
from adaptkit.compare.stages.run import run_stage
from adaptkit.errors import NonFiniteError
from adaptkit.report.caveats import diverged_rates, limits
from adaptkit.run import Run, read_json
from adaptkit.study.arms import Origin
from adaptkit.study.record import StudyRecord, TrialRecord, TuningRecord, write_study
from adaptkit.study.results import collect
from adaptkit.study.tuning import DIVERGED, check_any_ended, one_more
from adaptkit.study.verdict import judge
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.lifecycle import run_recipe
from adaptkit.trainer.trainer import Trainer

SMALL = (
    *("base_flops=4e9", "budget.amount=6e10", "trainer.global_batch_size=4", "trainer.threads=1"),
    *("tasks.0.max_epochs=2", "jobs=1", "arms=[generic+full, scratch]"),
)
WILD = 5.0
"""A rate at which the trainers of this file meet a loss that is no number."""


class Diverging(Trainer):
    """A trainer whose loss is no number from the third step on, at wild rates."""

    def _accumulate(self, batches, scale):
        losses = super()._accumulate(batches, scale)
        if self.config.learning_rate >= 1 and self.state.progress.step >= 2:
            return torch.full_like(losses, torch.nan)
        return losses


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyRecord, Path]:
    """A study of whose first trials one diverged on text and one on a task: (record, folder)."""
    texts, root = tmp_path_factory.mktemp("texts"), tmp_path_factory.mktemp("runs")
    write_texts(texts)
    config = study_config(texts, *SMALL)
    run = open_study(config, root)
    plan = keep_plan(make_plan(config, run), run.path)
    with pytest.MonkeyPatch.context() as patch:
        for recipe in ("pretrain", "finetune"):
            patch.setattr(f"adaptkit.{recipe}.recipe.Trainer", Diverging)
        for stages in ("language", "task"):
            patch.setattr(f"adaptkit.compare.stages.{stages}.grid", lambda centre, num: [1e-3, WILD])
        for stage in plan.stages:
            run_stage(run.path, stage, 1)
    record = study_record(plan, run)
    write_study(run.path, record)
    return record, run.path


def test_the_study_goes_on_with_the_rates_that_ended(finished: tuple[StudyRecord, Path]) -> None:
    record, folder = finished
    assert {tuning.title for tuning in record.tuning} == {"scratch", "generic+full on mood"}
    for tuning in record.tuning:
        first, second, third = tuning.trials
        assert (second.diverged, second.dev, second.learning_rate) == (True, DIVERGED, WILD)
        assert not first.diverged and not third.diverged and max(first.dev, third.dev) < 100
        assert tuning.rate < 1e-2
    assert judge(collect(folder)).line


def test_it_is_told_with_its_rate_and_that_it_was_the_worst(finished: tuple[StudyRecord, Path]) -> None:
    _, folder = finished
    results = collect(folder)
    worst = "diverged at a learning rate of 5: that counted as the worst of 3 trials."
    assert diverged_rates(results) == [f"Training scratch {worst}", f"Training generic+full on mood {worst}"]
    assert set(diverged_rates(results)) <= set(limits(judge(results), results))


def test_what_it_took_is_paid_for_and_what_it_left_is_said(finished: tuple[StudyRecord, Path]) -> None:
    record, folder = finished
    wild = Run(folder.parent / record.tuning[0].trials[1].run)
    cost = read_json(wild.cost_path)
    assert wild.manifest()["status"] == "failed" and cost["flops"] > 0
    assert cost["flops"] < read_json(Run(folder.parent / record.tuning[0].trials[0].run).cost_path)["flops"]
    (spend,) = [row for row in record.spends if (row.arm, row.task) == ("scratch", "language")]
    assert spend.spent < spend.granted and spend.reason == "a trial diverged before its end"


def test_a_run_that_counts_is_no_trial_and_ends_the_study_where_it_diverges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path)
    config = study_config(tmp_path, *SMALL, "budget.trials=1", "tasks=[]", "arms=[scratch]", "seeds=1")
    run = open_study(config, tmp_path / "runs")
    plan = keep_plan(make_plan(config, run), run.path)
    for stage in plan.stages:
        if stage.key.origin is Origin.SCRATCH:
            monkeypatch.setattr("adaptkit.pretrain.recipe.Trainer", Diverging)
            monkeypatch.setattr("adaptkit.compare.stages.language.grid", lambda centre, num: [WILD])
            with pytest.raises(SystemExit):
                run_stage(run.path, stage, 1)
        else:
            run_stage(run.path, stage, 1)


def test_a_run_that_diverged_keeps_its_cost_and_the_error_its_name(tmp_path: Path) -> None:
    def train(ranks: object) -> None:
        error = NonFiniteError("the loss is nan")
        error.spent = {"flops": 7.0}
        raise error

    class Config:
        trainer = TrainerConfig()

    run = Run.open(tmp_path, "wild", {"a": 1})
    with pytest.raises(NonFiniteError) as caught:
        run_recipe(Config(), run, train, lambda trained: None, lambda *_: None)  # type: ignore[arg-type, return-value]
    assert caught.value.run == run.path.name and read_json(run.cost_path)["flops"] == 7.0


def test_the_next_rate_lies_away_from_one_that_diverged() -> None:
    assert one_more([1e-3, 3e-3, 9e-3], [2.0, DIVERGED, DIVERGED]) == pytest.approx(1e-3 / 3, rel=1e-2)
    assert one_more([1e-3, 3e-3, 9e-3], [2.0, 1.0, DIVERGED]) == pytest.approx((1e-3 * 3e-3) ** 0.5, rel=1e-2)
    assert one_more([1e-3, 3e-3], [DIVERGED, DIVERGED]) == pytest.approx(1e-3 / 3, rel=1e-2)


def test_a_training_that_diverges_at_every_rate_ends_in_a_sentence() -> None:
    check_any_ended([1e-3, 3e-3], [DIVERGED, 2.0], "scratch")
    with pytest.raises(NonFiniteError, match="at every learning rate that was tried: 0.001, 3"):
        check_any_ended([3.0, 1e-3], [DIVERGED, DIVERGED], "scratch")


def test_nothing_is_said_where_every_trial_ended() -> None:
    trial = TrialRecord(run="t", learning_rate=1e-3, dev=2.0)
    tuning = TuningRecord(title="scratch", arm="scratch", task="language", trials=(trial,), rate=1e-3)
    assert diverged_rates(results_of({"scratch": [1.8, 1.8]}, tuning=(tuning,))) == []
