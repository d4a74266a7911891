"""What a plan is made from: the goal, the text, the traffic, the machine, and what is assumed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adaptkit.config import Config, Count, Magnitude, Share, Tokens, in_unit
from adaptkit.data.readers import DataConfig
from adaptkit.study.budget import PriceConfig

Published = Literal["besiroglu-2024", "hoffmann-2022", "sardana-2024"]
LawName = Literal["study"] | Published
Parameters = Annotated[Count, in_unit("parameters")]
GOALS = ("size", "loss", "usd", "gpu_hours")


class TrafficConfig(Config):
    """What is asked of the model once it serves."""

    requests_per_month: Annotated[Magnitude, in_unit("requests per month")] = 0.0
    """0: nothing is served, and only training is planned."""
    tokens_in: Annotated[Magnitude, in_unit("tokens")] = Field(500.0, le=1e7)
    """Of one request's prompt."""
    tokens_out: Annotated[Magnitude, in_unit("tokens")] = Field(150.0, le=1e7)
    """Of one answer."""
    months: Annotated[Magnitude, in_unit("months")] = Field(12.0, gt=0, le=1200)
    """How long the model serves."""
    at_once: Annotated[Count, in_unit("requests")] = Field(16, ge=1, le=100_000)
    """Requests that are answered at the same time: each holds its keys and values in memory."""
    used_share: Share = Field(0.5, gt=0)
    """Share of a server's speed that an average hour uses; the rest is room for peaks."""


class GpuConfig(Config):
    """What it trains and serves on. Own values replace those of the table."""

    name: str = "H100"
    """H200, H100, A100, L40S, L4 or T4; any other name with `tflops` and `memory_gb`."""
    count: Annotated[Count, in_unit("GPUs")] = Field(1, ge=1, le=1_000_000)
    """GPUs that train at once."""
    tflops: Annotated[Magnitude, in_unit("TFLOP/s")] = 0.0
    """Of one, in the arithmetic that it trains in; 0 takes the table's."""
    memory_gb: Annotated[Magnitude, in_unit("GB")] = 0.0
    """Of one; 0 takes the table's."""
    price: PriceConfig | None = None
    """US dollars per hour of one, with source and date."""
    mfu: Share = Field(0.4, gt=0)
    """Share of its arithmetic that training reaches."""
    mfu_prefill: Share = Field(0.5, gt=0)
    """Share that reading prompts reaches."""
    mfu_decode: Share = Field(0.01, gt=0)
    """Share that writing answers reaches, one token after another."""


class TrainingConfig(Config):
    """How the training is laid out, which decides its memory."""

    seq_len: Tokens = Field(2048, ge=2, le=10_000_000)
    """Tokens of a row."""
    microbatch_size: Annotated[Count, in_unit("rows")] = Field(4, ge=1, le=100_000)
    """Rows that one GPU works on at once."""
    gradient_checkpointing: bool = False
    """Keep each layer's input alone and compute the rest once more: less memory, a forward pass more."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of what is kept between layers; weights and optimizer are float32 in both."""


class PlanConfig(Config):
    """Plan a model: at most one of `size`, `loss`, `usd` and `gpu_hours` says what is wanted."""

    PLACES = frozenset({"study"})

    size: Parameters = 0
    """As good as a compute-optimal model of so many parameters."""
    loss: Annotated[Magnitude, in_unit("as the law's")] = 0.0
    """As good as this loss."""
    usd: Annotated[Magnitude, in_unit("US dollars")] = 0.0
    """As good as so much money buys, training and serving together."""
    gpu_hours: Annotated[Magnitude, in_unit("GPU hours")] = 0.0
    """As good as so many hours of one GPU buy, training and serving together."""
    sizes: list[Parameters] = [10**6, 3 * 10**6, 10**7, 3 * 10**7, 10**8, 3 * 10**8, 10**9, 3 * 10**9, 10**10]
    """Sizes of the table."""
    text: DataConfig | None = None
    """The text at hand; neither this nor `text_bytes` is text without end."""
    text_bytes: Annotated[Magnitude, in_unit("bytes")] = 0.0
    """How much text is at hand, where no files are named."""
    bytes_per_token: Annotated[Magnitude, in_unit("bytes per token")] = Field(0.0, le=100)
    """Of the text at hand; 0 takes the study's, else 3."""
    vocab_size: Annotated[Count, in_unit("tokens")] = Field(32_768, ge=256, le=1_000_000)
    """Of the tokenizer; a size whose table would take over a third of it gets half as many, or a quarter."""
    law: LawName = "besiroglu-2024"
    """Scaling law: a published one, or `study`, the study's own. Left out, it is the study's own where one is
    named that has one."""
    minimise: Literal["gpu_hours", "flops"] = "gpu_hours"
    """What the cheapest model is cheapest in. Dollars are hours times a price."""
    traffic: TrafficConfig = TrafficConfig()
    """What is asked of it once it serves."""
    gpu: GpuConfig = GpuConfig()
    """What it trains and serves on."""
    training: TrainingConfig = TrainingConfig()
    """How the training is laid out."""
    serve_in: Literal["float32", "bfloat16", "int8", "int4"] = "bfloat16"
    """Weights while serving; int8 counts as twice the arithmetic of bfloat16, int4 saves memory alone."""
    study: str = ""
    """A study whose measured speed, price and, where it has one, scaling law are taken; what is set here
    comes before them."""

    @model_validator(mode="after")
    def _one_goal(self) -> PlanConfig:
        stated = [name for name in GOALS if getattr(self, name)]
        if len(stated) > 1:
            raise ValueError(f"{' and '.join(stated)} are both set; keep one of them")
        if self.text is not None and self.text_bytes:
            raise ValueError("text and text_bytes are both set; keep one of them")
        return self
