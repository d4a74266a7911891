"""Fine-tune a base on a task: full or with adapters, into one run directory.

result = finetune(config, Run.open("runs", config.name, config.model_dump(mode="json")))

model/  the merged model, servable      eval/<task>.jsonl, .json  test items and scores, dev scores beside
them adapter/  the peft adapter, if any      cost.json  manifest.json  metrics.jsonl  checkpoints/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.adapters import attach, merge, save_adapter
from adaptkit.errors import AdaptkitError, ModelError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.trainer.config import TrainerConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from adaptkit.data import Dataset
    from adaptkit.finetune.tasks import Score, Task
    from adaptkit.trainer.result import TrainResult

DEV_SHARE = 0.1  # of the training rows, where no dev data is named
NUM_EVALUATIONS = 8
MAX_EVAL_ROWS = 512  # dev rows looked at during training; the dev scores use all of them
MERGE_TOLERANCE = 1e-3  # of float32 logits; exact merges measure 1e-6


@dataclass(frozen=True)
class FinetuneResult:
    """Where a finished fine-tuning lies and what it scored."""

    model_folder: Path
    adapter_folder: Path | None
    suite: str
    metrics: dict[str, float]
    dev: dict[str, float]
    cost: dict[str, Any] = field(default_factory=dict)


def finetune(config: FinetuneConfig, run: Run, *, score: Score | None = None) -> FinetuneResult:
    """Train, merge, save and score; a finished run is returned as it is and a killed one goes on.

    Args:
        score: item rows -> metrics, in place of the task's own (accuracy and macro-F1; exact match for sft).
    Raises: DataError, ModelError, NonFiniteError, DiskFullError; the run is marked failed.
    """
    if not run.finished:
        run.start()
        try:
            _finetune(config, run, score)
        except AdaptkitError as error:
            run.fail(str(error))
            raise
    suite = read_json(run.scores(config.task))
    adapter = run.adapter if config.adapter.kind != "none" else None
    return FinetuneResult(
        run.model, adapter, config.task, suite["metrics"], suite["dev"], read_json(run.cost_path)
    )


def steps_for_budget(config: FinetuneConfig, flops: float, epochs: float) -> int:
    """Steps of a fine-tuning that a budget pays for, at most so many passes over the rows.

    Raises: BudgetError if it does not pay for one; DataError, ModelError.
    """
    from adaptkit import models
    from adaptkit.trainer.cost import affordable_steps

    tokenizer, train = models.load_tokenizer(config.base), _read(config)["train"]
    task = _task(config, tokenizer, train)
    model, _ = _trainable(config, task, tokenizer)
    return affordable_steps(model, task.objective(), task.source(train), config.trainer, flops, epochs=epochs)


def _finetune(config: FinetuneConfig, run: Run, score: Score | None) -> None:
    from adaptkit import models
    from adaptkit.trainer.trainer import Trainer

    tokenizer = models.load_tokenizer(config.base)
    data = _read(config)
    task = _task(config, tokenizer, data["train"])
    model, new_tokens = _trainable(config, task, tokenizer)
    sources = {name: task.source(dataset) for name, dataset in data.items()}
    watched = task.source(data["dev"].with_rows(data["dev"].rows[:MAX_EVAL_ROWS]))
    settings = _trainer_settings(config, len(sources["train"]))
    run.update_manifest(
        data={name: dataset.manifest() for name, dataset in data.items()},
        num_truncated={name: source.num_truncated for name, source in sources.items()},
        labels=task.label_names,
        parameters=vars(models.param_count(model)),
        new_tokens=len(new_tokens),
    )
    trainer = Trainer(model, task.objective(), sources["train"], settings, run=run, eval=watched)
    result = trainer.fit()
    if trainer.ranks.rank == 0:
        write_json(run.cost_path, result.cost())
        merged, difference = _delivered(config, run, model, tokenizer, watched.collate([0], seed=0, epoch=0))
        _score(config, run, task, merged, data, score or task.score, _dev_loss(config, result))
        run.finish(merge_difference=difference, best_step=result.best_step)
    trainer.ranks.share(None)  # the other ranks return when the files are there


def _read(config: FinetuneConfig) -> dict[str, Dataset]:
    """The splits train, dev and (if named) test."""
    from adaptkit.data import read, split
    from adaptkit.finetune.tasks import TASKS

    want = TASKS[config.kind].want
    train = read(config.train, want)
    if config.dev is None:
        train, dev = split(train, DEV_SHARE, config.trainer.seed)
    else:
        dev = read(config.dev, want)
    return {"train": train, "dev": dev} | ({"test": read(config.test, want)} if config.test else {})


def _task(config: FinetuneConfig, tokenizer: PreTrainedTokenizerFast, train: Dataset) -> Task:
    """The task; a base without a chat template gets the kit's own for conversations, its markers as new
    tokens."""
    from adaptkit.data.tokenizers import CHAT_TEMPLATE, TURNS
    from adaptkit.finetune.tasks import TASKS

    if train.kind == "messages" and not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
        tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
    return TASKS[config.kind](tokenizer, train, config.max_length, config.max_new_tokens)


def _trainable(
    config: FinetuneConfig, task: Task, tokenizer: PreTrainedTokenizerFast
) -> tuple[Any, list[int]]:
    """The model to train, and the ids of tokens that the base has no row for."""
    import torch

    from adaptkit.finetune.tasks import load_model

    seed = config.trainer.seed
    model = load_model(task, tokenizer, config.base, config.adapter.quantization, seed)
    known = model.get_input_embeddings().num_embeddings
    new_tokens = list(range(known, len(tokenizer)))
    if new_tokens:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model.resize_token_embeddings(len(tokenizer))
    return attach(model, config.adapter, seed, new_tokens), new_tokens


def _trainer_settings(config: FinetuneConfig, num_examples: int) -> TrainerConfig:
    settings = config.trainer
    if config.epochs:
        steps = max(1, round(config.epochs * num_examples / settings.global_batch_size))
        settings = settings.model_copy(update={"num_steps": steps})
    if settings.select == "best" and not settings.eval_every:
        settings = settings.model_copy(update={"eval_every": max(1, settings.num_steps // NUM_EVALUATIONS)})
    return settings


def _delivered(
    config: FinetuneConfig, run: Run, model: Any, tokenizer: PreTrainedTokenizerFast, probe: dict[str, Any]
) -> tuple[PreTrainedModel, float]:
    """Save the adapter, merge it, save the merged model; returns it and how far its outputs are from the
    trained model's.

    Raises: ModelError if they are further apart than rounding explains.
    """
    import torch

    from adaptkit import models

    inputs = {name: value.to(model.device) for name, value in probe.items() if name != "labels"}
    with torch.no_grad():
        before = model.eval()(**inputs).logits.float()
        if config.adapter.kind != "none":
            save_adapter(model, run.adapter, base=config.base)
        merged = merge(model).eval()
        difference = float((merged(**inputs).logits.float() - before).abs().max())
    if not difference <= MERGE_TOLERANCE:
        what = f"the merged model is {difference:.2g} away from the trained one"
        raise ModelError(what, where=str(run.path), fix="use kind: lora, and please report this")
    models.save(merged, tokenizer, run.model)
    return merged, difference


def _score(
    config: FinetuneConfig,
    run: Run,
    task: Task,
    model: PreTrainedModel,
    data: dict[str, Dataset],
    score: Score,
    dev_loss: float,
) -> None:
    """Score what is served: the merged model."""
    dev = {**score(task.rows(model, data["dev"])), "loss": dev_loss}
    rows = task.rows(model, data["test"]) if "test" in data else []
    write_jsonl(run.items(config.task), rows)
    metrics = score(rows) if rows else {}
    write_json(
        run.scores(config.task),
        {"suite": config.task, "metrics": metrics, "num_items": len(rows), "dev": dev},
    )


def _dev_loss(config: FinetuneConfig, result: TrainResult) -> float:
    """Loss on the watched dev rows of the weights that were kept, nats per item."""
    losses = [row["eval_loss"] for row in result.history]
    return min(losses) if config.trainer.select == "best" else losses[-1]
