"""The pretraining recipe: a domain tokenizer and model from scratch, or a base that keeps learning on the
domain's text.

    config = load(PretrainConfig, "pretrain.yaml").config
    result = pretrain(config, Run.open("runs", config.name, config.model_dump(mode="json")))
    result.scores["bits_per_byte"], result.model_folder

A finished run is returned as it is; a killed one goes on from its newest checkpoint. Nothing heavy is
imported until `pretrain` is called: the command line reads schemas from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.errors import AdaptkitError, BudgetError
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, read_json, write_json, write_jsonl

if TYPE_CHECKING:
    from torch import nn

SUITE = "language"


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
        return cls(
            run.model, read_json(run.cost_path), scores, manifest["num_steps"], manifest["model"]["params"]
        )


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
        raise BudgetError(
            what, where="flops", fix="raise flops, or lower size.params or trainer.global_batch_size"
        )
    return int(config.flops // step)


def _write_results(config: PretrainConfig, run: Run, start: Any, text: Any, result: Any, params: Any) -> None:
    from adaptkit import models
    from adaptkit.adapters import merge
    from adaptkit.data.tokenizers import tokenizer_digest
    from adaptkit.models.folder import copy_sentence_files
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
