"""Every operator on one GPU, in one go: the machine's two ceilings, correctness against float64, speed
against its peers.

    python kernels/benchmarks/ops_on_gpu.py --out kernels/benchmarks/results/ops.json --seconds 120
    TRITON_INTERPRET=1 python kernels/benchmarks/ops_on_gpu.py --smoke  # does it run? No GPU

Ceilings first: bytes per second of a copy, FLOP/s of a matrix product. Then correctness at small odd shapes:
    outputs and
gradients are no further from float64 than twice what eager torch in the same dtype is, on fresh random
inputs, with fresh memory filled with NaN. Then speed at the shapes of models, most telling first, until the
seconds are spent: forward and backward (median; inputs rotate through more memory than the cache holds;
launched one by one, and replayed as a CUDA graph, which leaves the host out), beside eager torch,
Liger-Kernel where it is installed and, if asked for, torch.compile of the same definition. Losses are given
the labelled rows, as the trainer gives them. Ratios are the result: peer's time over ours, and our share of
the roofline. The file of `--out` is written anew after each case; a case that fails is in it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch-ext"))

import torch
from adaptkit_kernels import fused, reference
from adaptkit_kernels.gated import swiglu
from adaptkit_kernels.lora import lora_linear
from adaptkit_kernels.norms import add_layer_norm, add_rms_norm
from adaptkit_kernels.rope import rope
from adaptkit_kernels.teachers import HiddenTeacher
from torch import Tensor

ROTATIONS = 3
EPS = {torch.bfloat16: 1e-3, torch.float32: 1e-4}
Make = Callable[[torch.dtype], list[Tensor]]
Run = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    Attributes:
        make: fresh inputs in a dtype; floating ones that require a gradient get one.
        ours, eager: outputs from inputs.
        floor: what no implementation can avoid, forward and backward: bytes moved, or FLOPs of matrix
            products.
        bound: "bytes" or "flops".
        liger: the same from Liger-Kernel, given the inputs; None where it has no such operator.
    """

    name: str
    make: Make
    ours: Run
    eager: Run
    floor: float
    bound: str
    liger: Run | None = None


def random(*shape: int, dtype: torch.dtype, scale: float = 1.0, grad: bool = True) -> Tensor:
    return (torch.randn(*shape, device=DEVICE, dtype=torch.float64) * scale).to(dtype).requires_grad_(grad)


def norm_cases(rows: int, width: int) -> Iterator[Case]:
    def make(dtype: torch.dtype) -> list[Tensor]:
        x, residual = random(rows, width, dtype=dtype), random(rows, width, dtype=dtype)
        return [x, residual, random(width, dtype=dtype)]

    moved = (
        2.0 * rows * width * (4 + 5)
    )  # bf16; forward: 2 in, 2 out; backward: dy, d_total and total in, dx and d_residual out
    yield Case(
        f"add_rms_norm {rows}x{width}",
        make,
        lambda x, r, w: add_rms_norm(x, r, w, 1e-6),
        lambda x, r, w: reference.add_rms_norm(x, r, w, 1e-6),
        moved,
        "bytes",
        liger("fused_add_rms_norm", "LigerFusedAddRMSNormFunction", 1e-6),
    )
    yield Case(
        f"add_layer_norm {rows}x{width}",
        lambda dtype: [*make(dtype), random(width, dtype=dtype)],
        lambda x, r, w, b: add_layer_norm(x, r, w, b, 1e-6),
        lambda x, r, w, b: reference.add_layer_norm(x, r, w, b, 1e-6),
        moved,
        "bytes",
    )


def gated_case(rows: int, width: int) -> Case:
    return Case(
        f"swiglu {rows}x{width}",
        lambda dtype: [random(rows, width, dtype=dtype), random(rows, width, dtype=dtype)],
        swiglu,
        lambda gate, up: reference.gated(gate, up, "silu"),
        2.0 * rows * width * (3 + 5),
        "bytes",
        liger("swiglu", "LigerSiLUMulFunction"),
    )


def rope_case(batch: int, heads: int, length: int, size: int) -> Case:
    def make(dtype: torch.dtype) -> list[Tensor]:
        angle = torch.rand(1, length, size // 2, device=DEVICE, dtype=torch.float64).repeat(1, 1, 2) * 6
        q, k = (random(batch, length, heads, size, dtype=dtype).transpose(1, 2) for _ in range(2))
        return [
            q.detach().requires_grad_(),
            k.detach().requires_grad_(),
            angle.cos().to(dtype),
            angle.sin().to(dtype),
        ]

    moved = 2.0 * batch * heads * length * size * 2 * (2 + 2)
    return Case(f"rope {batch}x{heads}x{length}x{size}", make, rope, reference.rope, moved, "bytes")


def head_cases(tokens: int, width: int, vocab: int, labelled: float) -> Iterator[Case]:
    def make(dtype: torch.dtype) -> list[Tensor]:
        labels = torch.randint(vocab, (tokens,), device=DEVICE)
        labels[torch.rand(tokens, device=DEVICE) >= labelled] = reference.IGNORE_INDEX
        rows = (labels != reference.IGNORE_INDEX).nonzero().flatten()
        return [
            random(tokens, width, dtype=dtype),
            random(vocab, width, dtype=dtype, scale=width**-0.5),
            labels,
            rows,
        ]

    flops = 6.0 * tokens * labelled * width * vocab
    yield Case(
        f"linear_cross_entropy {tokens}x{width}x{vocab} {labelled:.0%}",
        make,
        lambda h, w, y, rows: fused.linear_cross_entropy(h, w, y, rows_R=rows),
        lambda h, w, y, rows: reference.linear_cross_entropy(h, w, y),
        flops,
        "flops",
        liger_head(),
    )

    def make_pair(dtype: torch.dtype) -> list[Tensor]:
        hidden, weight, labels, rows = make(dtype)
        noise = random(tokens, width, dtype=dtype, scale=0.1, grad=False)
        return [hidden, weight, labels, rows, (hidden + noise).detach(), weight.detach().clone()]

    yield Case(
        f"linear_distillation {tokens}x{width}x{vocab} {labelled:.0%}",
        make_pair,
        lambda h, w, y, rows, th, tw: fused.linear_distillation(h, w, HiddenTeacher(th, tw), y, rows_R=rows)[
            0
        ],
        lambda h, w, y, rows, th, tw: reference.linear_distillation(h, w, HiddenTeacher(th, tw), y)[0],
        flops * 8 / 6,
        "flops",
    )


def lora_case(tokens: int, inside: int, outside: int, rank: int) -> Case:
    def make(dtype: torch.dtype) -> list[Tensor]:
        weight = random(outside, inside, dtype=dtype, scale=inside**-0.5, grad=False)
        return [
            random(tokens, inside, dtype=dtype),
            weight,
            random(rank, inside, dtype=dtype, scale=inside**-0.5),
            random(outside, rank, dtype=dtype),
        ]

    def eager(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, w) + 2.0 * (x @ a.T) @ b.T

    return Case(
        f"lora_linear {tokens}x{inside}x{outside} r{rank}",
        make,
        lambda x, w, a, b: lora_linear(x, w, a, b, 2.0),
        eager,
        4.0 * tokens * inside * outside,
        "flops",
    )


def contrast_case(batch: int, size: int) -> Case:
    def make(dtype: torch.dtype) -> list[Tensor]:
        unit = [
            torch.nn.functional.normalize(random(batch, size, dtype=torch.float64, grad=False))
            for _ in range(2)
        ]
        return [x.to(dtype).requires_grad_() for x in unit]

    return Case(
        f"info_nce {batch}x{size}",
        make,
        fused.info_nce,
        reference.info_nce,
        6.0 * batch * batch * size,
        "flops",
    )


def liger(module: str, name: str, *settings: Any) -> Run | None:
    """`name.apply` of liger_kernel.ops.<module>, if it is installed and has it."""
    try:
        found = getattr(__import__(f"liger_kernel.ops.{module}", fromlist=[name]), name)
    except (ImportError, AttributeError):
        return None
    return lambda *inputs: found.apply(*inputs, *settings)


def liger_head() -> Run | None:
    apply = liger("fused_linear_cross_entropy", "LigerFusedLinearCrossEntropyFunction")
    if apply is None:
        return None
    return lambda h, w, y, rows: apply(h, w, y, None, None, reference.IGNORE_INDEX, 0.0, 0.0, "sum")[0]


def small_cases(smoke: bool) -> Iterator[Case]:
    """Every operator at shapes that fit nothing: what is checked."""
    if smoke:
        yield from norm_cases(9, 200)
        yield gated_case(5, 130)
        yield rope_case(1, 2, 8, 16)
        yield from head_cases(24, 32, 200, 0.5)
        yield lora_case(16, 32, 48, 4)
        yield contrast_case(12, 32)
        return
    for rows, width in ((13, 16), (1000, 100), (1001, 768), (333, 4096)):
        yield from norm_cases(rows, width)
        yield gated_case(rows, width + 2)
    for batch, heads, length, size in ((2, 3, 5, 16), (2, 12, 300, 64), (1, 32, 257, 128)):
        yield rope_case(batch, heads, length, size)
    for labelled in (1.0, 0.15):
        yield from head_cases(9000, 256, 5003, labelled)
    yield lora_case(3000, 768, 2304, 16)
    yield contrast_case(1500, 64)


def cases() -> Iterator[Case]:
    """Shapes of models from 10M to 1B: what is timed, the most telling first."""
    yield next(head_cases(16384, 768, 50304, 1.0))
    yield from norm_cases(16384, 768)
    yield gated_case(16384, 2304)
    yield rope_case(8, 12, 2048, 64)
    yield lora_case(16384, 2048, 2048, 16)
    yield from head_cases(8192, 768, 50304, 0.15)
    for width in (256, 1024, 2048, 4096):
        yield next(norm_cases(16384, width))
    yield gated_case(16384, 6144)
    yield contrast_case(16384, 768)
    for width, vocab in ((256, 32768), (1024, 50304), (2048, 128256)):
        yield from head_cases(8192, width, vocab, 1.0)
    for heads, size in ((4, 64), (32, 128)):
        yield rope_case(8, heads, 2048, size)
    for inside, outside in ((768, 768), (2048, 8192)):
        yield lora_case(16384, inside, outside, 16)


def outputs_and_gradients(run: Run, inputs: list[Tensor]) -> list[Tensor]:
    leaves = [x for x in inputs if x.requires_grad]
    out = run(*inputs)
    out = [y for y in (out if isinstance(out, tuple) else (out,)) if isinstance(y, Tensor)]
    total = sum((y.double() * weighing(y)).sum() for y in out)
    return [y.detach() for y in out] + list(torch.autograd.grad(total, leaves))


def weighing(y: Tensor) -> Tensor:
    """Fixed uneven weights, so that errors of opposite sign do not cancel in a gradient."""
    return torch.linspace(0.5, 1.5, max(1, y.numel()), device=y.device, dtype=torch.float64).view(y.shape)


def check(case: Case, dtype: torch.dtype) -> dict[str, float]:
    """Errors relative to float64's norm, the worst over outputs and gradients.

    Raises: AssertionError where ours is further off than twice eager torch.
    """
    inputs = case.make(dtype)
    wide = [
        x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x for x in inputs
    ]
    exact = outputs_and_gradients(case.eager, wide)
    with poisoned():
        ours = outputs_and_gradients(case.ours, inputs)
    eager = outputs_and_gradients(case.eager, inputs)
    errors = {"ours": 0.0, "eager": 0.0}
    for a, b, truth in zip(ours, eager, exact, strict=True):
        scale = truth.norm().clamp_min(1e-30)
        mine, theirs = (float((x.double() - truth).norm() / scale) for x in (a, b))
        assert mine <= 2 * theirs + EPS[dtype], (
            f"{case.name} in {dtype}: error {mine:.1e}, eager torch {theirs:.1e}"
        )
        errors = {"ours": max(errors["ours"], mine), "eager": max(errors["eager"], theirs)}
    return errors


class poisoned:
    """Inside, fresh memory holds NaN: an operator that reads what it did not write shows."""

    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True

    def __exit__(self, *_: object) -> None:
        torch.use_deterministic_algorithms(False)


def steps(run: Run, case: Case, dtype: torch.dtype) -> Callable[[], None]:
    """Forward and backward on one of several inputs in turn."""
    sets = [case.make(dtype) for _ in range(ROTATIONS)]
    gradients = [None]
    place = 0

    def step() -> None:
        nonlocal place
        inputs, place = sets[place], (place + 1) % ROTATIONS
        out = run(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        if gradients[0] is None:
            gradients[0] = torch.ones_like(out)
        out.backward(gradients[0])
        for x in inputs:
            x.grad = None

    return step


def milliseconds(step: Callable[[], None], graph: bool = False) -> float | None:
    """Median of a step; None where it cannot be captured as a graph."""
    if DEVICE.type == "cpu":
        step()
        times = []
        for _ in range(3):
            started = time.perf_counter()
            step()
            times.append(time.perf_counter() - started)
        return None if graph else statistics.median(times) * 1e3
    from triton.testing import do_bench, do_bench_cudagraph

    try:
        return (
            do_bench_cudagraph(step, rep=200, return_mode="median")
            if graph
            else do_bench(step, 100, 500, return_mode="median")
        )
    except RuntimeError:
        if not graph:
            raise
        torch.cuda.synchronize()
        return None


def peak_bytes(step: Callable[[], None]) -> int | None:
    """Most memory that a step holds beyond its inputs."""
    if DEVICE.type == "cpu":
        return None
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def ceilings(smoke: bool) -> dict[str, float]:
    """Bytes per second of a copy (read and written), FLOP/s of a square product in bf16."""
    size, side = (1 << 20, 128) if smoke else (4 << 30, 8192)
    source, target = (torch.empty(size // 2, dtype=torch.bfloat16, device=DEVICE) for _ in range(2))
    a, b = (torch.randn(side, side, device=DEVICE).bfloat16() for _ in range(2))
    copy, product = milliseconds(lambda: target.copy_(source)), milliseconds(lambda: a @ b)
    return {"bytes": 2 * size / copy * 1e3, "flops": 2 * side**3 / product * 1e3}


def measure(case: Case, ceiling: dict[str, float], smoke: bool, compiled: bool) -> dict[str, Any]:
    """Times and peak memory; a peer that fails leaves its error."""
    dtype = torch.float32 if smoke else torch.bfloat16
    row: dict[str, Any] = {"case": case.name, "ms": {}, "graph_ms": {}, "peak_bytes": {}, "failed": {}}
    peers: dict[str, Run] = {"ours": case.ours, "eager": case.eager}
    if case.liger and not smoke:
        peers["liger"] = case.liger
    if compiled:
        peers["compiled"] = torch.compile(case.eager, dynamic=False)
    for name, run in peers.items():
        try:
            step = steps(run, case, dtype)
            row["ms"][name] = milliseconds(step)
            if name in (
                "ours",
                "eager",
            ):  # a peer that asks the device breaks off, and leaves torch's generator unusable
                row["graph_ms"][name] = milliseconds(step, graph=True)
            row["peak_bytes"][name] = peak_bytes(step)
        except Exception as error:
            row["failed"][name] = f"{type(error).__name__}: {str(error)[:300]}"
        if DEVICE.type == "cuda":
            torch.cuda.empty_cache()
    ours = row["ms"].get("ours")
    if ours:
        row["speed_ratio"] = {name: ms / ours for name, ms in row["ms"].items() if name != "ours"}
        row["share_of_roofline"] = (
            case.floor / ceiling[case.bound] * 1e3 / min(filter(None, (ours, row["graph_ms"]["ours"])))
        )
    return row


def checked(case: Case) -> dict[str, Any]:
    """The case's errors by dtype, or why it is wrong."""
    row: dict[str, Any] = {"case": case.name}
    try:
        row["errors"] = {str(dtype).removeprefix("torch."): check(case, dtype) for dtype in EPS}
    except Exception as error:
        row["wrong"] = f"{type(error).__name__}: {str(error)[:300]}"
        print(f"WRONG {row['wrong']}", flush=True)
    return row


def versions() -> dict[str, str]:
    names = ("torch", "triton", "liger-kernel")
    installed = {
        dist.metadata["Name"].lower() for dist in importlib.metadata.distributions() if dist.metadata["Name"]
    }
    return {name: importlib.metadata.version(name) for name in names if name in installed}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--smoke", action="store_true", help="tiny shapes on the CPU, in Triton's interpreter"
    )
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=600, help="no case is begun after these")
    parser.add_argument(
        "--compiled", action="store_true", help="torch.compile of the definitions too, which takes minutes"
    )
    parser.add_argument("--out", type=Path, help="write everything as JSON")
    options = parser.parse_args()
    if DEVICE.type == "cpu" and not options.smoke:
        print("error: no GPU here\n  fix: run this on a machine with one, or add --smoke", file=sys.stderr)
        return 2
    deadline, ceiling = time.monotonic() + options.seconds, ceilings(options.smoke)
    print(f"copy {ceiling['bytes'] / 1e12:.2f} TB/s, product {ceiling['flops'] / 1e12:.0f} TFLOP/s")
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu, interpreted"
    command = " ".join(["python", "kernels/benchmarks/ops_on_gpu.py", *sys.argv[1:]])
    found: dict[str, Any] = {
        "command": command,
        "date": datetime.date.today().isoformat(),
        "versions": versions(),
        "device": device,
        "ceilings": ceiling,
        "checks": [],
        "rows": [],
    }

    def keep(kind: str, row: dict[str, Any]) -> None:
        found[kind].append(row)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1) + "\n")

    for case in small_cases(options.smoke):
        if options.only in case.name and time.monotonic() < deadline:
            keep("checks", checked(case))
    for case in small_cases(True) if options.smoke else cases():
        if options.only not in case.name or time.monotonic() > deadline:
            continue
        row = measure(case, ceiling, options.smoke, options.compiled)
        keep("rows", row)
        ratios = ", ".join(f"{name} {ratio:.2f}x" for name, ratio in row.get("speed_ratio", {}).items())
        share = f"{row.get('share_of_roofline', 0):.0%} of the roofline"
        print(f"{case.name}: {row['ms'].get('ours')} ms, {share}; {ratios}", flush=True)
    bad = [row for row in found["checks"] if "wrong" in row] + [
        row for row in found["rows"] if "ours" in row["failed"]
    ]
    return 1 if bad or not found["checks"] else 0


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

if __name__ == "__main__":
    sys.exit(main())
