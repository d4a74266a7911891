"""Everything worth knowing of one GPU, in one short run: is it right, and how fast is it beside its peer.

    python benchmarks/gpu.py --out results/h200 --seconds 540          # all stages; or: make gpu
    python benchmarks/gpu.py --out results/h200 --only tests ops       # some of them
    python benchmarks/gpu.py --out results/h200 --before ../old  # an older checkout beside, same card
    python benchmarks/gpu.py --out /tmp/dry --dry                # does every stage start? On a CPU, toy sizes

Stages, each with a limit, none stopped by another's failure: `warm` (compiles what is measured compiled; at
the same time `tests`: those marked gpu), `train` (ours in its variants, transformers' Trainer with
Liger-Kernel, the older checkout, and what a call costs the host), `profile` (GPU time of a step by kernel)
and `ops` (the operators alone, and the machine's two ceilings). Every figure is a line of `measured.jsonl` as
soon as it is known; `logs` has what each stage printed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "steps": ["tests/test_recorded.py", "tests/test_packed.py"],
    "training": ["tests/test_trainer.py", "tests/invariants/test_fused_training.py"],
    "layers": [
        f"tests/parity/test_{name}.py" for name in ("norms", "gated", "rope", "lora_linear", "fused_models")
    ],
    "losses": [
        f"tests/parity/test_{name}.py" for name in ("linear_cross_entropy", "linear_distillation", "info_nce")
    ],
}
"""Run at the same time, each group in a process."""
VARIANTS = {
    "plain": {"compile": False, "cuda_graph": "off"},
    "recorded": {"compile": False},
    "compiled": {"compile": True, "cuda_graph": "off"},
    "both": {"compile": True},
}
"""Settings of our trainer by the name that rows carry."""
OURS = [
    ("125M", 0, "recorded"),
    ("125M", 0, "both"),
    ("10M", 0, "recorded"),
    ("125M", 40, "recorded"),
    ("125M", 40, "both"),
    ("10M", 0, "both"),
    ("350M", 0, "recorded"),
    ("350M", 0, "both"),
    ("1B", 0, "both"),
    ("125M", 0, "plain"),
    ("10M", 0, "plain"),
    ("350M", 0, "plain"),
    ("1B", 0, "recorded"),
    ("125M", 0, "compiled"),
    ("125M", 40, "plain"),
]
THEIRS = [("125M", 0, ""), ("10M", 0, ""), ("125M", 40, ""), ("350M", 0, ""), ("1B", 0, "")]
PROFILED = [("350M", 0), ("1B", 0), ("125M", 40)]
BEFORE = [("125M", 0, ""), ("10M", 0, ""), ("125M", 40, "")]
TOY = {"vocab_size": 512, "hidden_size": 64, "layers": 2, "heads": 2, "seq_len": 64, "batch": 2}


class Session:
    """Where results go, and how long there is."""

    def __init__(self, out: Path, seconds: float, dry: bool, cases: list[str], variants: list[str]):
        self.out, self.deadline, self.dry = out, time.monotonic() + seconds, dry
        self.cases, self.variants = cases, variants
        self.started = time.monotonic()
        out.mkdir(parents=True, exist_ok=True)

    def left(self, limit: float) -> float:
        return max(1.0, min(limit, self.deadline - time.monotonic()))

    def write(self, **row: Any) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        with (self.out / "measured.jsonl").open("a") as file:
            file.write(line + "\n")

    def start(self, name: str, command: list[str], root: Path = ROOT) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        environment.setdefault("OMP_NUM_THREADS", "4")
        environment["PYTHONPATH"] = os.pathsep.join(
            [str(root), str(root / "kernels/torch-ext"), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        if self.dry:
            environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        print(f"--- {name} (at {time.monotonic() - self.started:.0f} s)", flush=True)
        logs = self.out / "logs"
        logs.mkdir(exist_ok=True)
        log = (logs / f"{name.replace(' ', '-')}.txt").open("ab")
        return subprocess.Popen([sys.executable, *command], env=environment, cwd=root, stdout=log, stderr=log)

    def wait(self, name: str, process: subprocess.Popen[bytes], limit: float) -> None:
        began = time.monotonic()
        try:
            code: int | str = process.wait(self.left(limit))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "too long"
        self.write(kind="stage", name=name, exit=code, seconds=round(time.monotonic() - began, 1))

    def worker(self, *arguments: str, steps: int = 50) -> list[str]:
        command = [
            str(Path(__file__).resolve()),
            "--out",
            str(self.out),
            "--steps",
            str(steps),
            *(["--dry"] if self.dry else []),
            *(["--cases", *self.cases] if self.cases else []),
            *(["--variants", *self.variants] if self.variants else []),
        ]
        return [*command, "--worker", *arguments]


def environment(session: Session, side: str) -> None:
    """Versions, the GPU, and what calls cost the host."""
    import torch

    names = ("torch", "triton", "transformers", "accelerate", "peft", "liger-kernel")
    found = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version
        for dist in importlib.metadata.distributions()
    }
    about = {
        "versions": {name: found.get(name, "missing") for name in names},
        "python": sys.version.split()[0],
    }
    device = "cpu, a dry run" if session.dry else torch.cuda.get_device_name()
    session.write(kind="environment", side=side, date=time.strftime("%Y-%m-%d"), device=device, **about)
    session.write(kind="host", side=side, **host_times(session.dry))


def host_times(dry: bool) -> dict[str, float]:
    """Microseconds of the host for one call of a layer, forward and backward, at a size where the GPU has
    nothing to do."""
    import torch
    from adaptkit_kernels.gated import swiglu
    from adaptkit_kernels.norms import add_rms_norm

    device = "cpu" if dry else "cuda"
    x, r = (torch.randn(8, 64, device=device, requires_grad=True) for _ in range(2))
    w = torch.randn(64, device=device, requires_grad=True)
    calls: dict[str, Callable[[], Any]] = {
        "add_rms_norm": lambda: add_rms_norm(x, r, w, 1e-6)[0],
        "swiglu": lambda: swiglu(x, r),
        "torch_mul": lambda: x * r,
    }
    times, number = {}, 3 if dry else 300
    for name, call in calls.items():
        for repeat in range(-20 if not dry else -1, number):
            if repeat == 0:
                started = time.perf_counter()
            out = call()
            torch.autograd.backward([out], [out.detach()])
        times[f"{name}_us"] = (time.perf_counter() - started) / number * 1e6
    return times


def warm_and_test(session: Session, stages: set[str]) -> None:
    """Compile in processes of their own, and run the tests marked gpu at the same time: nothing is timed
    here."""
    running = []
    if "warm" in stages:
        for case, documents in sorted(
            {(case, documents) for case, documents, variant in OURS if VARIANTS[variant]["compile"]}
        ):
            name = f"warm {case} {documents}"
            running.append((name, session.start(name, session.worker("warm", case, str(documents)))))
    for name, files in TESTS.items() if "tests" in stages else ():
        command = ["-m", "pytest", *files, "-m", "gpu", "-p", "no:cacheprovider", "-rfE", "--tb=short"]
        running.append((f"tests of {name}", session.start(f"tests of {name}", command)))
    limit = time.monotonic() + 120
    for name, process in running:
        session.wait(name, process, limit - time.monotonic())


def work(session: Session, side: str, steps: int, only: tuple[str, int] | None = None) -> None:
    """A side's measurements one after another in this process, or those of a case; a failure is a row too."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import traceback

    import torch
    import train_step

    os.environ.setdefault("OMP_NUM_THREADS", "4")
    if side in ("ours", "before"):
        environment(session, side)
    listed = {"ours": OURS, "warm": OURS, "theirs": THEIRS, "before": BEFORE}[side]
    for case, documents, variant in listed:
        settings = VARIANTS.get(variant, {})
        if only and ((case, documents) != only or not settings["compile"]):
            continue
        if session.cases and case not in session.cases:
            continue
        if session.variants and variant and variant not in session.variants:
            continue
        shape = (
            TOY | {"documents": min(documents, 10)}
            if session.dry
            else train_step.GPU_CASES[case] | {"documents": documents}
        )
        row: dict[str, Any] = {"side": side, "case": case, "documents": documents, "variant": variant}
        torch.compiler.reset()  # else shapes of the case before make this one's dynamic
        try:
            if side == "warm":
                train_step.ours(shape, 5, train_step.Clock(not session.dry), settings)
            else:
                program = "transformers" if side == "theirs" else "adaptkit"
                found = train_step.measure(
                    program, shape, 6 if session.dry else steps, not session.dry, settings
                )
                row |= {**found, "losses": found["losses"][:1] + found["losses"][-1:]}
            row["error"] = None
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            traceback.print_exc()
        session.write(kind="train", **row)
        if side == "warm":
            return


def profile(session: Session, case: str, documents: int, steps: int) -> None:
    """GPU time of a step by kernel, of the recorded and compiled step."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import torch
    import train_step

    os.environ.setdefault("OMP_NUM_THREADS", "4")
    shape = (TOY if session.dry else train_step.GPU_CASES[case]) | {
        "documents": min(documents, 10) if session.dry else documents
    }
    activities = [torch.profiler.ProfilerActivity.CPU] + (
        [] if session.dry else [torch.profiler.ProfilerActivity.CUDA]
    )
    window = 1 if session.dry else 10  # steps end in sight of the host every so many
    for variant in ("recorded", "both"):
        profiler = torch.profiler.profile(activities=activities)

        class Watch(train_step.Clock):
            def tick(self, step: int, profiler: Any = profiler) -> None:
                super().tick(step)
                if step == steps - window:
                    profiler.start()
                if step == steps:
                    profiler.stop()

        train_step.ours(shape, steps, Watch(not session.dry), VARIANTS[variant])
        kernels = [
            event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        times: dict[str, list[float]] = {}
        for event in (event for event in kernels if "#" not in event.name):  # which are spans of others
            total = times.setdefault(event.name[:100], [0.0, 0])
            total[0], total[1] = total[0] + event.time_range.elapsed_us() / 1e3, total[1] + 1
        rows = [(name, round(ms / window, 3), count / window) for name, (ms, count) in times.items()]
        about = {
            "case": case,
            "documents": shape["documents"],
            "variant": variant,
            "kernels": len(kernels) / window,
        }
        busy, top = sum(ms for _, ms, _ in rows), sorted(rows, key=lambda row: -row[1])[:40]
        session.write(kind="profile", **about, gpu_ms=busy, top=top)


def train(session: Session, before: Path | None, steps: int) -> None:
    sides = {"ours": ROOT, "theirs": ROOT, **({"before": before} if before else {})}
    for side, root in sides.items():
        limit = {"ours": 150, "theirs": 90, "before": 60}[side]
        session.wait(
            f"train {side}", session.start(f"train {side}", session.worker(side, steps=steps), root), limit
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    stages = ["warm", "tests", "train", "profile", "ops"]
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seconds", type=float, default=540, help="for everything")
    parser.add_argument(
        "--steps", type=int, default=50, help="of a measurement; fewer than 50 are not recorded"
    )
    parser.add_argument("--only", nargs="+", choices=stages, default=stages)
    parser.add_argument("--cases", nargs="+", default=[], help="models that are trained; all if left out")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[], help="of our trainer; all")
    parser.add_argument("--before", type=Path, help="an older checkout, to be measured beside")
    parser.add_argument("--dry", action="store_true", help="toy sizes on a CPU, in Triton's interpreter")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    session = Session(options.out.resolve(), options.seconds, options.dry, options.cases, options.variants)
    if options.worker:
        kind, *rest = options.worker
        if kind == "profile":
            profile(session, rest[0], int(rest[1]), int(rest[2]))
        else:
            only = (rest[0], int(rest[1])) if rest else None
            work(session, kind, options.steps, only)
        return 0
    chosen = set(options.only)
    if chosen & {"warm", "tests"}:
        warm_and_test(session, chosen)
    if "train" in chosen:
        train(session, options.before and options.before.resolve(), options.steps)
    if "profile" in chosen:
        for case, documents in PROFILED:
            name = f"profile {case} {documents}"
            worker = session.worker("profile", case, str(documents), "6" if options.dry else "60")
            session.wait(name, session.start(name, worker), 60)
    if "ops" in chosen:
        command = [str(ROOT / "kernels/benchmarks/ops_on_gpu.py"), "--out", str(session.out / "ops.json")]
        command += ["--smoke"] if options.dry else ["--seconds", str(round(session.left(80)))]
        session.wait("ops", session.start("ops", command), 90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
