"""The settings of training an encoder or a reranker. Imports no torch: the command line reads the schema
from here."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from adaptkit.adapters import AdapterConfig
from adaptkit.config import Config, Count, Magnitude, Tokens, in_unit
from adaptkit.data.readers import DataConfig
from adaptkit.trainer.config import TrainerConfig

OWN_LIMIT = "max_seq_length in the model's sentence_bert_config.json"
"""What changes after how many tokens a finished encoder cuts texts."""
Loss = Literal["infonce", "symmetric", "triplet", "cosine", "margin", "simcse", "tsdae"]


def _whole_number(value: object) -> object:
    """A key that JSON can only write as a string."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


Size = Annotated[int, BeforeValidator(_whole_number), Field(ge=1, le=1_000_000)]


class EmbedConfig(Config):
    """One training of an encoder."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"base"})

    name: str = "embed"
    """The run's name."""
    base: str
    """The encoder or decoder to start from: a transformers or sentence-transformers folder, or a hub id."""
    train: DataConfig
    """Pairs (anchor, positive, negatives), scored pairs, plain text, or the folder of a retrieval set in
    BEIR's layout."""
    dev: DataConfig | None = None
    """The same, to measure on; a set's own dev split or a tenth of the training examples if not given."""
    test: DataConfig | None = None
    """The same, only scored at the end."""
    loss: Loss = "infonce"
    """infonce and symmetric: pairs, or pairs made from the structure of plain text; triplet: pairs with
    negatives; cosine and margin: pairs with scores or labels; simcse: plain text against itself under
    dropout; tsdae: plain text restored from the vector of its remains after most of its tokens were
    deleted."""
    temperature: Annotated[Magnitude, in_unit("none")] = Field(0.05, gt=0, le=1000)
    """What infonce, symmetric and simcse divide cosines by."""
    margin: Annotated[Magnitude, in_unit("cosine distance")] = Field(0.0, le=2)
    """Distance that triplet and margin ask for (0: 0.3). infonce: negatives nearer than the positive by more
    than this are taken for unknown positives and left out (0: none are)."""
    hard_negatives: Annotated[Count, in_unit("negatives per anchor")] = 0
    """Negatives per anchor that the base itself confuses with the positive, mined before training."""
    dimensions: Annotated[list[Count] | dict[Size, Magnitude], in_unit("vector dimensions")] = []
    """Matryoshka sizes that vectors may be cut to, besides the whole one, which always trains; or sizes with
    what the loss at each counts, as {384: 1, 64: 0.5} (1 where not named)."""
    pooling: Literal["auto", "mean", "cls", "last"] = "auto"
    """How token states become a vector; auto is what the folder says, else mean for encoders and last for
    decoders."""
    prompts: dict[str, str] = {}
    """Words put before a text: `query` for anchors, `document` for all others."""
    max_length: Tokens = Field(256, ge=8)
    """Tokens after which a text is cut, in training and in use."""
    adapter: AdapterConfig = AdapterConfig()
    """All weights, or a low-rank update."""
    trainer: TrainerConfig = TrainerConfig(
        num_steps=500,
        global_batch_size=64,
        learning_rate=5e-5,
        schedule="linear",
        warmup_fraction=0.1,
        weight_decay=0.01,
        beta2=0.999,
    )
    """The training loop. A microbatch changes memory, never the loss: gradients are cached."""

    @model_validator(mode="after")
    def _consistent(self) -> EmbedConfig:
        if odd := sorted(set(self.prompts) - {"query", "document"}):
            raise ValueError(f"prompts are 'query' and 'document', not '{odd[0]}'")
        if self.hard_negatives and self.loss not in ("infonce", "symmetric", "triplet"):
            raise ValueError(f"loss '{self.loss}' has no use for hard_negatives")
        if isinstance(self.dimensions, dict) and not all(weight > 0 for weight in self.dimensions.values()):
            raise ValueError("what a size counts must be above 0: leave the size out instead")
        if self.dimensions and self.loss == "tsdae":
            what = "loss 'tsdae' trains whole vectors"
            raise ValueError(f"{what}: leave dimensions out, and set them where pairs are learnt")
        if self.adapter.kind == "qlora":
            raise ValueError("encoders are trained by lora, rslora, dora or in full")
        return self


class RerankConfig(Config):
    """One training of a reranker: a model that reads a question and a document together and scores how well
    the one answers the other."""

    PLACES: ClassVar[frozenset[str]] = frozenset({"base", "encoder"})

    name: str = "rerank"
    """The run's name."""
    base: str
    """The encoder or decoder to start from: a transformers folder, or a hub id."""
    train: DataConfig
    """The folder of a retrieval set in BEIR's layout, or pairs (anchor, positive)."""
    dev: DataConfig | None = None
    """The same, to measure on; a set's own dev split or a tenth of the training examples if not given."""
    test: DataConfig | None = None
    """The same, only scored at the end."""
    encoder: str = ""
    """An embedding model whose vectors search beside words in the first stage, if that ranks dev queries
    better than words alone; a folder or hub id. Empty: words alone (BM25)."""
    depth: Annotated[Count, in_unit("documents per query")] = Field(50, ge=2, le=1000)
    """Documents of the first stage's ranking that are read again, in training and in use."""
    negatives: Annotated[Count, in_unit("documents per answer")] = Field(7, ge=1, le=999)
    """Documents beside the right one that a step shows, drawn anew each time from the first stage's."""
    max_length: Tokens = Field(256, ge=8)
    """Tokens after which a question with its document is cut."""
    adapter: AdapterConfig = AdapterConfig()
    """All weights, or a low-rank update."""
    trainer: TrainerConfig = TrainerConfig(
        num_steps=500,
        global_batch_size=8,
        learning_rate=5e-5,
        schedule="linear",
        warmup_fraction=0.1,
        weight_decay=0.01,
        beta2=0.999,
    )
    """The training loop; an example is a question with all documents that it is shown with."""

    @model_validator(mode="after")
    def _consistent(self) -> RerankConfig:
        if self.negatives >= self.depth:
            raise ValueError("negatives are drawn from depth documents: set negatives below depth")
        if self.adapter.kind == "qlora":
            raise ValueError("rerankers are trained by lora, rslora, dora or in full")
        return self
