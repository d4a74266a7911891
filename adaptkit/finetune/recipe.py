"""Fine-tune a base on a task, whole or with adapters, into one run directory.

    result = finetune(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/    the merged model, servable    eval/<task>.jsonl, .json  test items and scores, and dev scores
    adapter/  the peft adapter, if any      cost.json  manifest.json  metrics.jsonl  checkpoints/

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from adaptkit import models
from adaptkit.adapters import attach
from adaptkit.data.cut_texts import tell_cuts
from adaptkit.data.drawing import draw_from
from adaptkit.data.heldout import calibration_rows, held_out, split_record
from adaptkit.data.label_names import check_labels
from adaptkit.data.readers import Dataset, read
from adaptkit.data.score_table import ItemRow, Score, with_probabilities
from adaptkit.data.splitting import split
from adaptkit.data.tokenizers import with_chat_template
from adaptkit.errors import ConfigError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.tasks import TASKS, Task, load_model
from adaptkit.models.capabilities import capabilities
from adaptkit.models.control_tokens import spell_everywhere
from adaptkit.models.generation_settings import bending_settings, stop_at
from adaptkit.models.generation_settings import end_ids as ends_of
from adaptkit.models.separation import takes_padding_as_documents
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.cost import affordable_steps
from adaptkit.trainer.lifecycle import Outcome, first_outputs, merge_checked, run_recipe
from adaptkit.trainer.objective import OnePerRow
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.row_source import Source
from adaptkit.trainer.steps import steps_of_epochs
from adaptkit.trainer.trainer import Trainer

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

DEV_SHARE = 0.1
"""Of the training rows, where no dev data is named."""
NUM_EVALUATIONS = 8
MAX_EVAL_ROWS = 512
"""Dev rows looked at during training, drawn by hash; the dev scores use all of them."""


@dataclass(frozen=True)
class FinetuneResult:
    """Where a finished fine-tuning lies and what it scored."""

    model_folder: Path
    adapter_folder: Path | None
    suite: str
    scores: dict[str, float]
    dev_scores: dict[str, float]
    cost: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> FinetuneResult:
        """Read from a finished run."""
        record = read_record(run)
        suite = record.suites[record.suite]
        adapter = None
        if record.adapter is not None:
            adapter = run.adapter
        cost = read_sealed(run.cost_path)
        return cls(run.model, adapter, record.suite, suite.metrics, suite.dev, cost)


Complete = Callable[[str, Sequence[ItemRow]], list[ItemRow]]


@dataclass(frozen=True)
class _Judge:
    """How a caller has a fine-tuning scored and recorded."""

    score: Score | None
    complete: Complete | None
    facts: dict[str, Any]

    def rows(self, split: str, rows: Sequence[ItemRow]) -> list[ItemRow]:
        """Item rows as they are scored and kept."""
        if self.complete is None or not rows:
            return list(rows)
        return self.complete(split, rows)


@dataclass(frozen=True)
class _Trained:
    """A fine-tuning after its last step."""

    task: Task
    tokenizer: PreTrainedTokenizerFast
    model: PreTrainedModel | PeftModel
    splits: dict[str, Dataset]
    watched: Source
    result: TrainResult
    end_ids: list[int]
    """The tokens that its taught turns end with; none for a classifier."""
    facts: dict[str, Any]
    """For the run's record."""


def finetune(
    config: FinetuneConfig,
    run: Run,
    *,
    score: Score | None = None,
    complete: Complete | None = None,
    facts: dict[str, Any] | None = None,
) -> FinetuneResult:
    """Train, merge, save and score one fine-tuning.

    Under torchrun every rank calls this; rank 0 writes.

    Args:
        score: item rows -> metrics, in place of the task's own.
        complete: split and item rows -> the item rows that are scored and kept.
        facts: more for the run's record.
    Raises: DataError, ModelError, NonFiniteError, DiskFullError; the run is marked failed.
    """
    deliver = partial(_deliver, config, run)
    judge = partial(_score, config, _Judge(score, complete, facts or {}))
    run_recipe(config, run, partial(_train, config, run), deliver, judge)
    return FinetuneResult.of(run)


def steps_for_budget(config: FinetuneConfig, flops: float, epochs: float) -> int:
    """Steps of a fine-tuning that a budget pays for, at most so many passes over the rows.

    Raises: BudgetError if it does not pay for one; DataError, ModelError.
    """
    config = _fitting(config)
    tokenizer, train = models.load_tokenizer(config.base), read_splits(config)["train"]
    task = _task(config, tokenizer, train)
    model, _ = _trainable(config, task, tokenizer)
    return affordable_steps(model, task.objective(), task.source(train), config.trainer, flops, epochs=epochs)


def _fitting(config: FinetuneConfig) -> FinetuneConfig:
    """The config with a length that the base has positions for.

    Raises: ModelError for a base that cannot be fine-tuned so; ConfigError for a length of the user's that is
        too long.
    """
    base = capabilities(config.base)
    base.check(TASKS[config.kind].use, config.adapter)
    chosen = "max_length" in config.model_fields_set
    length = base.fitting(config.max_length, "max_length", chosen=chosen)
    return config.model_copy(update={"max_length": length})


def _train(config: FinetuneConfig, run: Run, ranks: Ranks) -> _Trained:
    config = _fitting(config)
    tokenizer = models.load_tokenizer(config.base)
    splits = read_splits(config)
    task = _task(config, tokenizer, splits["train"])
    model, new_tokens = _trainable(config, task, tokenizer)
    sources = {name: task.source(dataset) for name, dataset in splits.items()}
    tell_cuts({name: source.cut for name, source in sources.items()}, "max_length")
    watched = task.source(draw_from(splits["dev"], MAX_EVAL_ROWS))
    settings = _trainer_settings(config, len(sources["train"]))
    end_ids: list[int] = getattr(sources["train"], "end_ids", [])
    new_ends = [token for token in end_ids if token not in ends_of(model, tokenizer)]
    facts = {
        "labels": task.label_names,
        "num_truncated": {name: source.cut.num_cut for name, source in sources.items()},
        "new_tokens": len(new_tokens),
        "parameters": asdict(models.param_count(model)),
        "new_ends": tokenizer.convert_ids_to_tokens(new_ends),
        "generation_settings_left_out": bending_settings(model),
    }
    objective = task.objective()
    if isinstance(objective, OnePerRow) and ranks.device.type == "cuda" and type(ranks) is Ranks:
        # tried on the GPU: whole rows through a large model take a CPU minutes
        by_bounds = takes_padding_as_documents(ranks.place(model), task.max_length)
        objective = replace(objective, by_bounds=by_bounds)
    result = Trainer(model, objective, sources["train"], settings, run=run, eval=watched).fit()
    return _Trained(task, tokenizer, model, splits, watched, result, end_ids, facts)


def read_splits(config: FinetuneConfig) -> dict[str, Dataset]:
    """The splits train, dev and (if named) test."""
    want = TASKS[config.kind].want
    train = read(config.train, want)
    if config.dev is None:
        train, dev = split(train, DEV_SHARE, config.trainer.seed)
    else:
        dev = read(config.dev, want)
    splits = {"train": train, "dev": dev}
    if config.test is not None:
        splits["test"] = read(config.test, want)
    if train.labels:
        for part, dataset in splits.items():
            check_labels(dataset, train.labels, part)
    return splits


def _task(config: FinetuneConfig, tokenizer: PreTrainedTokenizerFast, train: Dataset) -> Task:
    """The task; a base without a chat template gets the kit's own for conversations, its markers as new
    tokens."""
    if train.kind == "messages":
        tokenizer = with_chat_template(tokenizer)
    task = TASKS[config.kind](tokenizer, train.labels, config.max_length, config.max_new_tokens)
    if config.fields:
        try:
            task.recall({"fields": config.fields})
        except ValueError as error:
            raise ConfigError(str(error), where="fields", fix="`adaptkit schema` lists the types") from None
    task.look_at(train)
    return task


def _trainable(
    config: FinetuneConfig, task: Task, tokenizer: PreTrainedTokenizerFast
) -> tuple[PreTrainedModel | PeftModel, list[int]]:
    """The model to train, and the ids of tokens that the base has no row for."""
    seed = config.trainer.seed
    model = load_model(task, tokenizer, config.base, config.adapter.quantization, seed)
    first_new = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    new_tokens = list(range(first_new, len(tokenizer)))
    if new_tokens:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer))
    adapted = attach(model, config.adapter, seed, new_tokens)
    task.start_head(adapted)
    return adapted, new_tokens


def _trainer_settings(config: FinetuneConfig, num_examples: int) -> TrainerConfig:
    settings = config.trainer
    if config.epochs:
        steps = steps_of_epochs(config.epochs, num_examples, settings.global_batch_size)
        settings = settings.model_copy(update={"num_steps": steps})
    if settings.select == "best" and not settings.eval_every:
        settings = settings.model_copy(update={"eval_every": max(1, settings.num_steps // NUM_EVALUATIONS)})
    return settings


def _deliver(config: FinetuneConfig, run: Run, trained: _Trained) -> tuple[PreTrainedModel, float]:
    """Save the adapter and the merged model; the model, and how far merging moved its outputs."""
    task = trained.task
    task.finish_head(trained.model)

    def outputs(model: nn.Module) -> torch.Tensor:
        return first_outputs(model, trained.watched) / task.scale

    model, difference = merge_checked(trained.model, run, outputs, adapter_base=config.base)
    task.settle(model, trained.splits["dev"])
    stop_at(model, trained.end_ids)
    if task.model_kind in ("classifier", "tagger"):  # all that it reads is a user's text
        spell_everywhere(trained.tokenizer)
    models.save(model, trained.tokenizer, run.model)
    return model, difference


def _score(
    config: FinetuneConfig, judge: _Judge, trained: _Trained, delivered: tuple[PreTrainedModel, float]
) -> Outcome:
    """Score the model that was saved on dev and test rows."""
    model, difference = delivered
    task, splits, result = trained.task, trained.splits, trained.result
    score = judge.score or task.score
    dev_rows = judge.rows("dev", task.rows(model, splits["dev"]))
    dev = {**score(dev_rows), "loss": _dev_loss(config, result)}
    rows, metrics = [], {}
    if "test" in splits:
        rows = judge.rows("test", task.rows(model, splits["test"]))
    if rows:
        metrics = score(rows)
    record = RunRecord(
        recipe=RecipeKind.FINETUNE,
        model_kind=ModelKind(task.model_kind),
        task=config.task,
        suite=config.task,
        base=config.base,
        adapter=config.adapter.for_record(),
        seq_len=task.max_length,
        splits={name: split_record(dataset) for name, dataset in splits.items()},
        suites={config.task: SuiteRecord(judged_on="test", num_items=len(rows), metrics=metrics, dev=dev)},
        num_steps=result.num_steps,
        params=models.param_count(model).total,
        facts={
            **trained.facts,
            **task.facts(),
            **judge.facts,
            "kind": config.kind,
            "max_new_tokens": config.max_new_tokens,
            "merge_difference": difference,
            "best_step": result.best_step,
        },
    )
    calibration = calibration_rows(splits["train"], trained.tokenizer)
    return Outcome(
        record,
        rows,
        result.cost(),
        held_out(splits, with_items=True),
        calibration,
        dev_rows=with_probabilities(dev_rows),
    )


def _dev_loss(config: FinetuneConfig, result: TrainResult) -> float:
    """Loss on the watched dev rows of the weights that were kept, nats per item."""
    losses = [row["eval_loss"] for row in result.history]
    if config.trainer.select == "best":
        return min(losses)
    return losses[-1]
