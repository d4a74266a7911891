"""Model and objective as one module, so that DDP and FSDP see a forward that returns the loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.trainer.objective import Batch, Objective


class LossModule(nn.Module):
    """Calls the objective on the model in the precision of the run; `objective` may be exchanged between
    steps."""

    def __init__(self, model: nn.Module, objective: Objective, dtype: torch.dtype):
        super().__init__()
        self.model, self.objective, self.dtype = model, objective, dtype

    def forward(self, batch: Batch, *, features: bool = False) -> tuple[Tensor, Any]:
        """The loss and its metrics; or the features of an objective that is trained by gradient caching."""
        device = next(iter(batch.values())).device
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            if features:
                return self.objective.features(self.model, batch)
            out = self.objective.loss(self.model, batch)
        return out.total, out.metrics
