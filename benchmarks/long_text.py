"""Peak memory of a training step against the length of one document.

    python benchmarks/long_text.py --out benchmarks/results/long_text.json
    python benchmarks/long_text.py --params 100M --lengths 4k,16k,64k

Each length and setting trains two steps of one row in a process of its own: `plain` computes all logits at
once and keeps activations, `head` computes logits a chunk at a time, `blocks` also computes the activations
of each block again in the backward pass (`trainer.gradient_checkpointing`). Peak is of device memory on a GPU
and of resident memory elsewhere, beyond what the process held before; weights, their gradients and the
optimizer's two moments, 16 bytes a weight, are in it. A setting that would need more than `--limit` by its
last two lengths is left out from there on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from adaptkit.environment import environment
from adaptkit.run import write_json

SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"implementation": "reference"},
    "head": {"implementation": "auto"},
    "blocks": {"implementation": "auto", "gradient_checkpointing": True},
}
VOCAB = 32_000


class OneDocument:
    """A source of rows that each are one document of random tokens."""

    def __init__(self, length: int):
        self.num_tokens = length

    def __len__(self) -> int:
        return 2

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Any]:
        import torch

        generator = torch.Generator().manual_seed(seed + indices[0])
        ids = torch.randint(0, VOCAB, (len(indices), self.num_tokens), generator=generator)
        return {"input_ids": ids, "labels": ids.roll(-1, 1)}

    def where(self, index: int) -> str:
        return f"document {index}"


def two_steps(setting: str, params: int, length: int) -> float:
    """Train two steps of one row; seconds of the second."""
    from adaptkit import models
    from adaptkit.architecture import SizeConfig, architecture
    from adaptkit.run import Run
    from adaptkit.trainer.config import TrainerConfig
    from adaptkit.trainer.objective import CausalLM
    from adaptkit.trainer.trainer import Trainer

    shape = architecture(SizeConfig(params=params, seq_len=length), VOCAB)
    config = TrainerConfig(
        num_steps=2, global_batch_size=1, log_every=1, cuda_graph="off", **SETTINGS[setting]
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run.open(folder, "long", {"setting": setting})
        objective, source = CausalLM(config.implementation), OneDocument(length)
        Trainer(models.build(shape, "causal", seed=0), objective, source, config, run=run).fit()
        seconds = [row["seconds"] for row in run.metrics() if "loss" in row]
    return seconds[-1] - seconds[-2]


def train(setting: str, params: int, length: int, answers: Any) -> None:
    """Two steps in this process; puts (peak bytes, seconds of the second) into `answers`."""
    import torch

    two_steps(setting, number("3M"), 16)  # loads what the libraries load
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = two_steps(setting, params, length)
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
    answers.put((peak, seconds))


def measured(setting: str, params: int, length: int) -> dict[str, float]:
    """One length in a fresh process; nothing where the system ended it for want of memory."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=train, args=(setting, params, length, answers))
    process.start()
    while process.is_alive() and answers.empty():
        time.sleep(0.1)
    process.join()
    if process.exitcode == -signal.SIGKILL:
        return {}
    if process.exitcode:
        raise SystemExit(f"{setting} at {length} tokens failed: see above")
    return dict(zip(("peak_bytes", "seconds"), answers.get(), strict=True))


def number(text: str) -> int:
    """`16k` is 16,384 tokens and `10M` ten million weights."""
    units = {"k": 1024, "M": 10**6}
    return int(float(text[:-1]) * units[text[-1]]) if text[-1] in units else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--params", type=number, default=number("10M"), help="weights; default 10M")
    parser.add_argument("--lengths", default="1k,2k,4k,8k,16k,32k", help="tokens of the document")
    parser.add_argument("--limit", type=float, default=12.0, help="GiB that no training may need")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS:
        peaks: list[float] = []
        for length in map(number, options.lengths.split(",")):
            if len(peaks) > 1 and 2 * peaks[-1] - peaks[-2] > options.limit * 2**30:
                break
            found = measured(setting, options.params, length)
            if not found:
                break
            peaks.append(found["peak_bytes"])
            rows.append({"setting": setting, "tokens": length, **found})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        head = {"date": time.strftime("%Y-%m-%d"), "params": options.params, "vocab_size": VOCAB}
        write_json(options.out, {**head, "rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()
