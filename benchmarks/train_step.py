"""adaptkit's trainer against transformers' Trainer: same model, packed data, order, settings and threads.

    python benchmarks/train_step.py --out result.json            # the CPU cases, one thread
    python benchmarks/train_step.py --cases small --steps 6      # half a minute
    python benchmarks/train_step.py --cases 10M 125M 350M 1B --steps 70 --out result.json      # on a GPU, against Liger

Each side runs in a process of its own, so that peak memory is its own; sides alternate, and the fastest repetition
counts. On a CPU the verdict is on CPU seconds, which a busy machine does not distort; wall time is printed beside. On a
GPU it is on wall time between synchronisations ten steps apart, in bf16, and transformers' Trainer runs with
Liger-Kernel (pip install liger-kernel). Losses are compared step by step. Exit code 1 if adaptkit is slower, needs more
memory, or the losses differ by more than 1e-4 (bf16: 1e-2).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    "small": {"vocab_size": 4096, "hidden_size": 192, "layers": 4, "heads": 6, "seq_len": 128, "batch": 16},
    "medium": {"vocab_size": 8192, "hidden_size": 256, "layers": 8, "heads": 4, "seq_len": 512, "batch": 2},
    "large_vocabulary": {"vocab_size": 32768, "hidden_size": 256, "layers": 4, "heads": 4, "seq_len": 512, "batch": 2},
    "vocabulary_50k": {"vocab_size": 50304, "hidden_size": 256, "layers": 4, "heads": 4, "seq_len": 512, "batch": 8},
}
GPU_CASES = {
    "10M": {"vocab_size": 32768, "hidden_size": 256, "layers": 8, "heads": 4, "seq_len": 2048, "batch": 8},
    "125M": {"vocab_size": 50304, "hidden_size": 768, "layers": 12, "heads": 12, "seq_len": 2048, "batch": 8},
    "350M": {"vocab_size": 50304, "hidden_size": 1024, "layers": 24, "heads": 16, "seq_len": 2048, "batch": 8},
    "1B": {"vocab_size": 128256, "hidden_size": 2048, "layers": 16, "heads": 32, "seq_len": 2048, "batch": 8},
}


class Packed:
    """Random documents of 40 tokens, packed: restarting positions, no label on a document's first token."""

    def __init__(self, case: dict[str, int], num_examples: int):
        import torch

        length = case["seq_len"]
        generator = torch.Generator().manual_seed(1)
        self.input_ids = torch.randint(0, case["vocab_size"], (num_examples, length), generator=generator)
        self.position_ids = torch.arange(length).remainder(40).expand(num_examples, length)
        self.labels = self.input_ids.masked_fill(self.position_ids == 0, -100)

    def __len__(self) -> int:
        return len(self.input_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: getattr(self, name)[index] for name in ("input_ids", "position_ids", "labels")}

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Any]:
        return {name: getattr(self, name)[indices] for name in ("input_ids", "position_ids", "labels")}

    def where(self, index: int) -> str:
        return f"random:{index}"


class Clock:
    """CPU and wall seconds at the end of every `window` steps; on a GPU the device is waited for then, and only then."""

    def __init__(self, gpu: bool) -> None:
        self.gpu, self.window = gpu, 10 if gpu else 1
        self.ticks: list[tuple[float, float]] = []

    def tick(self, step: int) -> None:
        """To be called after each step, counted from 1."""
        if step % self.window:
            return
        if self.gpu:
            import torch

            torch.cuda.synchronize()
        self.ticks.append((time.process_time(), time.perf_counter()))

    def seconds(self) -> tuple[float, float]:
        """Median CPU and wall seconds of a step; the first two windows are warmup."""
        import statistics

        pairs = list(zip(self.ticks[1:], self.ticks[2:], strict=False))
        cpu, wall = (statistics.median(b[axis] - a[axis] for a, b in pairs) / self.window for axis in (0, 1))
        return cpu, wall


def build(case: dict[str, int]) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case["vocab_size"], hidden_size=case["hidden_size"], intermediate_size=case["hidden_size"] * 3,
        num_hidden_layers=case["layers"], num_attention_heads=case["heads"], tie_word_embeddings=True, use_cache=False,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def ours(case: dict[str, int], steps: int, clock: Clock) -> list[float]:
    from adaptkit.models import packed
    from adaptkit.run import Run
    from adaptkit.trainer.config import TrainerConfig
    from adaptkit.trainer.objective import CausalLM
    from adaptkit.trainer.progress import Hooks
    from adaptkit.trainer.trainer import Trainer

    class Ticks(Hooks):
        def on_step_end(self, row: dict[str, Any]) -> None:
            clock.tick(row["step"])

    config = TrainerConfig(
        num_steps=steps, global_batch_size=case["batch"], learning_rate=1e-3, schedule="constant", warmup_fraction=0.0,
        log_every=clock.window, checkpoint_every=0, threads=int(os.environ["OMP_NUM_THREADS"]),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        model = build(case)
        packed.use(model)
        Trainer(model, CausalLM(), Packed(case, steps * case["batch"]), config, run=run, hooks=[Ticks()]).fit()
        return [row["loss"] for row in run.metrics()]


def theirs(case: dict[str, int], steps: int, clock: Clock) -> list[float]:
    import transformers
    from torch.utils.data import Subset

    from adaptkit.trainer.source import Order

    class Ticks(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            clock.tick(state.global_step)

    model, losses = build(case), []
    model.register_forward_hook(lambda module, args, output: losses.append(output.loss.detach()))
    data = Packed(case, steps * case["batch"])
    order = Order(len(data), case["batch"], seed=0)
    data_in_our_order = Subset(data, [index for step in range(steps) for index in order.step(step)[0]])
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder, use_cpu=not clock.gpu, bf16=clock.gpu, use_liger_kernel=clock.gpu, max_steps=steps,
            per_device_train_batch_size=case["batch"], learning_rate=1e-3,
            lr_scheduler_type="constant", weight_decay=0.1, adam_beta2=0.95, max_grad_norm=1.0, save_strategy="no",
            logging_strategy="no", report_to="none", train_sampling_strategy="sequential", disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            model, arguments, data_collator=transformers.default_data_collator, train_dataset=data_in_our_order, callbacks=[Ticks()]
        )
        trainer.train()
    means = [loss.item() for loss in losses]
    return [sum(means[at : at + clock.window]) / clock.window for at in range(0, len(means), clock.window)]


def measure(side: str, case: dict[str, int], steps: int, gpu: bool) -> dict[str, Any]:
    """One side, in this process."""
    import resource

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    clock = Clock(gpu)
    losses = {"adaptkit": ours, "transformers": theirs}[side](case, steps, clock)
    cpu, wall = clock.seconds()
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"cpu_s_per_step": cpu, "wall_s_per_step": wall, "peak_memory_bytes": peak, "losses": losses}


def compare(name: str, steps: int, repeats: int, threads: int) -> dict[str, Any]:
    """Both sides of a case in processes of their own, alternating."""
    case, clock = {**CASES, **GPU_CASES}[name], "wall_s_per_step" if name in GPU_CASES else "cpu_s_per_step"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "kernels/torch-ext"), environment.get("PYTHONPATH", "")])
    rows: dict[str, list[dict[str, Any]]] = {"adaptkit": [], "transformers": []}
    for _ in range(repeats):
        for side in rows:
            command = [sys.executable, __file__, "--side", side, "--cases", name, "--steps", str(steps)]
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            rows[side].append(json.loads(output.splitlines()[-1]))
    best = {
        side: {key: min(row[key] for row in found) for key in ("cpu_s_per_step", "wall_s_per_step", "peak_memory_bytes")}
        for side, found in rows.items()
    }
    us, them, tokens = best["adaptkit"], best["transformers"], case["seq_len"] * case["batch"]
    return {
        "case": name, **case, "threads": threads,
        "tokens_per_cpu_s": {side: tokens / row["cpu_s_per_step"] for side, row in best.items()},
        "tokens_per_wall_s": {side: tokens / row["wall_s_per_step"] for side, row in best.items()},
        "peak_memory_bytes": {side: row["peak_memory_bytes"] for side, row in best.items()},
        "speed_ratio": them[clock] / us[clock],
        "wall_speed_ratio": them["wall_s_per_step"] / us["wall_s_per_step"],
        "memory_ratio": us["peak_memory_bytes"] / them["peak_memory_bytes"],
        "largest_loss_difference": max(
            abs(a - b) for a, b in zip(rows["adaptkit"][0]["losses"], rows["transformers"][0]["losses"], strict=True)
        ),
    }  # fmt: skip


def provenance(out: Path) -> dict[str, Any]:
    """What made these figures: command (without the folder of `out`), day, versions, processor."""
    import datetime
    import importlib.metadata

    import torch

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    command = " ".join(["python", "benchmarks/train_step.py", *(out.name if arg == str(out) else arg for arg in sys.argv[1:])])
    return {"command": command, "date": datetime.date.today().isoformat(), "versions": versions, "device": device}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, *GPU_CASES], default=list(CASES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", choices=["adaptkit", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name = options.cases[0]
        print(json.dumps(measure(options.side, {**CASES, **GPU_CASES}[name], options.steps, name in GPU_CASES)))
        return 0
    results = []
    for name in options.cases:
        row = compare(name, options.steps, options.repeats, options.threads)
        results.append(row)
        print(
            f"{name}: tokens/s {row['speed_ratio']:.2f}x (wall {row['wall_speed_ratio']:.2f}x), "
            f"peak memory {row['memory_ratio']:.2f}x, largest loss difference {row['largest_loss_difference']:.1e}"
        )
    if options.out:
        found = {**provenance(options.out), "results": results}
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    allowed = {name: 1e-4 if name in CASES else 1e-2 for name in options.cases}
    good = all(
        r["speed_ratio"] >= 1 and r["memory_ratio"] < 1 and r["largest_loss_difference"] <= allowed[r["case"]] for r in results
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
