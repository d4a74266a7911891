"""The pretraining recipe: a domain tokenizer and model from scratch, or a base that keeps learning on the domain's text.

    config = load(PretrainConfig, "pretrain.yaml").config
    result = pretrain(config, Run.open("runs", config.name, config.model_dump(mode="json")))
    result.scores["bits_per_byte"], result.model_folder

A finished run is returned as it is; a killed one goes on from its newest checkpoint. Nothing heavy is imported until
`pretrain` is called: the command line reads schemas from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig, compute_optimal_params, default_learning_rate
from adaptkit.config import Config, Count, Magnitude
from adaptkit.data.readers import DataConfig
from adaptkit.errors import AdaptkitError, BudgetError
from adaptkit.run import Run, read_json, write_json, write_jsonl
from adaptkit.trainer.config import TrainerConfig

if TYPE_CHECKING:
    from torch import nn

__all__ = ["PretrainConfig", "PretrainResult", "SizeConfig", "TokenizerConfig", "pretrain"]

SUITE = "language"


class TokenizerConfig(Config):
    """The vocabulary of a model from scratch, or what is added to a base's."""

    kind: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    """Algorithm of a tokenizer trained on `data`; bpe is byte-level and lossless."""
    vocab_size: Count = Field(8192, gt=0)
    """Entries of a tokenizer trained on `data`; a multiple of 128 suits the hardware."""
    path: str = ""
    """From scratch only: a tokenizer folder to use instead of training one."""
    new_tokens: Count = Field(0, ge=0)
    """Continued only: entries learnt from `data` and added to the base's vocabulary, rows started at mean values."""


class PretrainConfig(Config):
    """One pretraining: which text, from which weights, how large, for how long."""

    name: str = "pretrain"
    """Name of the run, and the first part of its folder's."""
    data: DataConfig
    """Text to learn."""
    dev: DataConfig | None = None
    """Text to measure on; without it, `dev_fraction` of `data` is held out."""
    dev_fraction: Magnitude = Field(0.02, gt=0, lt=1)
    """Share of the documents of `data` held out when there is no `dev`."""
    objective: Literal["causal", "masked"] = "causal"
    """Predict the next token, or masked ones (encoders)."""
    base: str = ""
    """HF folder or hub id to keep training; empty = from scratch."""
    size: SizeConfig = SizeConfig()
    """Shape of a model from scratch, and the row length of any."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Vocabulary."""
    adapter: AdapterConfig = AdapterConfig()
    """Continued only: train these adapters instead of all weights; merged at the end."""
    replay: DataConfig | None = None
    """General text mixed in, against forgetting."""
    replay_share: Magnitude = Field(0.1, ge=0, lt=1)
    """Share of the rows that come from `replay`; not read without it."""
    flops: Magnitude = Field(0.0, ge=0)
    """Training FLOPs to spend, which sets the number of steps; 0 = `trainer.num_steps` says."""
    trainer: TrainerConfig = TrainerConfig()
    """The training loop; from scratch, `learning_rate` defaults to the rule of `default_learning_rate`."""

    @model_validator(mode="before")
    @classmethod
    def _learning_rate_by_size(cls, values: Any) -> Any:
        """Write the rule's value into the config, so that the resolved config says what was run."""
        if not isinstance(values, dict) or values.get("base"):
            return values
        trainer = values.get("trainer", {})
        if not isinstance(trainer, dict | TrainerConfig):
            return values
        given = trainer if isinstance(trainer, dict) else trainer.model_dump(exclude_unset=True)
        try:
            size = SizeConfig.model_validate(values.get("size", {}))
            rate = default_learning_rate(size.params or compute_optimal_params(float(values.get("flops") or 0)))
        except (ValueError, TypeError, AdaptkitError):
            return values  # the fields' own validation says what is wrong
        return {**values, "trainer": {"learning_rate": rate, **given}}

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        scratch = not self.base
        if scratch and self.adapter.kind != "none":
            raise ValueError("adapter needs a base; a model from scratch trains all of its weights")
        if scratch and self.tokenizer.new_tokens:
            raise ValueError("tokenizer.new_tokens extends the vocabulary of a base; from scratch, set tokenizer.vocab_size")
        if not scratch and self.tokenizer.path:
            raise ValueError("tokenizer.path is for models from scratch; a base keeps its own tokenizer")
        if scratch and self.objective == "causal" and self.tokenizer.kind == "wordpiece":
            raise ValueError("wordpiece forgets blanks, so a causal model on it cannot be scored per byte; use bpe or unigram")
        if self.replay is not None and not self.replay_share:
            raise ValueError("replay is given but replay_share is 0; set a share, or leave replay out")
        if scratch and not self.size.params and not self.flops:
            raise ValueError("a model from scratch needs size.params, or flops to choose the size by")
        return self


@dataclass(frozen=True)
class PretrainResult:
    """What a pretraining left behind; `scores` are the dev scores of suite `language`."""

    model_folder: Path
    cost: dict[str, Any]
    scores: dict[str, float]
    num_steps: int
    params: int

    @classmethod
    def of(cls, run: Run) -> PretrainResult:
        """Read from a finished run."""
        manifest = run.manifest()
        scores = read_json(run.scores(SUITE))["metrics"]
        return cls(run.model, read_json(run.cost_path), scores, manifest["num_steps"], manifest["model"]["params"])


def pretrain(config: PretrainConfig, run: Run) -> PretrainResult:
    """Run a pretraining to its end in `run`: model folder, dev scores, cost.

    Under torchrun every rank calls this; rank 0 writes.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    if run.finished:
        return PretrainResult.of(run)
    from adaptkit.trainer.parallel import join

    ranks = join(config.trainer.parallel)
    first = ranks.rank == 0
    if first:
        run.start()
    try:
        _train(config, run, ranks)
    except AdaptkitError as error:
        if first:
            run.fail(str(error))
        raise
    ranks.share(None)
    return PretrainResult.of(run)


def _train(config: PretrainConfig, run: Run, ranks: Any) -> None:
    from adaptkit import models
    from adaptkit.pretrain.start import prepare, read_text
    from adaptkit.trainer.objective import CausalLM, MaskedLM
    from adaptkit.trainer.trainer import Trainer

    text = read_text(config)
    start = prepare(config, run, text, ranks)
    trainer = config.trainer
    if config.flops:
        trainer = trainer.model_copy(update={"num_steps": affordable_steps(start.model, config)})
    objective = (CausalLM if config.objective == "causal" else MaskedLM)(trainer.implementation)
    params = models.param_count(start.model)
    result = Trainer(start.model, objective, start.train, trainer, run=run, eval=start.dev).fit()
    if ranks.rank == 0:
        _write_results(config, run, start, text, result, params)


def affordable_steps(model: nn.Module, config: PretrainConfig) -> int:
    """Optimizer steps that `config.flops` pays for.

    Raises: BudgetError if not even one.
    """
    from adaptkit import models

    rows = config.trainer.global_batch_size
    step = models.flops_per_token(model, config.size.seq_len).train * config.size.seq_len * rows
    if step > config.flops:
        what = f"one step costs {step:.2g} FLOPs, the budget is {config.flops:.2g}"
        raise BudgetError(what, where="flops", fix="raise flops, or lower size.params or trainer.global_batch_size")
    return int(config.flops // step)


def _write_results(config: PretrainConfig, run: Run, start: Any, text: Any, result: Any, params: Any) -> None:
    from adaptkit import models
    from adaptkit.adapters import merge
    from adaptkit.data.tokenizers import tokenizer_digest
    from adaptkit.models.sentence import copy_sentence_files
    from adaptkit.pretrain.language_scores import language_rows, language_scores

    model = (start.model if config.adapter.kind == "none" else merge(start.model)).eval()
    models.save(model, start.tokenizer, run.model)
    if config.base:
        copy_sentence_files(models.find(config.base), run.model)  # an embedding model still pools as it did
    rows = language_rows(model, start.tokenizer, text.dev, start.dev, config.objective, config.size.seq_len)
    scores = language_scores(rows, config.objective)
    write_jsonl(run.items(SUITE), rows)
    write_json(run.scores(SUITE), {"suite": SUITE, "metrics": scores, "num_items": len(rows), "dev": scores})
    write_json(run.cost_path, result.cost())
    run.finish(
        num_steps=result.num_steps,
        data={name: part.manifest() for name, part in text.parts().items()},
        tokenizer={
            "vocab_size": len(start.tokenizer),
            "bytes_per_token": start.bytes_per_token,
            "digest": tokenizer_digest(start.tokenizer),
        },
        model={"params": params.total, "trained": params.trainable, "non_embedding": params.non_embedding},
    )
