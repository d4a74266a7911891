"""Peak memory of a distillation step at a vocabulary of 50,000: the head as the trainer computes it, and in
plain torch.

    python benchmarks/distill_memory.py --out benchmarks/results/distill_memory.json

Both sides run in a process of their own: hidden states and head of student and teacher, forward KL mixed with
cross-entropy, forward and backward. Peak is of resident memory, above what the process held before the step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

from adaptkit.environment import environment
from adaptkit.run import write_json

VOCAB, TOKENS, STUDENT, TEACHER = 50_000, 2048, 256, 384
SIDES = ("chunked", "reference")


def step(side: str, answers: Any) -> None:
    """One step in this process; puts (peak bytes of the step, loss) into `answers`."""
    import torch

    from adaptkit import ops

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    student = [
        torch.randn(n, STUDENT, generator=generator).mul_(0.2).requires_grad_(True) for n in (TOKENS, VOCAB)
    ]
    teacher = ops.HiddenTeacher(
        *(torch.randn(n, TEACHER, generator=generator).mul_(0.2) for n in (TOKENS, VOCAB))
    )
    labels = torch.randint(0, VOCAB, (TOKENS,), generator=generator)
    for tokens in (8, TOKENS):  # the first pass loads what the libraries load
        head = ops.HiddenTeacher(teacher.hidden_TE[:tokens], teacher.weight_VE)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        total, _, _ = ops.linear_distillation(
            student[0][:tokens],
            student[1],
            head,
            labels[:tokens],
            ce_weight=0.1,
            kd_weight=0.9,
            implementation=side,
        )
        total.backward()
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answers.put((after - before) * 1024)
    answers.put(total.item())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    found = {}
    context = multiprocessing.get_context("spawn")
    for side in SIDES:
        answers = context.Queue()
        process = context.Process(target=step, args=(side, answers))
        process.start()
        found[side] = {"peak_bytes": answers.get(), "loss": answers.get()}
        process.join()
    ratio = found["chunked"]["peak_bytes"] / found["reference"]["peak_bytes"]
    sizes = {"vocab_size": VOCAB, "tokens": TOKENS, "student_width": STUDENT, "teacher_width": TEACHER}
    command = "python benchmarks/distill_memory.py --out benchmarks/results/distill_memory.json"
    head = {
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
        **sizes,
        "two_logit_tensors_bytes": 2 * 4 * VOCAB * TOKENS,
    }
    write_json(options.out, {**head, "sides": found, "ratio": ratio, "environment": environment()})
    print(
        json.dumps(
            {side: f"{told['peak_bytes'] / 2**20:.0f} MiB" for side, told in found.items()}
            | {"ratio": round(ratio, 3)}
        )
    )


if __name__ == "__main__":
    main()
