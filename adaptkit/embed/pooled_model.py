"""An encoder with what stands behind its pooling, as one module for the trainer."""

from __future__ import annotations

from typing import Any

from torch import nn

from adaptkit import models


class Tower(nn.Module):
    """A transformer and what its pooled vectors go through: Dense modules, which stay, or a decoder, which is
    thrown away.

    Called as the transformer is; `after` is for the objective to call.
    """

    def __init__(self, transformer: nn.Module, after: nn.Module):
        super().__init__()
        self.transformer, self.after = transformer, after

    @property
    def config(self) -> Any:
        """The transformer's."""
        return models.unwrap(self.transformer).config

    def forward(self, **batch: Any) -> Any:
        return self.transformer(**batch)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Of the transformer; what stands behind it is small, or shares its weights."""
        models.unwrap(self.transformer).gradient_checkpointing_enable(**options)
