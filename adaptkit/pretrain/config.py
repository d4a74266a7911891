"""The settings of a pretraining. Imports no torch: the command line reads the schema from here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig, compute_optimal_params, default_learning_rate
from adaptkit.config import Config, Count, Flops, Share, in_unit
from adaptkit.data.canaries import CanaryConfig
from adaptkit.data.readers import DataConfig
from adaptkit.errors import AdaptkitError
from adaptkit.trainer.config import TrainerConfig


class TokenizerConfig(Config):
    """The vocabulary of a model from scratch, or what is added to a base's."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"path"})

    kind: Literal["bpe", "unigram", "wordpiece"] = "bpe"
    """Algorithm of a tokenizer trained on `data`; bpe is byte-level and lossless."""
    vocab_size: Annotated[Count, in_unit("vocabulary entries")] = Field(8192, gt=0, le=10_000_000)
    """Entries of a tokenizer trained on `data`; a multiple of 128 suits the hardware."""
    path: str = ""
    """From scratch only: a tokenizer folder to use instead of training one."""
    new_tokens: Annotated[Count, in_unit("vocabulary entries")] = 0
    """Continued only: entries learnt from `data` and added to the base's vocabulary, rows started at mean
    values."""


class PretrainConfig(Config):
    """One pretraining: which text, from which weights, how large, for how long."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"base"})

    name: str = "pretrain"
    """Name of the run, and the first part of its folder's."""
    data: DataConfig
    """Text to learn."""
    dev: DataConfig | None = None
    """Text to measure on; without it, `dev_fraction` of `data` is held out."""
    dev_fraction: Share = Field(0.02, gt=0, lt=1)
    """Share of the documents of `data` held out when there is no `dev`."""
    objective: Literal["causal", "masked"] = "causal"
    """Predict the next token, or masked ones (encoders)."""
    base: str = ""
    """HF folder or hub id to keep training; empty = from scratch."""
    size: SizeConfig = SizeConfig()
    """Shape of a model from scratch, and the row length of any."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Vocabulary."""
    stretch: Literal["none", "yarn", "linear"] = "none"
    """Continued only: how rotary positions are stretched to rows of `size.seq_len` tokens, more than the base
    was made for: yarn (arXiv 2309.00071) or linear (arXiv 2306.15595)."""
    adapter: AdapterConfig = AdapterConfig()
    """Continued only: train these adapters instead of all weights; merged at the end."""
    replay: DataConfig | None = None
    """General text mixed in, against forgetting."""
    replay_share: Share = Field(0.1, lt=1)
    """Share of the rows that come from `replay`; not read without it."""
    canaries: CanaryConfig | None = None
    """Made-up secrets to plant in `data` after dev text is held out, for `adaptkit audit` to look for."""
    flops: Flops = 0.0
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
        if isinstance(trainer, TrainerConfig):
            trainer = trainer.model_dump(exclude_unset=True)
        try:
            size = SizeConfig.model_validate(values.get("size", {}))
            params = size.params or compute_optimal_params(float(values.get("flops") or 0))
            rate = default_learning_rate(params)
        except (ValueError, TypeError, AdaptkitError):
            return values  # the fields' own validation says what is wrong
        return {**values, "trainer": {"learning_rate": rate, **trainer}}

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        scratch = not self.base
        if scratch and self.adapter.kind != "none":
            raise ValueError("adapter needs a base; a model from scratch trains all of its weights")
        if scratch and self.tokenizer.new_tokens:
            raise ValueError("tokenizer.new_tokens is for a base; from scratch, set tokenizer.vocab_size")
        if scratch and self.stretch != "none":
            raise ValueError("stretch is for a base; a model from scratch reads size.seq_len as it is")
        if self.stretch != "none" and self.adapter.kind != "none":
            raise ValueError("stretched positions lie in the model, not in an adapter: leave one of them out")
        if not scratch and self.tokenizer.path:
            raise ValueError("tokenizer.path is for models from scratch; a base keeps its own tokenizer")
        if scratch and self.objective == "causal" and self.tokenizer.kind == "wordpiece":
            raise ValueError(
                "wordpiece forgets blanks: a causal model on it cannot be scored per byte; use bpe or unigram"
            )
        if self.replay is not None and not self.replay_share:
            raise ValueError("replay is given but replay_share is 0; set a share, or leave replay out")
        if scratch and not self.size.params and not self.flops:
            raise ValueError("a model from scratch needs size.params, or flops to choose the size by")
        return self
