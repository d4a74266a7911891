"""The card of a trained encoder: what it is, how to use it, what it learnt from, how it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptkit.adapters import base_name
from adaptkit.run import read_json, write_text

if TYPE_CHECKING:
    from adaptkit.embed.config import EmbedConfig
    from adaptkit.embed.encoder import Encoder
    from adaptkit.run import Run


def write_card(run: Run, config: EmbedConfig, encoder: Encoder, suite: str) -> None:
    """README.md in the model's folder; no local path and no row of the data is in it."""
    layout, scores, data = encoder.layout, read_json(run.scores(suite)), run.manifest()["data"]
    shown = scores["metrics"] or scores["dev"]
    sizes = ", ".join(map(str, layout.dimensions)) or str(encoder.width)
    prompts = "; ".join(f"{name}: `{words}`" for name, words in layout.prompts.items()) or "none"
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in shown.items())
    write_text(
        run.model / "README.md",
        f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {base_name(config.base)}
tags: [sentence-transformers, feature-extraction, adaptkit]
---
# {config.name}

Turns text into vectors of {encoder.width} numbers whose product is high for texts that belong together.

| | |
| --- | --- |
| base model | `{base_name(config.base)}` |
| trained | {"all weights" if config.adapter.kind == "none" else config.adapter.kind}, loss {config.loss} |
| examples | {data["train"]["examples"]:,} |
| pooling | {layout.pooling} of the token states, unit length |
| sizes | {sizes} |
| prompts | {prompts} |
| longest text | {layout.max_length} tokens |

Scores on {"test" if scores["metrics"] else "development"} data:

| metric | value |
| --- | --- |
{metrics}

    SentenceTransformer(folder).encode(texts)                     # sentence-transformers
    vllm serve folder --runner pooling --dtype float32            # an OpenAI-compatible /v1/embeddings
""",
    )
