"""How much of its text a small model keeps: trained from scratch, continued by all weights, and by adapters.

    python benchmarks/memorisation.py DATA/biomed/corpus DATA/generic > benchmarks/results/memorisation.json

The beginnings of articles are learnt as often by each arm, with canaries among them; other articles are held
out. A base is made from the beginnings of general texts, and is the control. Everything is audited as
`adaptkit audit` does it. One seed: intervals are over documents and canaries.

Predicted before the first run: the base cannot tell (AUC within 0.45 and 0.55); scratch and all weights do
(AUC above 0.6), adapters less than all weights (by 0.05 or more); exposure grows with repeats in every arm
that learns, is below 4 bits for canaries never planted, above 15 bits at 64 repeats for scratch and for all
weights, and lower for adapters; secrets that stand once are not written out by any arm; no passage that
stands once is written out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from adaptkit.audit.memorisation import audit_memorisation
from adaptkit.audit.subjects import Subject
from adaptkit.audit.training_text import passes_of, text_of_run
from adaptkit.data.files import records
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, write_jsonl
from adaptkit.run_record import read_record

NUM_DOCUMENTS, NUM_BYTES = 100, 600
"""Of each part, and of each document's beginning."""
CANARIES = {"repeats": [1, 4, 16, 64], "each": 3}
TRAINER = {"global_batch_size": 16, "threads": 1, "log_every": 50}
RATES = {"base": 4e-3, "scratch": 4e-3, "all weights": 2e-3, "adapters": 4e-3}


def main() -> None:
    """Train, audit and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("domain", type=Path, help="folder with train.jsonl.gz and dev.jsonl.gz")
    parser.add_argument("general", type=Path, help="the same for general text")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, source in (("domain", options.domain), ("general", options.general)):
            for part in ("train", "dev"):
                write_beginnings(source / f"{part}.jsonl.gz", root / f"{name}.{part}.jsonl")
        runs = train_arms(root, options.steps)
        subjects = [
            Subject(name, name, (run.model,), 0.0 if name == "base" else passes_of(run, read_record(run)))
            for name, run in runs.items()
        ]
        record = audit_memorisation(text_of_run(runs["scratch"]), subjects, num=100, control="base")
        losses = {name: read_record(run).suites["language"].metrics for name, run in runs.items()}
    facts = {"documents": NUM_DOCUMENTS, "bytes_each": NUM_BYTES, "steps": options.steps, "rates": RATES}
    print(json.dumps({**facts, "dev": losses, "audit": record.model_dump(mode="json")}, indent=1))


def write_beginnings(source: Path, path: Path) -> None:
    """The beginnings of the first documents of a file."""
    rows = []
    for _, record in records(source):
        if len(rows) == NUM_DOCUMENTS:
            break
        rows.append({"text": record["text"].encode()[:NUM_BYTES].decode(errors="ignore")})
    write_jsonl(path, rows)


def train_arms(root: Path, steps: int) -> dict[str, Run]:
    """The base, and the three that learn the domain's text."""
    base = train(root, "base", "general", steps)
    continued = {"base": str(base.model), "canaries": CANARIES}
    return {
        "base": base,
        "scratch": train(root, "scratch", "domain", steps, canaries=CANARIES),
        "all weights": train(root, "all weights", "domain", steps, **continued),
        "adapters": train(
            root, "adapters", "domain", steps, **continued, adapter={"kind": "lora", "rank": 8}
        ),
    }


def train(root: Path, name: str, text: str, steps: int, **fields: Any) -> Run:
    """One pretraining."""
    given = {
        "name": name.replace(" ", "-"),
        "data": {"files": [str(root / f"{text}.train.jsonl")]},
        "dev": {"files": [str(root / f"{text}.dev.jsonl")]},
        "size": {"params": 120_000, "seq_len": 128},
        "trainer": {**TRAINER, "num_steps": steps, "learning_rate": RATES[name]},
    }
    if "base" not in fields:
        given["tokenizer"] = {"vocab_size": 400}
    config = PretrainConfig.model_validate(given | fields)
    run = Run.open(root, config.name, config)
    pretrain(config, run)
    print(name, read_record(run).suites["language"].metrics, file=sys.stderr, flush=True)
    return run


if __name__ == "__main__":
    main()
