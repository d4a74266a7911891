"""What the chunked loss saves on a CPU: rows without labels, and the logits themselves.

    python kernels/benchmarks/head_on_cpu.py --out kernels/benchmarks/results/head_on_cpu.json

Two comparisons, each in one run: a masked language model's head over its labelled rows (15 %) against the
    same head over
all rows, in CPU seconds; and a causal head at V = 50304 against plain torch, which stores the logits, in peak
memory beyond the inputs. One thread; every side runs in a process of its own, the sides take turns, the
fastest turn counts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch-ext"))

CASES = {
    "masked 8k": {"tokens": 4096, "width": 256, "vocab": 8192, "labelled": 0.15},
    "masked 32k": {"tokens": 4096, "width": 256, "vocab": 32768, "labelled": 0.15},
    "causal 50k": {"tokens": 4096, "width": 256, "vocab": 50304, "labelled": 1.0},
}
SIDES = ("plain", "chunked")
REPEATS, TURNS = 3, 3


def measure(case: dict[str, Any], side: str) -> dict[str, float]:
    """CPU seconds of one forward and backward, peak bytes beyond the inputs, and the loss, in this
    process."""
    import torch
    from adaptkit_kernels import chunked, reference

    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = torch.randn(case["tokens"], case["width"], requires_grad=True)
    weight = (torch.randn(case["vocab"], case["width"]) * 0.05).requires_grad_()
    labels = torch.randint(case["vocab"], (case["tokens"],))
    labels[torch.rand(case["tokens"]) >= case["labelled"]] = reference.IGNORE_INDEX
    rows = (labels != reference.IGNORE_INDEX).nonzero().flatten()

    def step() -> float:
        loss = (
            chunked.linear_cross_entropy(hidden, weight, labels, rows_R=rows)
            if side == "chunked"
            else (reference.linear_cross_entropy(hidden, weight, labels))
        )
        loss.backward()
        hidden.grad = weight.grad = None
        return loss.item()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    value = step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        step()
        seconds.append(time.process_time() - started)
    return {"cpu_s": min(seconds), "peak_bytes": peak * 1024, "loss": value}


def compare(name: str) -> dict[str, Any]:
    """Both sides of a case, taking turns in processes of their own."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(TURNS):
        for side in SIDES:
            command = [sys.executable, __file__, "--case", name, "--side", side]
            output = subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            ).stdout
            found[side].append(json.loads(output.splitlines()[-1]))
    best = {
        side: {key: min(row[key] for row in rows) for key in ("cpu_s", "peak_bytes")}
        for side, rows in found.items()
    }
    plain, ours = best["plain"], best["chunked"]
    return {
        "case": name,
        **CASES[name],
        **best,
        "speed_ratio": plain["cpu_s"] / ours["cpu_s"],
        "memory_ratio": ours["peak_bytes"] / plain["peak_bytes"],
        "loss_difference": abs(found["plain"][0]["loss"] / found["chunked"][0]["loss"] - 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(CASES[options.case], options.side)))
        return 0
    rows = [compare(name) for name in CASES]
    for row in rows:
        told = f"{row['speed_ratio']:.1f}x faster, {row['memory_ratio']:.2f}x the memory"
        print(f"{row['case']}: {told}, loss off {row['loss_difference']:.0e}")
    if options.out:
        import torch

        command = " ".join(["python", "kernels/benchmarks/head_on_cpu.py", *sys.argv[1:]])
        about = {"command": command, "date": datetime.date.today().isoformat(), "torch": torch.__version__}
        options.out.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["loss_difference"] < 1e-5 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
