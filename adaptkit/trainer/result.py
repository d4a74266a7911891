"""Count what a run has done while it trains, and say in the end what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adaptkit.trainer.pending import Taken


@dataclass
class Progress:
    """All counters of a run; saved in every checkpoint. Seconds are of training steps, over all resumed
    parts."""

    step: int = 0
    tokens_seen: int = 0
    items_seen: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    window_loss: float = 0.0
    window_items: int = 0
    window_tokens: int = 0
    window_flops: float = 0.0
    window_seconds: float = 0.0
    train_loss: float | None = None
    best_loss: float | None = None
    best_step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    def add(self, taken: Taken) -> None:
        """Count one step whose numbers have been fetched."""
        self.step += 1
        self.items_seen += taken.items
        self.tokens_seen += taken.tokens
        self.flops += taken.flops
        self.seconds += taken.seconds
        self.window_loss += taken.loss
        self.window_items += taken.items
        self.window_tokens += taken.tokens
        self.window_flops += taken.flops
        self.window_seconds += taken.seconds

    def cost(self) -> dict[str, float]:
        """What it has taken so far, for the cost.json of a run that does not end."""
        return {
            "flops": self.flops,
            "seconds": self.seconds,
            "tokens": self.tokens_seen,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    def row(self, learning_rate: float, grad_norm: float, peak_flops: float | None) -> dict[str, Any]:
        """The row to log, averaged over the steps since the last one; starts a new window."""
        self.train_loss = self.window_loss / self.window_items
        mfu = None
        if peak_flops:
            mfu = self.window_flops / self.window_seconds / peak_flops
        row = {
            "step": self.step,
            "loss": self.train_loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "tokens_seen": self.tokens_seen,
            "seconds": self.seconds,
            "tokens_per_s": self.window_tokens / self.window_seconds,
            "mfu": mfu,
        }
        self.window_items = self.window_tokens = 0
        self.window_loss = self.window_flops = self.window_seconds = 0.0
        return row


@dataclass(frozen=True)
class TrainResult:
    """What a finished run was; losses are in nats per item, `history` holds the evaluation rows."""

    num_steps: int
    tokens_seen: int
    items_seen: int
    flops: float
    seconds: float
    peak_memory_bytes: int
    train_loss: float | None
    eval_loss: float | None
    best_step: int
    history: list[dict[str, Any]]
    device: str
    threads: int

    @classmethod
    def of(cls, counters: Progress, device: str, threads: int) -> TrainResult:
        """From what a run counted."""
        eval_loss = None
        if counters.history:
            eval_loss = counters.history[-1]["eval_loss"]
        return cls(
            num_steps=counters.step,
            tokens_seen=counters.tokens_seen,
            items_seen=counters.items_seen,
            flops=counters.flops,
            seconds=counters.seconds,
            peak_memory_bytes=counters.peak_memory_bytes,
            train_loss=counters.train_loss,
            eval_loss=eval_loss,
            history=counters.history,
            best_step=counters.best_step or counters.step,
            device=device,
            threads=threads,
        )

    @property
    def tokens_per_s(self) -> float:
        return self.tokens_seen / self.seconds

    def cost(self) -> dict[str, Any]:
        """What it took, for the run's cost.json."""
        return {
            "flops": self.flops,
            "seconds": self.seconds,
            "tokens": self.tokens_seen,
            "peak_memory_bytes": self.peak_memory_bytes,
            "tokens_per_s": self.tokens_per_s,
            "device": self.device,
            "threads": self.threads,
        }
