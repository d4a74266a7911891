"""Train a language model on raw text: from scratch with a tokenizer of its own, or from a base that keeps on.

    config = load(PretrainConfig, "pretrain.yaml").config
    result = pretrain(config, Run.open("runs", config.name, config.model_dump(mode="json")))
    result.scores["bits_per_byte"], result.model_folder

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from adaptkit import models
from adaptkit.data.canaries import canary_record
from adaptkit.data.heldout import calibration_rows, held_out, split_record
from adaptkit.data.readers import Dataset
from adaptkit.data.tokenizers import tokenizer_digest
from adaptkit.models.position_scores import position_scores
from adaptkit.models.sentence.pooling_files import copy_pooling_files
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.language_scores import language_rows, language_scores
from adaptkit.pretrain.starting_point import StartingPoint, check_base, prepare, read_splits, stretch_of
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.trainer.lifecycle import Outcome, first_outputs, merge_checked, run_recipe
from adaptkit.trainer.objective import CausalLM, MaskedLM, Objective
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.steps import steps_within
from adaptkit.trainer.trainer import Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SUITE = "language"


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining left behind; `scores` are the dev scores of suite `language`."""

    model_folder: Path
    cost: dict[str, Any]
    scores: dict[str, float]
    num_steps: int
    params: int
    by_position: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of a stretched base: bits per byte in each range of positions, before and after."""

    @classmethod
    def of(cls, run: Run) -> PretrainResult:
        """Read from a finished run."""
        record = read_record(run)
        scores = record.suites[SUITE].metrics
        by_position = record.facts.get("by_position", {})
        return cls(
            run.model, read_sealed(run.cost_path), scores, record.num_steps, record.params, by_position
        )


@dataclass(frozen=True)
class _Trained:
    """A pretraining after its last step."""

    splits: dict[str, Dataset]
    start: StartingPoint
    result: TrainResult
    params: models.ParamCount


def pretrain(config: PretrainConfig, run: Run) -> PretrainResult:
    """Train a language model, merge, save and score it; a finished run is returned as it is.

    Under torchrun every rank calls this; rank 0 writes.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    run_recipe(
        config, run, partial(_train, config, run), partial(_deliver, config, run), partial(_score, config)
    )
    return PretrainResult.of(run)


def _train(config: PretrainConfig, run: Run, ranks: Ranks) -> _Trained:
    check_base(config)
    splits = read_splits(config)
    start = prepare(config, run, splits, ranks)
    trainer = config.trainer
    if config.flops:
        trainer = trainer.model_copy(update={"num_steps": affordable_steps(start.model, config)})
    objective: Objective = MaskedLM(trainer.implementation)
    if config.objective == "causal":
        objective = CausalLM(trainer.implementation)
    params = models.param_count(start.model)
    result = Trainer(start.model, objective, start.train, trainer, run=run, eval=start.dev).fit()
    return _Trained(splits, start, result, params)


def affordable_steps(model: nn.Module, config: PretrainConfig) -> int:
    """Optimizer steps that `config.flops` pays for.

    Raises: BudgetError if not even one.
    """
    rows, length = config.trainer.global_batch_size, config.size.seq_len
    per_step = models.flops_per_token(model, length).train * length * rows
    fix = "raise flops, or lower size.params or trainer.global_batch_size"
    return steps_within(config.flops, per_step, fix=fix)


def _deliver(config: PretrainConfig, run: Run, trained: _Trained) -> tuple[PreTrainedModel, float]:
    """Save the merged model and its tokenizer; the model, and how far merging moved its outputs."""
    start = trained.start
    model, difference = merge_checked(start.model, run, partial(first_outputs, source=start.dev))
    models.save(model, start.tokenizer, run.model)
    if config.base:
        copy_pooling_files(models.find(config.base), run.model)  # an embedding model still pools as it did
    return model, difference


def _score(config: PretrainConfig, trained: _Trained, delivered: tuple[PreTrainedModel, float]) -> Outcome:
    """Score the model that was saved on the dev documents."""
    model, difference = delivered
    start, splits, result, params = trained.start, trained.splits, trained.result, trained.params
    seq_len = config.size.seq_len
    rows = language_rows(model, start.tokenizer, splits["dev"], start.dev, config.objective, seq_len)
    scores = language_scores(rows, config.objective)
    record = RunRecord(
        recipe=RecipeKind.PRETRAIN,
        model_kind=ModelKind(config.objective),
        suite=SUITE,
        base=config.base,
        adapter=config.adapter.for_record(),
        seq_len=seq_len,
        splits={name: split_record(part) for name, part in splits.items()},
        canaries=canary_record(config.canaries) if config.canaries else None,
        suites={SUITE: SuiteRecord(judged_on="dev", num_items=len(rows), metrics=scores, dev=scores)},
        num_steps=result.num_steps,
        params=params.total,
        facts={
            "tokenizer": {
                "vocab_size": len(start.tokenizer),
                "added": start.added,
                "bytes_per_token": start.bytes_per_token,
                "digest": tokenizer_digest(start.tokenizer),
            },
            "replay_share": config.replay_share if config.replay else 0.0,
            "trained": params.trainable,
            "non_embedding": params.non_embedding,
            "merge_difference": difference,
            "best_step": result.best_step,
            "by_position": _by_position(config, model, trained),
        },
    )
    held, calibration = held_out(splits, with_items=False), calibration_rows(splits["train"], start.tokenizer)
    return Outcome(record, rows, result.cost(), held, calibration)


def _by_position(config: PretrainConfig, model: PreTrainedModel, trained: _Trained) -> dict[str, Any]:
    """Bits per byte in each range of positions of a stretched causal base, before and after its training."""
    if config.stretch == "none" or config.objective != "causal":
        return {}
    texts, seq_len = [row.text for row in trained.splits["dev"].rows], config.size.seq_len
    after = position_scores(model, trained.start.tokenizer, texts, seq_len=seq_len)
    base: nn.Module = models.load(config.base, "causal", stretch=stretch_of(config))
    base.to(next(model.parameters()).device)
    before = position_scores(base, models.load_tokenizer(config.base), texts, seq_len=seq_len)
    return {band: {"before": before[band], "after": after[band]} for band in after if band in before}
