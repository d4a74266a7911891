"""One-layer encoders and pairs that can be learnt, so that a whole training takes a second."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from adaptkit import data, models

THINGS = (
    "engine",
    "patient",
    "library",
    "editor",
    "river",
    "garden",
    "market",
    "violin",
    "winter",
    "planet",
    "cheese",
    "rocket",
)
DOINGS = ("reads", "measures", "improves", "forgets", "compares", "records", "explains", "carries")


def texts(num: int = 200) -> list[str]:
    rng = random.Random(0)
    return [
        f"the {rng.choice(THINGS)} {rng.choice(DOINGS)} the {rng.choice(THINGS)} {rng.randrange(100)}"
        for _ in range(num)
    ]


def pairs(num: int = 60) -> list[dict[str, str]]:
    """Ragged pairs: a question about a thing and a number, and a text that holds both."""
    rng, rows = random.Random(1), []
    for number in range(num):
        thing = THINGS[number % len(THINGS)]
        tail = " ".join(rng.choice(DOINGS) for _ in range(rng.randint(1, 9)))
        rows.append({"anchor": f"what of {thing} {number}", "positive": f"{number} the {thing} {tail}"})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_set(folder: Path, num: int = 40) -> Path:
    """A retrieval set in BEIR's layout with the splits train, dev and test."""
    rows = pairs(num)
    write(
        folder / "corpus.jsonl",
        [{"_id": f"d{i}", "title": "", "text": row["positive"]} for i, row in enumerate(rows)],
    )
    write(folder / "queries.jsonl", [{"_id": f"q{i}", "text": row["anchor"]} for i, row in enumerate(rows)])
    (folder / "qrels").mkdir(exist_ok=True)
    for name, ids in {
        "train": range(0, num - 16),
        "dev": range(num - 16, num - 8),
        "test": range(num - 8, num),
    }.items():
        lines = "".join(f"q{i}\td{i}\t1\n" for i in ids)
        (folder / "qrels" / f"{name}.tsv").write_text("query-id\tcorpus-id\tscore\n" + lines)
    return folder


def bert(folder: Path, *, dropout: float = 0.0, hidden: int = 32, corpus: list[str] | None = None) -> Path:
    """A random BERT with a wordpiece tokenizer trained on `corpus`, else on the texts above, as a plain
    transformers folder."""
    from transformers import BertConfig

    corpus = corpus or texts() + [text for row in pairs() for text in row.values()]
    tokenizer = data.train_tokenizer(corpus, "wordpiece", 256, masked=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=tokenizer.pad_token_id,
    )
    models.save(models.build(config, "encoder", seed=0), tokenizer, folder)
    return folder


def qwen(folder: Path, hidden: int = 32) -> Path:
    """A random Qwen3 decoder with a trained BPE tokenizer that does not close texts."""
    from transformers import Qwen3Config

    corpus = texts() + [text for row in pairs() for text in row.values()]
    tokenizer = data.train_tokenizer(corpus, "bpe", 384)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=hidden // 2,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    models.save(models.build(config, "causal", seed=0), tokenizer, folder)
    return folder


def add_dense(folder: Path, out_features: int, activation: str = "Tanh", seed: int = 0) -> Path:
    """The folder, now sentence-transformers' own, with a random Dense module behind its pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    torch.manual_seed(seed)
    transformer = modules.Transformer(str(folder))
    pooling = modules.Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    dense = modules.Dense(
        transformer.get_embedding_dimension(),
        out_features,
        activation_function=getattr(torch.nn, activation)(),
    )
    SentenceTransformer(modules=[transformer, pooling, dense, modules.Normalize()], device="cpu").save(
        str(folder)
    )
    return folder


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def relative_error(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    error = sum((found[name] - wanted[name]).double().square().sum() for name in wanted).sqrt()
    return float(error / sum(value.double().square().sum() for value in wanted.values()).sqrt())
