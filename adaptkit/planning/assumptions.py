"""Say in sentences what a plan assumes, each with where it comes from."""

from __future__ import annotations

import math
from collections.abc import Iterator

from adaptkit.planning.config import PlanConfig
from adaptkit.planning.gpus import GB, Gpu
from adaptkit.planning.own_law import ChosenLaw
from adaptkit.planning.published_law import REPEATS_WORTH
from adaptkit.trainer.memory import STATE_BYTES


def assumptions_of(config: PlanConfig, chosen: ChosenLaw, gpu: Gpu, text_tokens: float) -> tuple[str, ...]:
    """All of them, the law first."""
    return (
        *_law(chosen),
        *_text(config, text_tokens),
        *_machine(config, gpu),
        *_memory(config),
        *_serving(config),
    )


def _law(chosen: ChosenLaw) -> Iterator[str]:
    law = chosen.law
    yield f"Loss: {law.source}; {law.unit}."
    if chosen.note:
        yield chosen.note
    if chosen.draws:
        yield "Behind each loss stands its 95 % interval. Sizes and tokens follow the likeliest law."
        return
    yield (
        "This is a published law of web text and its own tokenizer: its losses rank sizes, and are not the "
        "losses that your text would give."
    )


def _text(config: PlanConfig, text_tokens: float) -> Iterator[str]:
    if math.isinf(text_tokens):
        yield "Text: without end. State text_bytes, or text.files."
        return
    yield (
        f"Text: {text_tokens:.3g} tokens of {config.bytes_per_token:g} bytes. Text that is read again is "
        f"worth less: at most {REPEATS_WORTH:g} times the text can be gained (arXiv 2305.16264)."
    )


def _machine(config: PlanConfig, gpu: Gpu) -> Iterator[str]:
    own = config.gpu
    memory = (
        f", {gpu.memory_bytes / GB:g} GB" if gpu.memory_bytes else ", memory not known: set gpu.memory_gb"
    )
    yield f"{gpu.name}: {gpu.flops / 1e12:.3g} TFLOP/s{memory}: {gpu.source}."
    if gpu.measured:
        ratio = own.mfu_decode / own.mfu
        yield (
            "Training runs at that measured speed. Prompts are read at "
            f"{own.mfu_prefill / own.mfu:.3g} and answers written at {ratio:.3g} of it (gpu.mfu_prefill and "
            "gpu.mfu_decode, beside gpu.mfu)."
        )
    else:
        yield (
            f"Training reaches {own.mfu:.0%} of that, prompts {own.mfu_prefill:.0%}, answers "
            f"{own.mfu_decode:.1%} (gpu.mfu, gpu.mfu_prefill, gpu.mfu_decode): assumptions; measure yours."
        )
    if gpu.price is None:
        yield "Price: none is known, so nothing is said in dollars. Set gpu.price with source and date."
    else:
        yield f"Price: ${gpu.price.usd_per_hour:g} an hour for one, {gpu.price.source}, {gpu.price.date}."


def _memory(config: PlanConfig) -> Iterator[str]:
    layout = config.training
    checkpoints = "with" if layout.gradient_checkpointing else "without"
    yield (
        f"Memory of training: {STATE_BYTES} bytes a parameter (float32 weight, gradient, two moments), "
        f"divided among GPUs where there are several, and activations of {layout.microbatch_size} rows of "
        f"{layout.seq_len} tokens on each, in {layout.dtype}, {checkpoints} checkpointing."
    )


def _serving(config: PlanConfig) -> Iterator[str]:
    traffic = config.traffic
    if config.minimise == "gpu_hours":
        yield "Hours of a goal count attention and the output layer as the table does."
    else:
        yield "FLOPs of a goal are 6 N a token of training and 2 N a token served, as the laws count them."
    if not traffic.requests_per_month:
        yield "Nothing is served. Set traffic.requests_per_month."
        return
    yield (
        f"Serving: {traffic.requests_per_month:,.0f} requests a month of {traffic.tokens_in:g} tokens in and "
        f"{traffic.tokens_out:g} out for {traffic.months:g} months, weights in {config.serve_in}, "
        f"{traffic.at_once} at once. A goal counts the hours that a GPU works; the table rents whole GPUs, "
        f"used {traffic.used_share:.0%} on average."
    )
