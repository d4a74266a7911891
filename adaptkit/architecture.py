"""Choose the shape and the learning rate of a model from scratch from its size, in parameters or in FLOPs.

Shape. Causal models are Llama-shaped; masked ones are the same blocks looking both ways (ModernBERT-shaped,
every layer global, so packed rows stay exact). A block has multi-head attention and a gated feed-forward of
about 8/3 of the width, 12 * width^2 weights. Among all (layers, width) of the right size, the one nearest to
width = 64 * layers wins: loss is flat between ratios of about 30 and 120 (Kaplan et al. 2020, arXiv
2001.08361, figure 5). Widths are multiples of 32 below 256 and of 128 from there on (tensor cores, groups of
int4 exports); heads are 32 wide below a width of 256, 64 wide up to 2048, then 128.

Start. Weights are drawn with standard deviation sqrt(2 / (5 * width)) (Nguyen and Salazar 2019, arXiv
1910.05895), which is the usual 0.02 at a width of 1000 and more below. At a width of 160 the best held-out
loss over rates 1e-3 to 1.6e-2 fell from 3.84 nats per token with 0.02 to 3.23 (400 steps of 1k tokens of
Python source, one seed).

Size. `parameters` means all of them, embeddings included: that is what is served, and with a tied table it is
also what a token costs. From FLOPs the size is compute-optimal: about 20 tokens per parameter (Hoffmann et
al. 2022, arXiv 2203.15556, table 3), and no more tokens than four passes over the text at hand, since
repetition beyond that buys little (Muennighoff et al. 2023, arXiv 2305.16264).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from adaptkit.config import Config, Count, Tokens, in_unit
from adaptkit.errors import ConfigError

ASPECT = 64  # width per layer
TOKENS_PER_PARAMETER = 20
USEFUL_EPOCHS = 4
TOLERANCE = 0.15
MAX_LAYERS = 96
ASPECT_RANGE = (12, 128)


@dataclass(frozen=True)
class Shape:
    """Sizes of one model; `parameters` counts all weights of the causal form."""

    layers: int
    width: int
    heads: int
    ffn: int
    parameters: int


class SizeConfig(Config):
    """How large a model from scratch is."""

    params: Annotated[Count, in_unit("parameters")] = 3_000_000
    """All parameters, embeddings included; 0 = compute-optimal for the `flops` it is trained with."""
    tied: bool = True
    """Share the token table with the output projection."""
    seq_len: Tokens = Field(256, ge=2, le=10_000_000)
    """Tokens of a training row; the context length of a model from scratch."""


def architecture(
    size: SizeConfig,
    vocab_size: int,
    *,
    kind: Literal["causal", "masked"] = "causal",
    flops: float = 0.0,
    unique_tokens: int = 0,
    special_ids: dict[str, int | None] | None = None,
) -> Any:
    """Make the transformers config of a model from scratch: Llama for causal, ModernBERT for masked.

    Args:
        vocab_size: number of token ids.
        flops: training FLOPs it will be given; read if `size.params` is 0.
        unique_tokens: tokens of text at hand, 0 = unlimited; bounds the repetition assumed by the FLOPs rule.
        special_ids: `bos_token_id`, `eos_token_id` and `pad_token_id` of the tokenizer; none if left out.

    Raises: ConfigError if no shape comes within 15 % of the size.
    """
    params = size.params or compute_optimal_params(flops, unique_tokens)
    shape = choose_shape(params, vocab_size, tied=size.tied)
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": size.seq_len,
        "tie_word_embeddings": size.tied,
        "initializer_range": math.sqrt(0.4 / shape.width),
        **(special_ids or {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}),
    }
    return _llama(common) if kind == "causal" else _modernbert(common)


def compute_optimal_params(flops: float, unique_tokens: int = 0) -> int:
    """Parameters N such that 6 * N * tokens = `flops` at 20 tokens per parameter, or at 4 epochs if text is
    short.

    Raises: ConfigError if `flops` is not positive.
    """
    if flops <= 0:
        raise ConfigError(
            "a model from scratch needs a size", where="size.params", fix="set size.params=3M, or flops=3e14"
        )
    params = math.sqrt(flops / (6 * TOKENS_PER_PARAMETER))
    if unique_tokens and params * TOKENS_PER_PARAMETER > USEFUL_EPOCHS * unique_tokens:
        params = flops / (6 * USEFUL_EPOCHS * unique_tokens)
    return round(params)


def choose_shape(params: int, vocab_size: int, *, tied: bool = True) -> Shape:
    """The shape nearest to width = 64 * layers among those within 15 % of `params`, nearer sizes preferred.

    Raises: ConfigError if there is none: the vocabulary alone is too large for the size.
    """

    def distance(shape: Shape) -> float:
        # A size off by 5 % weighs as much as a width-to-depth ratio or a feed-forward off by a factor of 1.5.
        ratios = shape.width / (ASPECT * shape.layers), 8 * shape.width / (3 * shape.ffn)
        return 8 * abs(math.log(shape.parameters / params)) + sum(abs(math.log(ratio)) for ratio in ratios)

    low, high = ASPECT_RANGE
    shapes = [
        shape
        for width in _widths()
        for layers in range(2, MAX_LAYERS + 1)
        if low <= width / layers <= high
        for shape in _shapes(layers, width, vocab_size, tied)
    ]
    fitting = [shape for shape in shapes if abs(shape.parameters / params - 1) <= TOLERANCE]
    if not fitting:
        closest = min(shapes, key=lambda shape: abs(math.log(shape.parameters / params))).parameters
        what = f"no model of {params:,} parameters has a vocabulary of {vocab_size:,}"
        raise ConfigError(
            what,
            where="size.params",
            fix=f"ask for {closest:,} parameters, or for another tokenizer.vocab_size",
        )
    return min(fitting, key=distance)


def cache_bytes_per_token(layers: int, kv_heads: int, head_dim: int, number_bytes: int) -> int:
    """Bytes that one token's keys and values take while a causal model answers."""
    return 2 * layers * kv_heads * head_dim * number_bytes


def default_learning_rate(params: int) -> float:
    """Peak AdamW rate for training `params` parameters from scratch: 3e-3 * (params / 1M) ** -0.25, at most
    1e-2.

    The centre of a tuning grid in steps of 2 to 3. Measured at the small end (tied Llama shapes of this file,
    Python source, 1k tokens a step, cosine to a tenth, warmup 5 %, one seed, held-out nats per token by
    rate):

        params  steps  vocabulary   1e-3   2e-3   4e-3   8e-3   rule   one thread
        0.50M   400    2048         -      3.78   3.42   3.40   3.6e-3   14k tokens/s
        0.99M   400    2048         3.69   3.23   3.34   3.46   3.0e-3    9k tokens/s
        3.00M   250    4096         4.40   4.23   4.35   -      2.3e-3    3k tokens/s

    (speeds with the machine's cores shared). At 124M it gives 9e-4, between GPT-3's 6e-4 (arXiv 2005.14165,
    table 2.1) and what later small models use; the exponent is what links both ends, not a law.
    """
    return min(1e-2, 3e-3 * (params / 1e6) ** -0.25)


def _widths() -> list[int]:
    return [*range(64, 256, 32), *range(256, 8193, 128)]


def _shapes(layers: int, width: int, vocab_size: int, tied: bool) -> list[Shape]:
    """Three shapes: with the usual feed-forward, and with one a step narrower or wider.

    The steps close the gaps between small sizes.
    """
    step = 32 if width < 256 else 128
    usual = math.ceil(8 * width / 3 / step) * step
    num_tables = 1 if tied else 2
    shapes = []
    for ffn in (usual - step, usual, usual + step):
        block = 4 * width * width + 3 * width * ffn + 2 * width
        parameters = num_tables * vocab_size * width + width + layers * block
        shapes.append(Shape(layers, width, width // _head_width(width), ffn, parameters))
    return shapes


def _head_width(width: int) -> int:
    if width < 256:
        return 32
    if width <= 2048:
        return 64
    return 128


def _llama(common: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**common, num_key_value_heads=common["num_attention_heads"], rms_norm_eps=1e-5)


def _modernbert(common: dict[str, Any]) -> Any:
    from transformers import ModernBertConfig

    own: dict[str, Any] = {
        "cls_token_id": common["bos_token_id"],
        "sep_token_id": common["eos_token_id"],
        "global_attn_every_n_layers": 1,
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10_000.0}},
        "classifier_pooling": "mean",
    }
    return ModernBertConfig(**common, **own)
