"""Compile every shipped configuration of every kernel for real GPUs, without one, and hold the results to
limits.

    python kernels/benchmarks/compile_table.py                all of it, two and a half minutes
    python kernels/benchmarks/compile_table.py --sample       one configuration per kernel
    python kernels/benchmarks/compile_table.py --out results  keep the table there, .json and .md

Registers, stack and shared memory come from the machine code that ptxas made, instructions from its
disassembly; both tools lie in Triton's wheel. A configuration passes when it compiles, spills nothing, stays
within the registers and the shared
memory of the GPU, and moves memory or multiplies matrices the wide way: 16 bytes per load in row kernels,
    tensor cores
(HGMMA on Hopper, HMMA before) in matmul kernels. Speed, races and rounding are not proven by this. Exit code
1 on a failure.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as on a GPU today; Triton 3.10 flips the default
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "torch-ext"))

import triton
from adaptkit_kernels import launch
from adaptkit_kernels.launch import INTERPRETED, TARGETS, Shipped, shipped_kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MAX_REGISTERS = 255
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}
"""Shared memory that one program may have, by compute capability."""
MATMUL = {80: "HMMA", 90: "HGMMA"}
"""The tensor cores' instruction, by compute capability."""


@dataclass
class Row:
    """What one configuration compiled to."""

    kernel: str
    configuration: str
    target: int
    warps: int
    registers: int = 0
    stack: int = 0
    shared: int = 0
    wide_loads: int = 0
    matmuls: int = 0
    problems: list[str] = field(default_factory=list)


def source_of(entry: Shipped) -> ASTSource:
    """What Triton's launcher would compile: pointers and `aligned` integers are multiples of 16."""
    names = entry.kernel.arg_names
    signature = {name: entry.signature.get(name, "constexpr") for name in names}
    constants = {(names.index(name),): value for name, value in entry.constexprs.items()}
    wide = [name for name, kind in entry.signature.items() if kind.startswith("*") or name in entry.aligned]
    return ASTSource(
        entry.kernel, signature, constants, {(names.index(name),): [["tt.divisibility", 16]] for name in wide}
    )


def compiled(entry: Shipped, target: int) -> Row:
    row = Row(entry.name, entry.label, target, entry.num_warps)
    options = {"num_warps": entry.num_warps, "num_stages": entry.num_stages}
    try:
        binary = triton.compile(source_of(entry), target=GPUTarget("cuda", target, 32), options=options)
    except Exception as error:  # whatever the compiler dies of is this configuration's result
        row.problems.append(
            f"does not compile: {type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"
        )
        return row
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = tool("cuobjdump", "--dump-resource-usage", file.name), tool("nvdisasm", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    row.registers, row.stack, row.shared = int(found[1]), int(found[2]), binary.metadata.shared
    row.wide_loads = len(re.findall(r"\bLDG\.E[.\w]*\.128|\bUTMALDG|\bLDGSTS\.E[.\w]*\.128", sass))
    row.matmuls = len(re.findall(rf"\b{MATMUL[target]}\b", sass))
    row.problems += problems_of(row, entry.kind)
    return row


def compiled_on_all_cores(jobs: Sequence[tuple[Shipped, int]]) -> Iterator[Row]:
    """A row for each configuration and target, in order. Kernels cannot be sent to other processes, so these
    are forked."""
    global _jobs
    _jobs = jobs
    with ProcessPoolExecutor(
        len(os.sched_getaffinity(0)), mp_context=multiprocessing.get_context("fork")
    ) as pool:
        yield from pool.map(_compiled, range(len(jobs)), chunksize=4)


_jobs: Sequence[tuple[Shipped, int]] = ()


def _compiled(index: int) -> Row:
    return compiled(*_jobs[index])


def problems_of(row: Row, kind: str) -> list[str]:
    limits = [
        (row.stack > 0, f"{row.stack} bytes of stack"),
        (row.registers > MAX_REGISTERS, f"{row.registers} registers"),
        (row.shared > SHARED_BYTES[row.target], f"{row.shared} bytes of shared memory"),
        (kind == "row" and row.target == 90 and not row.wide_loads, "no 16-byte loads"),
        (kind == "matmul" and not row.matmuls, f"no {MATMUL[row.target]}"),
    ]
    return [text for broken, text in limits if broken]


def tool(name: str, *arguments: str) -> str:
    return subprocess.run([str(TOOLS / name), *arguments], capture_output=True, text=True, check=True).stdout


def sample(entries: list[Shipped]) -> list[Shipped]:
    """The last, largest configuration of every kernel and type of its first argument."""
    chosen: dict[tuple[str, str], Shipped] = {}
    for entry in entries:
        chosen[entry.name, next(iter(entry.signature.values()))] = entry
    return list(chosen.values())


def table(rows: Iterable[Row]) -> str:
    titles = [
        "kernel",
        "configuration",
        "sm",
        "warps",
        "registers",
        "stack",
        "shared B",
        "16-byte loads",
        "matmuls",
        "verdict",
    ]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [*list(asdict(row).values())[:-1], "; ".join(row.problems) or "ok"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def digest() -> str:
    """sha256 of the modules that hold kernels, so that a kept table tells whether it is of today's."""
    modules = {sys.modules[entry.kernel.fn.__module__] for entry in shipped_kernels()} | {launch}
    paths = sorted(Path(module.__file__) for module in modules)
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def keep(folder: Path, rows: list[Row]) -> None:
    """Writes the table as JSON and markdown, with the command, the version and the date that made it."""
    folder.mkdir(parents=True, exist_ok=True)
    date, failed = (
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        sum(bool(row.problems) for row in rows),
    )
    facts = {
        "command": "python kernels/benchmarks/compile_table.py",
        "triton": triton.__version__,
        "date": date,
    }
    facts["kernels"] = digest()
    path = folder / f"compile_table_{triton.__version__}"
    lines = ",\n".join("    " + json.dumps(asdict(row)) for row in rows)
    header = json.dumps(facts | {"targets": list(TARGETS), "failed": failed}, indent=2)[:-2]
    path.with_suffix(path.suffix + ".json").write_text(f'{header},\n  "rows": [\n{lines}\n  ]\n}}\n')
    title = f"# Compiled kernels, Triton {triton.__version__}, {date}"
    text = f"{title}\n\n`{facts['command']}`: {len(rows)} rows, {failed} failed.\n\n{table(rows)}\n"
    path.with_suffix(path.suffix + ".md").write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", action="store_true", help="one configuration per kernel and dtype")
    parser.add_argument("--only", default="", help="kernels whose name holds this text")
    parser.add_argument("--out", type=Path, help="folder to keep the table in")
    arguments = parser.parse_args()
    if INTERPRETED:
        parser.error("unset TRITON_INTERPRET: interpreted kernels cannot be compiled")
    entries = [entry for entry in shipped_kernels() if arguments.only in entry.name]
    jobs = [
        (entry, target) for entry in (sample(entries) if arguments.sample else entries) for target in TARGETS
    ]
    rows = []
    for row in compiled_on_all_cores(jobs):
        rows.append(row)
        print(
            f"sm_{row.target} {row.kernel} {row.configuration}: {'; '.join(row.problems) or 'ok'}",
            file=sys.stderr,
        )
    print(table(rows))
    failed = [row for row in rows if row.problems]
    print(f"\n{len(rows)} compiled with Triton {triton.__version__}, {len(failed)} failed")
    if arguments.out:
        keep(arguments.out, rows)
    return 1 if failed or not rows else 0


if __name__ == "__main__":
    raise SystemExit(main())
