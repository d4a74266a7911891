"""Write the card of a trained encoder: what it is, how to use it, what it learnt from, how well it does."""

from __future__ import annotations

from adaptkit.adapters import base_name
from adaptkit.embed.config import EmbedConfig
from adaptkit.embed.encoder import Encoder
from adaptkit.run import Run, write_text
from adaptkit.run_record import RunRecord

CARD = """---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {base}
tags: [sentence-transformers, feature-extraction, adaptkit]
---
# {name}

Turns text into vectors of {width} numbers whose product is high for texts that belong together.

| | |
| --- | --- |
| base model | `{base}` |
| trained | {trained}, loss {loss} |
| examples | {num_examples:,} |
| pooling | {pooling} of the token states, unit length |
| sizes | {sizes} |
| prompts | {prompts} |
| longest text | {max_length} tokens |

Scores on {split} data:

| metric | value |
| --- | --- |
{metrics}

    SentenceTransformer(folder).encode(texts)                     # sentence-transformers
    vllm serve folder --runner pooling --dtype float32            # an OpenAI-compatible /v1/embeddings
"""


def write_card(run: Run, config: EmbedConfig, encoder: Encoder, record: RunRecord) -> None:
    """Write README.md into the model's folder; no local path and no row of the data is in it."""
    layout, suite = encoder.layout, record.suites[record.suite]
    card = CARD.format(
        base=base_name(config.base),
        name=config.name,
        width=encoder.width,
        trained="all weights" if config.adapter.kind == "none" else config.adapter.kind,
        loss=config.loss,
        num_examples=record.splits["train"].facts["examples"],
        pooling=layout.pooling,
        sizes=", ".join(map(str, layout.dimensions)) or str(encoder.width),
        prompts="; ".join(f"{name}: `{words}`" for name, words in layout.prompts.items()) or "none",
        max_length=layout.max_length,
        split="test" if suite.metrics else "development",
        metrics="\n".join(
            f"| {name} | {value:.4f} |" for name, value in (suite.metrics or suite.dev).items()
        ),
    )
    write_text(run.model / "README.md", card)
