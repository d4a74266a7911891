"""LoRA adapters as vLLM is told of them: those that are loaded at the start, and room for those that come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adaptkit.client.identity import ModelIdentity

RANKS = (8, 16, 32, 64, 128, 256)  # what vLLM's kernels are built for
SPARE_SLOTS = 1
"""LoRA slots that stay empty. On a CPU vLLM 0.32 looks up the adapter of a request for the base, number -1,
as if it were a slot: the last one. Full, it changed 7 of 10 answers of a base that was asked together with
its adapter; empty, none."""
ADAPTER_CALLS = "adaptkit.serve.engine.adapter_calls.AdapterCalls"


@dataclass(frozen=True)
class Adapter:
    """A LoRA folder served over its base by a name of its own.

    Attributes:
        version: digest of its files where the folder is watched; empty where it is loaded at the start.
        base: name of the model that it is served over, where the folder is watched.
    """

    name: str
    folder: Path
    rank: int
    identity: ModelIdentity = field(default_factory=ModelIdentity)
    version: str = ""
    base: str = ""

    @property
    def engine_name(self) -> str:
        """What vLLM calls it: two versions of one name are two adapters there."""
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True)
class AdapterRoom:
    """Room for adapters that come while the process runs: so many at once, of up to this rank."""

    slots: int
    rank: int


def words(adapters: Sequence[Adapter], room: AdapterRoom | None, *, on_gpu: bool) -> list[str]:
    """Write vLLM's arguments; none where there are no adapters and none will come."""
    if not adapters and room is None:
        return []
    slots = len(adapters) + (0 if on_gpu else SPARE_SLOTS)
    largest = max((adapter.rank for adapter in adapters), default=0)
    arguments = []
    if room is not None:
        slots, largest = slots + room.slots, max(largest, room.rank)
        arguments += ["--middleware", ADAPTER_CALLS]
    if adapters:
        modules = [f"{adapter.name}={adapter.folder.resolve()}" for adapter in adapters]
        arguments += ["--lora-modules", *modules]
    rank = next(rank for rank in RANKS if rank >= largest)
    return ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", str(slots), *arguments]
