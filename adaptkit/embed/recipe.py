"""Train an encoder on pairs, scores or plain text, into a folder that sentence-transformers and vLLM serve.

    result = embed(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/    sentence-transformers and transformers folder, merged
    adapter/  the peft adapter, if any
    eval/<suite>.jsonl, .json   items and scores

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.data.drawing import draw_hash
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.examples import FROM_TEXT
from adaptkit.embed.scores import rows_of_data, rows_of_examples, scores_of
from adaptkit.embed.start import Start, prepare
from adaptkit.run import Run, read_sealed
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord, read_record
from adaptkit.trainer.lifecycle import Outcome, merge_checked, run_recipe
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.trainer import Trainer

SUITE = "retrieval"
MERGE_TOLERANCE = 1e-4
"""Cosine distance between vectors before and after merging an adapter; exact merges measure 1e-7."""
PROBES = 8
"""Dev examples whose vectors are compared before and after the merge."""


@dataclass(frozen=True)
class EmbedResult:
    """Where a finished training lies and what it scored."""

    model_folder: Path
    adapter_folder: Path | None
    suite: str
    scores: dict[str, float]
    dev_scores: dict[str, float]
    cost: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> EmbedResult:
        """Read from a finished run."""
        record = read_record(run)
        suite = record.suites[record.suite]
        adapter = None
        if record.adapter is not None:
            adapter = run.adapter
        return cls(run.model, adapter, record.suite, suite.metrics, suite.dev, read_sealed(run.cost_path))


@dataclass(frozen=True)
class _Trained:
    """An encoder after its last step."""

    start: Start
    result: TrainResult
    params: models.ParamCount


def embed(config: EmbedConfig, run: Run, *, suite: str = SUITE) -> EmbedResult:
    """Train an encoder, merge, save and score it; a finished run is returned as it is.

    Under torchrun every rank calls this; rank 0 writes.

    Args:
        suite: name of the scores under eval/.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    run_recipe(
        config,
        run,
        partial(_train, config, run),
        partial(_deliver, config, run),
        partial(_score, config, suite),
    )
    return EmbedResult.of(run)


def _train(config: EmbedConfig, run: Run, ranks: Ranks) -> _Trained:
    start = prepare(config, run, ranks)
    params = models.param_count(start.encoder.model)
    trainer = Trainer(start.model, start.objective, start.train, config.trainer, run=run, eval=start.dev)
    return _Trained(start, trainer.fit(), params)


def _deliver(config: EmbedConfig, run: Run, trained: _Trained) -> float:
    """Save the adapter and the merged encoder; how far merging moved its vectors."""
    encoder = trained.start.encoder
    judges = heapq.nsmallest(PROBES, trained.start.watched.rows, key=lambda row: draw_hash(row.texts[0]))
    probe = [text for row in judges for text in row.texts]

    def vectors(model: nn.Module) -> Tensor:
        encoder.model = model
        return torch.from_numpy(encoder.encode(probe))

    merged, difference = merge_checked(
        encoder.model,
        run,
        vectors,
        adapter_base=config.base,
        distance=_largest_cosine_distance,
        tolerance=MERGE_TOLERANCE,
    )
    encoder.model = merged
    encoder.save(run.model)
    return difference


def _largest_cosine_distance(before_ND: Tensor, after_ND: Tensor) -> float:
    return float(1 - (before_ND * after_ND).sum(1).min())


def _score(config: EmbedConfig, suite: str, trained: _Trained, difference: float) -> Outcome:
    """Score the encoder that was saved on test data, where it is named, and on dev data."""
    start, result, encoder = trained.start, trained.result, trained.start.encoder
    test: list[dict[str, Any]] = []
    if config.test is not None:
        test = rows_of_data(encoder, config.test, config.loss, start.learnt.scale)
    dev = scores_of(rows_of_examples(encoder, start.watched, config.loss))
    if result.eval_loss is not None:
        dev = {"loss": result.eval_loss, **dev}
    record = RunRecord(
        recipe=RecipeKind.EMBED,
        model_kind=ModelKind.ENCODER,
        task="" if config.loss in FROM_TEXT else suite,
        suite=suite,
        base=config.base,
        adapter=config.adapter.for_record(),
        seq_len=encoder.layout.max_length,
        splits={"train": start.learnt.record(), "dev": start.watched.record()},
        suites={suite: SuiteRecord(judged_on="test", num_items=len(test), metrics=scores_of(test), dev=dev)},
        num_steps=result.num_steps,
        params=models.param_count(encoder.model).total,
        facts={
            "loss": config.loss,
            "trained": trained.params.trainable,
            "merge_difference": difference,
            "best_step": result.best_step,
        },
    )
    card_lines = _card_lines(config, encoder, record)
    return Outcome(record, test, result.cost(), start.held_out, card_lines=card_lines)


def _card_lines(config: EmbedConfig, encoder: Encoder, record: RunRecord) -> dict[str, str]:
    """What an encoder's card says of its vectors and its training."""
    layout = encoder.layout
    prompts = "; ".join(f"{name}: `{words}`" for name, words in layout.prompts.items())
    return {
        "loss": config.loss,
        "examples": f"{record.splits['train'].facts['examples']:,}",
        "vectors": f"{encoder.width} numbers, {layout.pooling} of the token states, unit length",
        "sizes": ", ".join(map(str, layout.dimensions)) or str(encoder.width),
        "prompts": prompts or "none",
    }
