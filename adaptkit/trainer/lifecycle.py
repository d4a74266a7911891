"""The life of a recipe's run: all ranks train, then rank 0 merges, saves, scores and finishes.

    run_recipe(config, run, train, deliver, score)

    train(ranks) -> trained            on every rank
    deliver(trained) -> delivered      on rank 0: saves the adapter and the merged model
    score(trained, delivered) -> Outcome, on rank 0; its items, scores, cost, kept rows and record are written

A finished run is left as it is. Only rank 0 starts, fails, finishes and writes a run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from adaptkit.adapters import has_adapter, merge, save_adapter
from adaptkit.data.heldout import Calibration, HeldOut, write_calibration, write_held_out
from adaptkit.errors import AdaptkitError, ModelError, NonFiniteError
from adaptkit.run import Run, write_json, write_jsonl, write_sealed
from adaptkit.run_lock import hold
from adaptkit.run_record import RunRecord, placed_record
from adaptkit.trainer import parallel
from adaptkit.trainer.card import write_card
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.device import send
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.row_source import Source

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

MERGE_TOLERANCE = 1e-3
"""Of float32 logits or hidden states; exact merges measure 1e-6."""
MODEL_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids")

Trained = TypeVar("Trained")
Delivered = TypeVar("Delivered")


class RecipeConfig(Protocol):
    """What all recipes' configs have in common."""

    @property
    def trainer(self) -> TrainerConfig: ...


@dataclass(frozen=True)
class Outcome:
    """What a recipe knows when it has scored its model.

    Attributes:
        record: what manifest.json says of the run; `record.suite` is the suite that was scored.
        rows: item rows of that suite, which eval/<suite>.jsonl keeps.
        dev_rows: the same of the development split, where a run keeps them: those of classifiers.
        cost: cost.json.
        held_out, calibration: rows of its data that the run keeps.
        card_lines: what the model's card says besides its record.
    """

    record: RunRecord
    rows: list[dict[str, Any]]
    cost: dict[str, Any]
    held_out: HeldOut | None = None
    calibration: Calibration | None = None
    card_lines: dict[str, str] = field(default_factory=dict)
    dev_rows: list[dict[str, Any]] = field(default_factory=list)


def run_recipe(
    config: RecipeConfig,
    run: Run,
    train: Callable[[Ranks], Trained],
    deliver: Callable[[Trained], Delivered],
    score: Callable[[Trained, Delivered], Outcome],
) -> None:
    """Take a run to its end; return at once if it has ended before.

    Under torchrun every rank calls this, and all return when rank 0 has written everything.
    Raises: AdaptkitError for anything the user can mend; the manifest then says `failed` and why.
    """
    if run.finished:
        return
    ranks = parallel.join(config.trainer.parallel)
    writes = ranks.rank == 0
    if writes:
        hold(run)
        run.start()
    try:
        trained = train(ranks)
        if writes:
            _finish(run, score(trained, deliver(trained)))
    except AdaptkitError as error:
        if writes:
            if isinstance(error, NonFiniteError):
                _keep_cost(run, error)
            run.fail(str(error))
        raise
    ranks.share(None)  # the other ranks wait here for rank 0


def _keep_cost(run: Run, error: NonFiniteError) -> None:
    """Write what a training took that diverged: as a trial it is paid for like the others."""
    error.run = run.path.name
    if error.spent is not None:
        write_sealed(run.cost_path, error.spent)


def _finish(run: Run, outcome: Outcome) -> None:
    record = placed_record(outcome.record, run)
    if record.suite:
        write_jsonl(run.items(record.suite), outcome.rows)
        scores = record.suites[record.suite].model_dump(mode="json")
        write_json(run.scores(record.suite), {"suite": record.suite, **scores})
        if outcome.dev_rows:
            write_jsonl(run.items(record.suite, "dev"), outcome.dev_rows)
    if outcome.held_out is not None:
        write_held_out(run, outcome.held_out)
    if outcome.calibration is not None:
        write_calibration(run, outcome.calibration)
    write_sealed(run.cost_path, outcome.cost)
    write_card(run, outcome.record, outcome.card_lines)
    run.finish(record=record.model_dump(mode="json"))


def largest_difference(before: Tensor, after: Tensor) -> float:
    """The largest absolute difference between two tensors."""
    return float((before - after).abs().max())


def merge_checked(
    model: PreTrainedModel | PeftModel,
    run: Run,
    outputs: Callable[[nn.Module], Tensor],
    *,
    adapter_base: str | None = None,
    distance: Callable[[Tensor, Tensor], float] = largest_difference,
    tolerance: float = MERGE_TOLERANCE,
) -> tuple[PreTrainedModel, float]:
    """Merge a trained adapter into the weights and check that the outputs stay the same.

    A model without an adapter comes back as it is.

    Args:
        outputs: what a model gives for a few inputs; compared before and after the merge.
        adapter_base: folder or hub id that the adapter stands on; the adapter is then saved in the run first.
        distance: how far two such outputs are apart; `tolerance` is the most that it may be.
    Returns: the model in evaluation mode, and how far its outputs are from those of the trained one.
    Raises: ModelError if they are further apart than rounding explains.
    """
    model = model.eval()
    if not has_adapter(model):
        return model, 0.0
    before = outputs(model)
    if adapter_base is not None:
        save_adapter(model, run.adapter, base=adapter_base)
    merged = merge(model).eval()
    difference = distance(before, outputs(merged))
    if not difference <= tolerance:
        what = f"the merged model is {difference:.2g} away from the trained one"
        fix = "set adapter.kind=lora, and please report this"
        raise ModelError(what, where=str(run.path), fix=fix)
    return merged, difference


@torch.no_grad()
def first_outputs(model: nn.Module, source: Source) -> Tensor:
    """Logits, or a bare encoder's hidden states, of the first example of a source."""
    example = source.collate([0], seed=0, epoch=0)
    inputs = {name: example[name] for name in MODEL_INPUTS if name in example}
    return model(**send(inputs, next(model.parameters()).device))[0].float()
