"""The formats that models are exported in: what each stores, what it needs, and whether a machine has that.

    adaptkit export --list

vLLM's int4 kernels need AVX512 or a GPU. Without them a server starts, calls itself healthy and dies at the
first request; so the need is written into the manifest and checked by whoever serves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adaptkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from adaptkit.export.hardware import Hardware

Grid = Literal["int8", "int4", "fp8"]
Need = Literal["any", "gpu or avx512", "gpu"]
GROUP_SIZES = (128, 64, 32)


@dataclass(frozen=True)
class Format:
    """One way to store a model.

    Attributes:
        describe: what it stores, in words.
        dtype: of the weights that are not rounded.
        max_loss_bpb: bits per byte that it may lose against its source.
        max_loss_score: task score (or cosine of embeddings) that it may lose.
        grid: what weights are rounded to; None keeps floating point.
        activations: whether the server rounds activations too, per token, as it runs.
        needs: the machine that serves it.
    """

    name: str
    describe: str
    dtype: Literal["float32", "bfloat16"]
    max_loss_bpb: float
    max_loss_score: float
    grid: Grid | None = None
    activations: bool = False
    needs: Need = "any"

    @property
    def rounds_to(self) -> Grid:
        """The grid of a format that has one."""
        assert self.grid is not None, f"{self.name} keeps floating point"
        return self.grid

    @property
    def grouped(self) -> bool:
        return self.grid == "int4"


_ALL = (
    Format(
        name="fp32",
        describe="float32 weights, as trained",
        dtype="float32",
        max_loss_bpb=1e-5,
        max_loss_score=0.0,
    ),
    Format(
        name="bf16",
        describe="bfloat16 weights, half the size",
        dtype="bfloat16",
        max_loss_bpb=0.005,
        max_loss_score=0.01,
    ),
    Format(
        name="int8",
        describe="W8A8: int8 weights per output, activations per token",
        dtype="bfloat16",
        max_loss_bpb=0.02,
        max_loss_score=0.01,
        grid="int8",
        activations=True,
    ),
    Format(
        name="int4",
        describe="W4A16: int4 weights in groups of inputs, 128 where they divide",
        dtype="bfloat16",
        max_loss_bpb=0.02,
        max_loss_score=0.01,
        grid="int4",
        needs="gpu or avx512",
    ),
    Format(
        name="fp8",
        describe="W8A8: float8_e4m3 weights per output, activations per token",
        dtype="bfloat16",
        max_loss_bpb=0.02,
        max_loss_score=0.01,
        grid="fp8",
        activations=True,
        needs="gpu",
    ),
)
FORMATS = {format.name: format for format in _ALL}


@dataclass(frozen=True)
class FormatRow:
    """A format as a machine sees it: what it stores and needs, whether it runs here, and why."""

    format: str
    stores: str
    needs: Need
    here: bool
    why: str


def find_format(name: str) -> Format:
    """Find the format of this name.

    Raises: ConfigError for a name that is no format.
    """
    if name not in FORMATS:
        what = f"no format '{name}'{nearest(name, FORMATS)}"
        raise ConfigError(what, where="--format", fix=f"choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def runs_here(needs: Need, hardware: Hardware) -> tuple[bool, str]:
    """Say whether a format with these needs can be served on a machine, and why, in words."""
    if needs == "any":
        return True, "runs on every CPU and GPU"
    if hardware.gpus:
        return True, f"there is a GPU ({hardware.gpus[0]})"
    if needs == "gpu":
        return False, "made for GPUs, and there is none here; CPUs run it slowly if at all: use int8"
    if hardware.int4:
        return True, "the CPU has AVX512"
    what = "needs a GPU or a CPU with AVX512: without, vLLM starts and dies at the first request"
    return False, f"{what}; use int8"


def listing(hardware: Hardware) -> list[FormatRow]:
    """Describe every format in one row."""
    rows = []
    for format in FORMATS.values():
        runs, why = runs_here(format.needs, hardware)
        if runs and format.dtype == "bfloat16" and hardware.bf16_fault:
            why = f"{why}; computed in {instead_of_bfloat16(format.grid == 'int4')}: {hardware.bf16_fault}"
        rows.append(FormatRow(format.name, format.describe, format.needs, runs, why))
    return rows


def instead_of_bfloat16(int4: bool) -> str:
    """Choose the precision for a CPU that fails in bfloat16; vLLM's int4 kernel knows no float32."""
    if int4:
        return "float16"
    return "float32"


def table(rows: list[FormatRow]) -> Table:
    """Draw the listing for a terminal."""
    from rich.table import Table

    drawn = Table("format", "stores", "needs", "here", "why", box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(row.format, row.stores, row.needs, "yes" if row.here else "no", row.why)
    return drawn
