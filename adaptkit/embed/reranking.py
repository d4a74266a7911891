"""Train a reranker on questions and their answers, into a folder that sentence-transformers and vLLM serve.

    result = rerank(config, Run.open("runs", config.name, config.model_dump(mode="json")))

    model/    transformers folder of a sequence classifier with one output, merged
    adapter/  the peft adapter, if any
    eval/<suite>.jsonl, .json   items and scores of both stages together, and of the first alone

A finished run is returned as it is; a killed one goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.adapters import attach
from adaptkit.data.beir import RetrievalSet, read_set, retrieval_folder, scored_split
from adaptkit.data.cut_texts import tell_cuts
from adaptkit.data.heldout import HeldOut, held_out_texts
from adaptkit.data.readers import DataConfig
from adaptkit.embed.config import Loss, RerankConfig
from adaptkit.embed.cross_encoder import CrossEncoder
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.examples import Examples, read_examples, set_of, train_and_dev
from adaptkit.embed.first_stage import FirstStage, choose_first_stage
from adaptkit.embed.objective import LocalisedContrast
from adaptkit.embed.ranking_rows import RankingRows, ranking_examples
from adaptkit.embed.recipe import EmbedResult
from adaptkit.embed.retrieval_metrics import retrieval_scores
from adaptkit.embed.rows import groups_of
from adaptkit.embed.two_stages import choose_share, read_again, two_stage_rows
from adaptkit.model_uses import Use
from adaptkit.models.capabilities import capabilities
from adaptkit.run import Run, read_jsonl, write_jsonl
from adaptkit.run_record import ModelKind, RecipeKind, RunRecord, SuiteRecord
from adaptkit.trainer.cost import affordable_steps
from adaptkit.trainer.lifecycle import Outcome, merge_checked, run_recipe
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.progress import announce
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.trainer import Trainer

SUITE = "reranking"
LOSS: Loss = "infonce"
"""Examples are read as a loss of pairs reads them."""
METRIC = "ndcg_at_10"
SPARE = 2
"""Times `depth` documents are looked at for negatives: those that are known to be right are left out."""
PROBES = 4
"""Dev questions whose scores are compared before and after the merge of an adapter."""


@dataclass(frozen=True)
class _Start:
    """What is trained, on what, and what it is measured on.

    Attributes:
        searching: FLOPs of searching by vectors before the training.
    """

    reranker: CrossEncoder
    first: FirstStage
    train: RankingRows
    dev: RankingRows
    learnt: Examples
    watched: Examples
    held_out: HeldOut
    searching: float


@dataclass(frozen=True)
class _Trained:
    """A reranker after its last step."""

    start: _Start
    result: TrainResult
    params: models.ParamCount


def rerank(config: RerankConfig, run: Run, *, suite: str = SUITE, metric: str = METRIC) -> EmbedResult:
    """Train a reranker, merge, save and score it; a finished run is returned as it is.

    Under torchrun every rank calls this; rank 0 writes.

    Args:
        suite: name of the scores under eval/.
        metric: what the first stage and the share of the reranker are chosen by.
    Raises: AdaptkitError for anything the user can mend; the run's manifest then says `failed` and why.
    """
    train, deliver = partial(_train, config, run, metric), partial(_deliver, config, run)
    run_recipe(config, run, train, deliver, partial(_score, config, suite, metric))
    return EmbedResult.of(run)


def steps_for_budget(config: RerankConfig, flops: float, epochs: float = 0) -> int:
    """Steps of a training that a budget pays for, at most so many passes over the examples (0: no matter how
    many).

    Raises: BudgetError if it does not pay for one; DataError, ModelError.
    """
    reranker = base_reranker(config)
    learnt, _ = train_and_dev(config.train, config.dev, LOSS)
    searched = set_of(learnt, None)
    found = FirstStage().candidates(searched, SPARE * config.depth)  # texts of vectors' would be as long
    source = _rows(config, reranker, learnt, searched, found)
    objective = LocalisedContrast()
    return affordable_steps(reranker.model, objective, source, config.trainer, flops, epochs=epochs)


def base_reranker(config: RerankConfig) -> CrossEncoder:
    """The base with a new head and, where one is asked for, an adapter.

    Raises: ModelError for a base that takes no head; ConfigError for more tokens than it has positions for.
    """
    base = capabilities(config.base)
    base.check(Use.CLASSIFY, config.adapter)
    chosen = "max_length" in config.model_fields_set
    length = base.fitting(config.max_length, "max_length", chosen=chosen)
    seed = config.trainer.seed
    reranker = CrossEncoder.start(config.base, length, seed)
    reranker.model = attach(reranker.model, config.adapter, seed)
    return reranker


def _train(config: RerankConfig, run: Run, metric: str, ranks: Ranks) -> _Trained:
    learnt, watched = train_and_dev(config.train, config.dev, LOSS)
    held_out = held_out_texts(text for row in watched.rows for text in row.texts)
    reranker = base_reranker(config)
    encoder = Encoder.load(config.encoder) if config.encoder else None
    if encoder is not None:
        encoder.limit(config.max_length)
    first = choose_first_stage(set_of(watched), metric, encoder)
    if ranks.rank == 0:
        announce(config.name, {"first stage": str(first)})
    train = _source(config, run, ranks, reranker, first, learnt, set_of(learnt, None), "train")
    dev = _source(config, run, ranks, reranker, first, watched, set_of(watched), "dev")
    tell_cuts({"texts": train.cut, "dev": dev.cut}, "max_length")
    params = models.param_count(reranker.model)
    trainer = Trainer(reranker.model, LocalisedContrast(), train, config.trainer, run=run, eval=dev)
    searching = 0.0 if encoder is None else encoder.flops
    start = _Start(reranker, first, train, dev, learnt, watched, held_out, searching)
    return _Trained(start, trainer.fit(), params)


def _source(
    config: RerankConfig,
    run: Run,
    ranks: Ranks,
    reranker: CrossEncoder,
    first: FirstStage,
    examples: Examples,
    searched: RetrievalSet,
    split: str,
) -> RankingRows:
    """Examples with what the first stage finds for each: searched once and kept with the run, so that a
    resumed training learns from the same."""
    path = run.negatives(split)
    if ranks.rank == 0 and not path.exists():
        found = first.candidates(searched, SPARE * config.depth)
        write_jsonl(path, ({"query": query, "found": names} for query, names in found.items()))
    ranks.share(None)
    kept = {row["query"]: row["found"] for row in read_jsonl(path)}
    return _rows(config, reranker, examples, searched, kept)


def _rows(
    config: RerankConfig,
    reranker: CrossEncoder,
    examples: Examples,
    searched: RetrievalSet,
    found: Mapping[str, Sequence[str]],
) -> RankingRows:
    groups = groups_of(examples.rows)
    rows = ranking_examples(examples.rows, searched, found, groups, config.negatives, config.depth)
    return RankingRows(rows, reranker, config.negatives)


def _deliver(config: RerankConfig, run: Run, trained: _Trained) -> float:
    """Save the adapter and the merged reranker; how far merging moved its scores."""
    reranker, rows = trained.start.reranker, trained.start.dev.examples[:PROBES]
    pairs = [(row.question, document) for row in rows for document in (row.positive, *row.negatives[:PROBES])]

    def scores(model: nn.Module) -> Tensor:
        reranker.model = model
        return torch.from_numpy(reranker.scores(pairs))

    merged, difference = merge_checked(reranker.model, run, scores, adapter_base=config.base)
    reranker.model = merged
    reranker.save(run.model)
    return difference


def _score(config: RerankConfig, suite: str, metric: str, trained: _Trained, difference: float) -> Outcome:
    """Score both stages together, and the first alone, on test data, where it is named, and on dev data."""
    start, result = trained.start, trained.result
    reranker, first, watched = start.reranker, start.first, set_of(start.watched)
    read = read_again(reranker, first, watched, config.depth)
    share = choose_share(read, watched, metric)
    dev, dev_alone = (retrieval_scores(two_stage_rows(read, watched, each)) for each in (share, 0.0))
    if result.eval_loss is not None:
        dev = {"loss": result.eval_loss, **dev}
    before = reranker.num_tokens
    rows: list[dict[str, Any]] = []
    alone: list[dict[str, Any]] = []
    if config.test is not None:
        tested = _tested(config.test)
        read = read_again(reranker, first, tested, config.depth)
        rows, alone = (two_stage_rows(read, tested, each) for each in (share, 0.0))
    tokens_per_item = (reranker.num_tokens - before) / max(1, len(rows))
    metrics = retrieval_scores(rows)
    record = RunRecord(
        recipe=RecipeKind.RERANK,
        model_kind=ModelKind.RERANKER,
        task=suite,
        suite=suite,
        base=config.base,
        adapter=config.adapter.for_record(),
        seq_len=reranker.pairs.max_length,
        splits={"train": start.learnt.record(), "dev": start.watched.record()},
        suites={suite: SuiteRecord(judged_on="test", num_items=len(rows), metrics=metrics, dev=dev)},
        num_steps=result.num_steps,
        params=models.param_count(reranker.model).total,
        facts={
            "trained": trained.params.trainable,
            "merge_difference": difference,
            "best_step": result.best_step,
            "depth": config.depth,
            "share": share,
            "first_stage": {**first.as_json(), "dev": dev_alone, "test": retrieval_scores(alone)},
        },
    )
    cost = {**result.cost(), "tokens_per_item": tokens_per_item}
    cost["flops"] += start.searching
    return Outcome(record, rows, cost, start.held_out, card_lines=_card_lines(config, first, record))


def _tested(data: DataConfig) -> RetrievalSet:
    """Test data: all documents of a retrieval set, or pairs that are searched among each other."""
    folder = retrieval_folder(data)
    if folder is None:
        return set_of(read_examples(data, LOSS))
    return read_set(folder, scored_split(folder), data.max_bytes, data.on_bad_row, data.columns)


def _card_lines(config: RerankConfig, first: FirstStage, record: RunRecord) -> dict[str, str]:
    """What a reranker's card says of its search and its training."""
    return {
        "loss": "localised contrastive estimation (arXiv 2101.08751)",
        "examples": f"{record.splits['train'].facts['examples']:,}",
        "first stage": f"{first}; its first {config.depth} documents are read again",
        "order": f"{record.facts['share']:g} of this model's score, the rest of the first stage's, each "
        "brought between 0 and 1 for a question",
    }
