"""Encoding and training embeddings against sentence-transformers, on the same model, texts and threads.

    python benchmarks/embed_speed.py MODEL TEXTS.jsonl --out result.json        # one thread, CPU seconds

Three ratios from one run. Both sides take turns and the fastest repetition counts; CPU seconds, since a busy
machine does not distort them. Encoding: the same texts of mixed lengths (log-normal, median 33 words),
vectors compared. Training: the same pairs, in-batch negatives, batch and steps; examples per CPU second.
Memory: the peak of a whole training step at batch 64 and at batch 4096 with the same microbatch, each in a
process of its own. Exit code 1 below the goals: 1.5 times the encoding throughput, 1.0 times the training's,
1.4 times the memory.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
GOALS = {"encode": 1.5, "train": 1.0, "memory": 1.4}
MEDIAN_WORDS, SPREAD = 33, 1.0
MAX_LENGTH, TEMPERATURE, RATE = 128, 0.05, 2e-5


def read_texts(path: str, num: int) -> list[str]:
    """Beginnings of the texts, of log-normal lengths."""
    from adaptkit.embed.encoding import documents

    rng = random.Random(0)
    found = []
    for _, text in documents([Path(path)]):
        words = text.split()
        if len(words) >= 3:
            found.append(" ".join(words[: max(3, round(rng.lognormvariate(math.log(MEDIAN_WORDS), SPREAD)))]))
        if len(found) == num:
            break
    return found


def fastest(sides: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """CPU seconds of the fastest repetition of each side, in turns, and what each returned."""
    seconds, found = {name: math.inf for name in sides}, {}
    for _ in range(repeats):
        for name, run in sides.items():
            begun = time.process_time()
            found[name] = run()
            seconds[name] = min(seconds[name], time.process_time() - begun)
    return seconds, found


def measure_encoding(model: str, texts: list[str], repeats: int) -> dict[str, Any]:
    from sentence_transformers import SentenceTransformer

    from adaptkit.embed.encoder import Encoder

    ours, theirs = Encoder.load(model), SentenceTransformer(model, device="cpu")
    sides = {
        "adaptkit": lambda: ours.encode(texts),
        "sentence-transformers": lambda: theirs.encode(texts, show_progress_bar=False),
    }
    for run in sides.values():
        run()
    seconds, found = fastest(sides, repeats)
    cosine = (found["adaptkit"] * found["sentence-transformers"]).sum(1).min()
    return {
        "texts": len(texts),
        "cpu_seconds": seconds,
        "min_cosine": float(cosine),
        "ratio": seconds["sentence-transformers"] / seconds["adaptkit"],
    }


def pairs_of(texts: list[str]) -> list[tuple[str, str]]:
    """A short and a long text each: the first eight words, and all of it."""
    return [(" ".join(text.split()[:8]), text) for text in texts]


def train_ours(model: str, pairs: list[tuple[str, str]], batch: int, microbatch: int, steps: int) -> Any:
    from adaptkit.embed.encoder import Encoder
    from adaptkit.embed.objective import Contrastive
    from adaptkit.embed.rows import Example, TextRows, groups_of
    from adaptkit.run import Run
    from adaptkit.trainer.config import TrainerConfig
    from adaptkit.trainer.trainer import Trainer

    encoder = Encoder.load(model)
    encoder.limit(MAX_LENGTH)
    examples = [Example(pair, f"pairs:{i}") for i, pair in enumerate(pairs)]
    rows = TextRows(examples, encoder, ("", ""), groups_of(examples))
    config = TrainerConfig(
        num_steps=steps,
        global_batch_size=batch,
        microbatch_size=microbatch,
        learning_rate=RATE,
        schedule="constant",
        warmup_fraction=0.0,
        threads=1,
        checkpoint_every=0,
        log_every=steps,
    )
    with tempfile.TemporaryDirectory() as folder:
        return Trainer(
            encoder.model, Contrastive(temperature=TEMPERATURE), rows, config, run=Run(folder)
        ).fit()


def train_theirs(model: str, pairs: list[tuple[str, str]], batch: int, steps: int) -> None:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    encoder = SentenceTransformer(model, device="cpu")
    encoder.max_seq_length = MAX_LENGTH
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            learning_rate=RATE,
            lr_scheduler_type="constant",
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        data = Dataset.from_dict({"anchor": [a for a, _ in pairs], "positive": [p for _, p in pairs]})
        loss = MultipleNegativesRankingLoss(encoder, scale=1 / TEMPERATURE)
        SentenceTransformerTrainer(encoder, arguments, train_dataset=data, loss=loss).train()


def measure_training(model: str, texts: list[str], batch: int, steps: int) -> dict[str, Any]:
    """Seconds of `steps` steps: what 1 step takes is taken off, loading and tokenising with it."""
    pairs = pairs_of(texts)
    seconds = {}
    sides: dict[str, Callable[[int], Any]] = {
        "adaptkit": lambda num: train_ours(model, pairs, batch, 0, num),
        "sentence-transformers": lambda num: train_theirs(model, pairs, batch, num),
    }
    for name, run in sides.items():
        run(1)
        spent = []
        for num in (1, 1 + steps):
            begun = time.process_time()
            run(num)
            spent.append(time.process_time() - begun)
        seconds[name] = spent[1] - spent[0]
    rates = {name: batch * steps / spent for name, spent in seconds.items()}
    return {
        "batch": batch,
        "steps": steps,
        "examples_per_cpu_second": rates,
        "ratio": rates["adaptkit"] / rates["sentence-transformers"],
    }


def measure_memory(words: list[str]) -> dict[str, Any]:
    """Peak of one training step at two batch sizes, in a child each."""
    peaks = {}
    for batch in (64, 4096):
        done = subprocess.run(
            [sys.executable, __file__, *words, "--child", str(batch)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[batch] = json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"]
    return {"peak_memory_bytes": peaks, "microbatch": 16, "ratio": peaks[4096] / peaks[64]}


def child(model: str, texts: list[str], batch: int) -> None:
    """One step on short texts: what grows with the batch are the vectors and the scores."""
    words = [text.split()[:3] for text in texts]
    pairs = [
        (f"{number} {words[number % len(words)][0]}", " ".join([*words[number % len(words)], str(number)]))
        for number in range(4096)
    ]
    train_ours(model, pairs, batch, 16, 1)
    print(json.dumps({"peak_memory_bytes": _peak_resident()}))


def _peak_resident() -> int:
    """Of this program alone: `ru_maxrss` would count what the parent held when it forked."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("texts")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--child", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    texts = read_texts(options.texts, options.num)
    if options.child:
        child(options.model, texts, options.child)
        return
    found: dict[str, Any] = {"encode": measure_encoding(options.model, texts, options.repeats)}
    print(json.dumps(found), flush=True)
    found["train"] = measure_training(options.model, texts, options.batch, options.steps)
    print(json.dumps(found), flush=True)
    found["memory"] = measure_memory([options.model, options.texts, "--num", str(options.num)])
    met = {
        "encode": found["encode"]["ratio"] >= GOALS["encode"],
        "train": found["train"]["ratio"] >= GOALS["train"],
    }
    met["memory"] = found["memory"]["ratio"] <= GOALS["memory"]
    found |= {"goals": GOALS, "met": met}
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(0 if all(met.values()) else 1)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path[:0] = [str(ROOT), str(ROOT / "kernels" / "torch-ext")]
    main()
