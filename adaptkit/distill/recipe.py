"""Train a student to answer as its teacher does, into one run directory.

    config = load(DistillConfig, "distill.yaml").config
    result = distill(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/           the student, merged and servable
    adapter/, base/  the student's adapter, if it has one, and what it stands on
    eval/<suite>.jsonl, .json   its items and scores, the teacher's scores beside them

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from adaptkit import models
from adaptkit.data.heldout import calibration_rows, held_out, split_record
from adaptkit.data.readers import Dataset
from adaptkit.data.tokenizers import bytes_per_token, tokenizer_digest
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.scores import ItemRow, suite_of
from adaptkit.distill.start import Splits, Start, check_models, prepare, read_data, teacher_kind
from adaptkit.distill.student import remove_projections
from adaptkit.models.round_trip import check_round_trip, lost_sentence
from adaptkit.models.sentence.pooling_files import copy_pooling_files
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.trainer.lifecycle import Outcome, first_outputs, merge_checked, run_recipe
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.progress import announce
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.trainer import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLED_ROWS = 200
"""Rows whose mean length stands for all."""


@dataclass(frozen=True)
class DistillResult:
    """What a distillation left behind: the student's scores, and its teacher's on the same rows where it was
    here."""

    model_folder: Path
    suite: str
    scores: dict[str, float]
    teacher: dict[str, float]
    cost: dict[str, Any]
    params: int

    @classmethod
    def of(cls, run: Run) -> DistillResult:
        """Read from a finished run."""
        record = read_record(run)
        suite = record.suites[record.suite]
        cost = read_sealed(run.cost_path)
        return cls(run.model, record.suite, suite.metrics, suite.teacher, cost, record.params)


@dataclass(frozen=True)
class _Trained:
    """A student after its last step.

    Attributes:
        num_trained: parameters that learnt.
        cost: cost.json.
    """

    text: Splits
    start: Start
    result: TrainResult
    num_trained: int
    cost: dict[str, Any]


def distill(config: DistillConfig, run: Run) -> DistillResult:
    """Teach a student, merge, save and score it; a finished run is returned as it is.

    Under torchrun every rank calls this; rank 0 writes.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    run_recipe(
        config, run, partial(_train, config, run), partial(_deliver, config, run), partial(_score, config)
    )
    return DistillResult.of(run)


def _train(config: DistillConfig, run: Run, ranks: Ranks) -> _Trained:
    kind = teacher_kind(config)
    check_models(config)
    text = read_data(config, kind)
    start = prepare(config, run, text, kind, ranks)
    if kind == "causal":
        _check_tokenizers(config, start, text["dev"], ranks)
    lesson = start.lesson
    trainer = Trainer(start.model, lesson.objective, lesson.train, config.trainer, run=run, eval=lesson.dev)
    result = trainer.fit()
    num_trained = models.param_count(start.model).trainable
    return _Trained(text, start, result, num_trained, _cost(config, start, result))


def _check_tokenizers(config: DistillConfig, start: Start, dev: Dataset, ranks: Ranks) -> None:
    """Say what share of the dev text the student's or the teacher's tokenizer cannot give back, if any.

    Raises: ModelError where that is too much for bits per byte.
    """
    tokenizers = {"student": start.tokenizer}
    if start.reference is not None:
        tokenizers["teacher"] = start.reference.tokenizer
    for role, tokenizer in tokenizers.items():
        fix = "choose models whose tokenizer works on bytes"
        share = check_round_trip(tokenizer, (row.text for row in dev.rows), where=role, fix=fix)
        if share and ranks.rank == 0:
            announce(role, {"note": lost_sentence(share)})


def _cost(config: DistillConfig, start: Start, result: TrainResult) -> dict[str, Any]:
    """What the training took, the teacher's answers before and during it included."""
    cost, asked_before = result.cost(), start.lesson.spent_flops
    per_token, extra = step_flops(config, start)
    flops = {
        "flops": cost["flops"] + asked_before,
        "teacher_flops": asked_before + result.flops * extra / per_token,
    }
    return {**cost, **flops}


def step_flops(config: DistillConfig, start: Start) -> tuple[float, float]:
    """FLOPs per token of a training step, and how much of them the student's own pass does not need."""
    length = _row_length(config, start)
    count_extra = getattr(start.lesson.objective, "extra_flops_per_token", None)
    extra = 0.0
    if count_extra:
        extra = count_extra(start.model, length)
    return models.flops_per_token(start.model, length).train + extra, extra


def _row_length(config: DistillConfig, start: Start) -> int:
    """Tokens of a typical row."""
    rows = start.lesson.train
    length = getattr(rows, "length", None)
    if length is None:
        return config.size.seq_len
    sample = random.Random(0).sample(range(len(rows)), min(SAMPLED_ROWS, len(rows)))
    return max(1, round(sum(map(length, sample)) / len(sample)))


def _deliver(config: DistillConfig, run: Run, trained: _Trained) -> tuple[PreTrainedModel, float]:
    """Save the adapter and the merged student; the student, and how far merging moved its outputs."""
    start = trained.start
    outputs = partial(first_outputs, source=start.lesson.dev)
    merged, difference = merge_checked(start.model, run, outputs, adapter_base=start.adapter_base)
    student = models.unwrap(merged)
    remove_projections(student)
    models.save(student, start.tokenizer, run.model)
    if start.kind == "encoder":
        copy_pooling_files(models.find(config.teacher), run.model, student.config.hidden_size)
    return student, difference


def _score(config: DistillConfig, trained: _Trained, delivered: tuple[PreTrainedModel, float]) -> Outcome:
    """Score the student that was saved, and its teacher on the same rows."""
    student, difference = delivered
    start, text, params = trained.start, trained.text, models.param_count(student)
    name, rows, scores = _scores(config, trained, student)
    own_base = ""
    if start.adapter_base != config.student_base:
        own_base = start.adapter_base
    record = RunRecord(
        recipe=RecipeKind.DISTILL,
        model_kind=ModelKind(start.kind),
        suite=name,
        base=config.student_base,
        teacher=config.teacher,
        adapter=config.adapter.for_record(),
        adapter_base=own_base,
        seq_len=config.size.seq_len,
        splits={split: split_record(dataset) for split, dataset in text.items()},
        suites={name: scores},
        num_steps=trained.result.num_steps,
        params=params.total,
        facts={
            "student": start.facts,
            "teacher": _teacher_facts(config, start),
            "signal": config.signal,
            "tokenizer": {
                "vocab_size": len(start.tokenizer),
                "bytes_per_token": bytes_per_token(start.tokenizer, [row.text for row in text["dev"].rows]),
                "digest": tokenizer_digest(start.tokenizer),
            },
            "trained": trained.num_trained,
            "non_embedding": params.non_embedding,
            "merge_difference": difference,
            "best_step": trained.result.best_step,
        },
    )
    held = held_out(text, with_items=start.kind == "classifier")
    return Outcome(record, rows, trained.cost, held, calibration_rows(text["train"], start.tokenizer))


def _scores(
    config: DistillConfig, trained: _Trained, student: nn.Module
) -> tuple[str, list[ItemRow], SuiteRecord]:
    """The suite's name, the student's item rows, and the scores of student and teacher."""
    start, text, seq_len = trained.start, trained.text, config.size.seq_len
    suite = suite_of(start, models.unwrap(student).config.hidden_size)
    judged_on = "dev"
    rows = dev_rows = suite.rows(student, start, text["dev"], seq_len)
    if "test" in text:
        judged_on = "test"
        rows = suite.rows(student, start, text["test"], seq_len)
    dev = {**suite.score(dev_rows), "loss": trained.result.eval_loss}
    teacher: dict[str, float] = {}
    if start.reference is not None:
        reference: nn.Module = start.reference.model
        reference.to(next(student.parameters()).device)
        teacher = suite.score(suite.rows(reference, start, text[judged_on], seq_len))
    metrics = suite.score(rows)
    record = SuiteRecord(judged_on=judged_on, num_items=len(rows), metrics=metrics, dev=dev, teacher=teacher)
    return suite.name, rows, record


def _teacher_facts(config: DistillConfig, start: Start) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": config.model_name}
    if start.reference is not None:
        facts["params"] = models.param_count(start.reference.model).total
    return facts
