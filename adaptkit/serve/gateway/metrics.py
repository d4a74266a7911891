"""Counting requests: rates per key, and Prometheus metrics that hold no text, key or path of a caller's
making."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What the guard counts. Labels are routes of the table, statuses, and fingerprints of keys: few and
    known."""

    def __init__(self, registry: CollectorRegistry = REGISTRY):
        self.registry = registry
        self.requests = Counter(
            "adaptkit_requests", "Answered requests", ["route", "status"], registry=registry
        )
        self.by_key = Counter("adaptkit_key_requests", "Admitted requests by key", ["key"], registry=registry)
        self.seconds = Histogram(
            "adaptkit_request_seconds",
            "Time to the end of the answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.running = Gauge("adaptkit_requests_running", "Requests under way", registry=registry)


@dataclass
class _Bucket:
    left: float
    seen: float


class Rates:
    """A token bucket for each key: `per_minute` requests may come at once, and as many each minute after.

    Args:
        per_minute: 0 for no limit.
        clock: seconds, growing.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic):
        self.per_minute, self.clock = per_minute, clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, key: str) -> float:
        """Seconds until this key may come again; 0.0 if it may now, which is then counted."""
        if not self.per_minute:
            return 0.0
        now = self.clock()
        bucket = self._buckets.setdefault(key, _Bucket(float(self.per_minute), now))
        refill = (now - bucket.seen) * self.per_minute / 60
        bucket.left, bucket.seen = min(float(self.per_minute), bucket.left + refill), now
        if bucket.left < 1.0:
            return (1.0 - bucket.left) * 60 / self.per_minute
        bucket.left -= 1.0
        return 0.0
