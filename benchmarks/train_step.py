"""adaptkit's trainer against transformers' Trainer: same model, packed data, order, settings and threads.

    python benchmarks/train_step.py --out result.json            # the CPU cases, one thread
    python benchmarks/train_step.py --cases small --steps 6      # half a minute
    python benchmarks/train_step.py --cases 10M 125M 350M 1B --out result.json     # on a GPU, against Liger
    python benchmarks/train_step.py --cases 125M --documents 0 --set compile=true  # whole rows; compiled

Each side runs in a process of its own, so that peak memory is its own, and has a limit of seconds; sides
alternate, and the fastest repetition counts. What a side has to say goes to stderr, and a side that fails or
takes too long is said.

On a CPU the verdict is on CPU seconds, which a busy machine does not distort; wall time is printed beside. On
a GPU it is on wall time between synchronisations ten steps apart, in bf16, and transformers' Trainer runs
with Liger-Kernel (pip install liger-kernel). Losses are compared step by step. Exit code 1 if adaptkit is
slower, needs more memory, or the losses differ by more than 1e-4 (bf16: 1e-2).
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
PEAK = 989e12
"""Dense bf16 FLOP/s of an H100 or H200, from NVIDIA's data sheets: what MFU is a share of."""
CASES = {
    "small": {"vocab_size": 4096, "hidden_size": 192, "layers": 4, "heads": 6, "seq_len": 128, "batch": 16},
    "medium": {"vocab_size": 8192, "hidden_size": 256, "layers": 8, "heads": 4, "seq_len": 512, "batch": 2},
    "large_vocabulary": {
        "vocab_size": 32768,
        "hidden_size": 256,
        "layers": 4,
        "heads": 4,
        "seq_len": 512,
        "batch": 2,
    },
    "vocabulary_50k": {
        "vocab_size": 50304,
        "hidden_size": 256,
        "layers": 4,
        "heads": 4,
        "seq_len": 512,
        "batch": 8,
    },
}
GPU_CASES = {
    "10M": {"vocab_size": 32768, "hidden_size": 256, "layers": 8, "heads": 4, "seq_len": 2048, "batch": 8},
    "125M": {"vocab_size": 50304, "hidden_size": 768, "layers": 12, "heads": 12, "seq_len": 2048, "batch": 8},
    "350M": {
        "vocab_size": 50304,
        "hidden_size": 1024,
        "layers": 24,
        "heads": 16,
        "seq_len": 2048,
        "batch": 8,
    },
    "1B": {"vocab_size": 128256, "hidden_size": 2048, "layers": 16, "heads": 32, "seq_len": 2048, "batch": 8},
}


class Packed:
    """Random documents of `case["documents"]` tokens, packed: restarting positions, no label on a document's
    first token."""

    def __init__(self, case: dict[str, int], num_examples: int):
        import torch

        length = case["seq_len"]
        generator = torch.Generator().manual_seed(1)
        self.input_ids = torch.randint(0, case["vocab_size"], (num_examples, length), generator=generator)
        self.position_ids = (
            torch.arange(length).remainder(case.get("documents") or length).expand(num_examples, length)
        )
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
    """CPU and wall seconds at the end of every `window` steps; on a GPU the device is waited for then, and
    only then."""

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
        vocab_size=case["vocab_size"],
        hidden_size=case["hidden_size"],
        intermediate_size=case["hidden_size"] * 3,
        num_hidden_layers=case["layers"],
        num_attention_heads=case["heads"],
        tie_word_embeddings=True,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        return LlamaForCausalLM(config)


def ours(case: dict[str, int], steps: int, clock: Clock, settings: dict[str, Any]) -> list[float]:
    from adaptkit.models import packed
    from adaptkit.run import Run
    from adaptkit.trainer.config import TrainerConfig
    from adaptkit.trainer.objective import CausalLM
    from adaptkit.trainer.progress import Hooks
    from adaptkit.trainer.trainer import Trainer

    class Ticks(Hooks):
        def on_step_end(self, row: dict[str, Any]) -> None:
            clock.tick(row["step"])

    class Unsaved(Trainer):
        """The last checkpoint of 1B is 14 GB, and no part of a step."""

        def _save(self) -> None: ...

    config = TrainerConfig(
        num_steps=steps,
        global_batch_size=case["batch"],
        learning_rate=1e-3,
        schedule="constant",
        warmup_fraction=0.0,
        log_every=clock.window,
        checkpoint_every=0,
        threads=int(os.environ["OMP_NUM_THREADS"]),
        **settings,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder)
        model = build(case)
        packed.use(model)
        Unsaved(
            model, CausalLM(), Packed(case, steps * case["batch"]), config, run=run, hooks=[Ticks()]
        ).fit()
        facts = run.manifest()["training"]["train"]
        told = ("compiled", "cuda_graph", "recorded_shapes", "not_recorded")
        print(json.dumps({name: facts.get(name) for name in told}), file=sys.stderr, flush=True)
        return [row["loss"] for row in run.metrics()]


def theirs(case: dict[str, int], steps: int, clock: Clock, settings: dict[str, Any]) -> list[float]:
    import transformers
    from torch.utils.data import Subset

    from adaptkit.trainer.row_source import Order

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
            output_dir=folder,
            use_cpu=not clock.gpu,
            bf16=clock.gpu,
            use_liger_kernel=clock.gpu,
            max_steps=steps,
            per_device_train_batch_size=case["batch"],
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            weight_decay=0.1,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            train_sampling_strategy="sequential",
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            model,
            arguments,
            data_collator=transformers.default_data_collator,
            train_dataset=data_in_our_order,
            callbacks=[Ticks()],
        )
        trainer.train()
    means = [loss.item() for loss in losses]
    return [sum(means[at : at + clock.window]) / clock.window for at in range(0, len(means), clock.window)]


def measure(
    side: str, case: dict[str, int], steps: int, gpu: bool, settings: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One side, in this process; `settings` are of our trainer."""
    import gc
    import resource

    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    if gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    clock = Clock(gpu)
    losses = {"adaptkit": ours, "transformers": theirs}[side](case, steps, clock, settings or {})
    cpu, wall = clock.seconds()
    peak = (
        torch.cuda.max_memory_allocated()
        if gpu
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    tokens = case["seq_len"] * case["batch"] / wall
    return {
        "cpu_s_per_step": cpu,
        "wall_s_per_step": wall,
        "tokens_per_s": tokens,
        "mfu": tokens * train_flops(case) / PEAK if gpu else None,
        "peak_memory_bytes": peak,
        "losses": losses,
    }


def train_flops(case: dict[str, int]) -> float:
    """Per token: 6 for each weight of a product (the tied head once), and attention over whole rows or
    documents, causal."""
    width, length = case["hidden_size"], case.get("documents") or case["seq_len"]
    products = case["layers"] * (4 + 3 * 3) * width**2 + case["vocab_size"] * width
    return 6 * products + 6 * case["layers"] * width * length


def run_side(side: str, name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """One side of a case in a process of its own; None, with the reason on stderr, if it fails or takes too
    long."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), str(ROOT / "kernels/torch-ext"), environment.get("PYTHONPATH", "")]
    )
    command = [sys.executable, __file__, "--side", side, "--cases", name, "--steps", str(options.steps)]
    command += ["--documents", str(options.documents), *(f"--set={setting}" for setting in options.set)]
    try:
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, timeout=options.limit
        )
    except subprocess.TimeoutExpired:
        print(f"{name}: {side} took longer than {options.limit} s", file=sys.stderr)
        return None
    if done.returncode:
        print(f"{name}: {side} ended with exit code {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def compare(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """Both sides of a case, alternating; None if one of them never finished."""
    case, clock = (
        case_of(name, options.documents),
        "wall_s_per_step" if name in GPU_CASES else "cpu_s_per_step",
    )
    rows: dict[str, list[dict[str, Any]]] = {"adaptkit": [], "transformers": []}
    for _ in range(options.repeats):
        for side in rows:
            row = run_side(side, name, options)
            rows[side] += [row] if row else []
    if not all(rows.values()):
        return None
    best = {
        side: {
            key: min(row[key] for row in found)
            for key in ("cpu_s_per_step", "wall_s_per_step", "peak_memory_bytes")
        }
        for side, found in rows.items()
    }
    us, them, tokens = best["adaptkit"], best["transformers"], case["seq_len"] * case["batch"]
    return {
        "case": name,
        **case,
        "threads": options.threads,
        "settings": options.set,
        "tokens_per_cpu_s": {side: tokens / row["cpu_s_per_step"] for side, row in best.items()},
        "tokens_per_wall_s": {side: tokens / row["wall_s_per_step"] for side, row in best.items()},
        "mfu": {
            side: max((row["mfu"] for row in found if row["mfu"]), default=None)
            for side, found in rows.items()
        },
        "peak_memory_bytes": {side: row["peak_memory_bytes"] for side, row in best.items()},
        "speed_ratio": them[clock] / us[clock],
        "wall_speed_ratio": them["wall_s_per_step"] / us["wall_s_per_step"],
        "memory_ratio": us["peak_memory_bytes"] / them["peak_memory_bytes"],
        "largest_loss_difference": max(
            abs(a - b)
            for a, b in zip(rows["adaptkit"][0]["losses"], rows["transformers"][0]["losses"], strict=True)
        ),
    }


def case_of(name: str, documents: int) -> dict[str, int]:
    return {**CASES, **GPU_CASES}[name] | {"documents": documents}


def provenance(out: Path) -> dict[str, Any]:
    """What made these figures: command (without the folder of `out`), day, versions, processor."""
    import datetime
    import importlib.metadata

    import torch

    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")}
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    )
    command = " ".join(
        [
            "python",
            "benchmarks/train_step.py",
            *(out.name if arg == str(out) else arg for arg in sys.argv[1:]),
        ]
    )
    return {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": versions,
        "device": device,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=[*CASES, *GPU_CASES], default=list(CASES))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--documents", type=int, default=40, help="tokens of a document; 0: whole rows")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="a setting of our trainer: compile=true",
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=600, help="seconds of one side, once")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="written anew after each case")
    parser.add_argument("--side", choices=["adaptkit", "transformers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, parts = options.cases[0], [each.partition("=") for each in options.set]
        settings = {key: json.loads(value) for key, _, value in parts}
        print(
            json.dumps(
                measure(
                    options.side, case_of(name, options.documents), options.steps, name in GPU_CASES, settings
                )
            )
        )
        return 0
    results, good = [], True
    for name in options.cases:
        row = compare(name, options)
        good &= row is not None and fits(name, row)
        if row is None:
            continue
        results.append(row)
        print(
            f"{name}: tokens/s {row['speed_ratio']:.2f}x (wall {row['wall_speed_ratio']:.2f}x), "
            f"peak memory {row['memory_ratio']:.2f}x, losses differ by {row['largest_loss_difference']:.1e}",
            flush=True,
        )
        if options.out:
            found = {**provenance(options.out), "results": results}
            options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if good else 1


def fits(name: str, row: dict[str, Any]) -> bool:
    """As fast as transformers' Trainer, in less memory, to the same losses."""
    allowed = 1e-4 if name in CASES else 1e-2
    return row["speed_ratio"] >= 1 and row["memory_ratio"] < 1 and row["largest_loss_difference"] <= allowed


if __name__ == "__main__":
    sys.exit(main())
