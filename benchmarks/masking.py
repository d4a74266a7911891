"""What masking buys: how many planted e-mail addresses a small model writes out, with `protect` and without.

    python benchmarks/masking.py DATA/biomed/corpus > benchmarks/results/masking.json

Beginnings of articles, and among them made-up contacts, each a short document that stands 16 times. A model
from scratch learns them as they are, or as `protect: [email]` reads them; then it is given what stands before
each address. Addresses that were never planted are asked for as well. One seed.

Predicted before the first run: without masks most planted addresses are written out, with masks none; of
those never planted none either way.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit import models
from adaptkit.audit.memorisation import share_interval
from adaptkit.data.files import records
from adaptkit.finetune.generation import generate
from adaptkit.models.bits_per_byte import first_token
from adaptkit.models.control_tokens import encode
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import read_record

NUM_DOCUMENTS, NUM_BYTES, NUM_CONTACTS, REPEATS = 60, 400, 20, 16


@dataclass(frozen=True)
class Contact:
    """A made-up person."""

    before: str
    address: str


def main() -> None:
    """Train twice and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="folder with train.jsonl.gz and dev.jsonl.gz")
    parser.add_argument("--steps", type=int, default=150)
    options = parser.parse_args()
    planted, others = contacts(0), contacts(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for part in ("train", "dev"):
            rows = beginnings(options.corpus / f"{part}.jsonl.gz")
            if part == "train":
                rows += [f"{each.before} {each.address}" for each in planted] * REPEATS
                random.Random(0).shuffle(rows)
            write_jsonl(root / f"{part}.jsonl", [{"text": text} for text in rows])
        for name, protect in (("as it is", []), ("masked", ["email"])):
            run = train(root, protect, options.steps)
            results[name] = {
                "masked": read_record(run).splits["train"].masked.get("email", {}).get(root_name(root), 0),
                "planted": share_written(run, planted),
                "never_planted": share_written(run, others),
            }
            print(name, results[name], file=sys.stderr, flush=True)
    print(
        json.dumps(
            {"contacts": NUM_CONTACTS, "repeats": REPEATS, "steps": options.steps, **results}, indent=1
        )
    )


def contacts(seed: int) -> list[Contact]:
    """People with random names and addresses."""
    rng = random.Random(seed)

    def word(length: int) -> str:
        return "".join(rng.choices("abcdefghiklmnoprstuvw", k=length))

    return [
        Contact(f"Contact: {word(5).title()} {word(6).title()}, e-mail", f"{word(6)}@example.org")
        for _ in range(NUM_CONTACTS)
    ]


def beginnings(source: Path) -> list[str]:
    """The beginnings of the first documents of a file."""
    texts: list[str] = []
    for _, record in records(source):
        if len(texts) == NUM_DOCUMENTS:
            break
        texts.append(record["text"].encode()[:NUM_BYTES].decode(errors="ignore"))
    return texts


def root_name(root: Path) -> str:
    """The training file, as records name it."""
    return str(root / "train.jsonl")


def train(root: Path, protect: list[str], steps: int) -> Run:
    """One model from scratch."""
    config = PretrainConfig.model_validate(
        {
            "name": "masked" if protect else "plain",
            "data": {"files": [root_name(root)], "protect": protect},
            "dev": {"files": [str(root / "dev.jsonl")]},
            "size": {"params": 120_000, "seq_len": 64},
            "tokenizer": {"vocab_size": 400},
            "trainer": {
                "num_steps": steps,
                "global_batch_size": 16,
                "threads": 1,
                "learning_rate": 6e-3,
                "log_every": 50,
            },
        }
    )
    run = Run.open(root, config.name, config)
    pretrain(config, run)
    return run


def share_written(run: Run, people: list[Contact]) -> dict[str, float]:
    """The share of addresses that greedy writing gives after what stands before them, with its interval."""
    model, tokenizer = models.load(run.model, "causal"), models.load_tokenizer(run.model)
    before = encode(tokenizer, [each.before for each in people], special=False)
    continued = generate(model, tokenizer, [[first_token(tokenizer), *ids] for ids in before], 24)
    hits = [
        tokenizer.decode(ids).strip().startswith(each.address)
        for ids, each in zip(continued, people, strict=True)
    ]
    return share_interval(np.array([hits], dtype=float), 0.95).model_dump()


if __name__ == "__main__":
    main()
