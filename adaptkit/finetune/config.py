"""The settings of a fine-tuning. Imports no torch: the command line reads the schema from here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.config import Config, Magnitude, Tokens, in_unit
from adaptkit.data.readers import DataConfig
from adaptkit.trainer.config import TrainerConfig

Kind = Literal["sft", "classify", "label_words", "multi_label", "spans", "regression", "pairs", "extract"]


class FinetuneConfig(Config):
    """One fine-tuning."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"base"})

    name: str = "finetune"
    """The run's name."""
    task: str = "task"
    """The task's name, and that of its files under eval/."""
    base: str
    """The model to start from: a HF folder or hub id."""
    kind: Kind = "classify"
    """`sft` writes answers, `classify` trains a head, `label_words` teaches the language model to write the
    label; `multi_label` gives any number of labels, `spans` tags words, `regression` gives a number, `pairs`
    labels two texts, `extract` writes fields as a JSON object."""
    train: DataConfig
    """Rows to learn from."""
    dev: DataConfig | None = None
    """Rows to choose the best step by; a tenth of the training rows if not given."""
    test: DataConfig | None = None
    """Rows that are only scored."""
    adapter: AdapterConfig = AdapterConfig()
    """All weights, or a low-rank update."""
    max_length: Tokens = Field(256, ge=8)
    """Tokens after which an example is cut."""
    max_new_tokens: Tokens = Field(64, ge=1)
    """Tokens an answer may have when sft is scored."""
    fields: dict[str, Any] = {}
    """Field -> its type, for `extract`: string, number, integer, boolean, `list of` one of these, the texts
    it may be, {field: type} of an object, [{field: type}] of several. Left out, those of training rows."""
    epochs: Annotated[Magnitude, in_unit("epochs")] = Field(0.0, le=10_000)
    """Passes over the training rows; 0 = trainer.num_steps decides."""
    trainer: TrainerConfig = TrainerConfig(
        num_steps=500,
        global_batch_size=8,
        learning_rate=5e-4,
        schedule="linear",
        weight_decay=0.01,
        beta2=0.99,
        select="best",
    )
    """How it is trained."""

    @model_validator(mode="after")
    def _fields_are_extracted(self) -> FinetuneConfig:
        if self.fields and self.kind != "extract":
            raise ValueError(
                f"`fields` are extracted, and kind '{self.kind}' extracts none: set kind: extract"
            )
        return self
