"""The student as it is served: its adapter saved and merged, what only training needed taken off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from adaptkit import models
from adaptkit.adapters import merge, save_adapter
from adaptkit.distill.depth import without_projections
from adaptkit.errors import ModelError
from adaptkit.trainer.device import send
from adaptkit.trainer.objective import model_inputs

if TYPE_CHECKING:
    from adaptkit.distill.start import Start
    from adaptkit.run import Run

MERGE_TOLERANCE = 1e-3
"""Of float32 logits or hidden states; exact merges measure 1e-6."""


def delivered(start: Start, run: Run) -> tuple[nn.Module, float]:
    """Save the student (and its adapter); it, and how far its outputs are from those of the model that was
    trained.

    Raises: ModelError if they are further apart than rounding explains.
    """
    model, difference = start.model.eval(), 0.0
    if start.base:
        before = _outputs(model, start)
        save_adapter(model, run.adapter, base=start.base)
        model = merge(model).eval()
        difference = float((_outputs(model, start) - before).abs().max())
        if not difference <= MERGE_TOLERANCE:
            what = f"the merged student is {difference:.2g} away from the trained one"
            raise ModelError(what, where=str(run.path), fix="set adapter.kind=lora, and please report this")
    model = without_projections(model)
    models.save(model, start.tokenizer, run.model)
    return model, difference


@torch.no_grad()
def _outputs(model: nn.Module, start: Start) -> Tensor:
    """Logits, or an encoder's hidden states, of the first dev row."""
    row = model_inputs(start.dev.collate([0], seed=0, epoch=0))
    known = {
        name: row[name]
        for name in row
        if name in ("input_ids", "attention_mask", "position_ids", "token_type_ids")
    }
    return model(**send(known, next(model.parameters()).device))[0].float()
