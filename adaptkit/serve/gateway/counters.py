"""Count requests: rates per key, and Prometheus metrics of the gateway and of every engine as one page.

Labels hold no text, key or path of a caller's making.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """What the guard counts, by route of the table, status, and fingerprint of the key."""

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
        self.retried = Counter(
            "adaptkit_retried_requests",
            "Requests that another replica was asked, by the engine that was lost under them",
            ["engine"],
            registry=registry,
        )
        self.running = Gauge("adaptkit_requests_running", "Requests under way", registry=registry)


def merge_pages(own: CollectorRegistry, pages: Mapping[str, str]) -> bytes:
    """Merge our metrics and each engine's into one page; an engine's samples get the label `engine`.

    Args:
        pages: name of an engine -> its metrics as text.
    """
    families: dict[str, Metric] = {}
    for engine, text in pages.items():
        for family in text_string_to_metric_families(text):
            if family.name.startswith("adaptkit_"):
                continue  # the guard inside the child counts what ours has counted
            merged = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                merged.samples.append(sample._replace(labels={**sample.labels, "engine": engine}))
    return generate_latest(own) + generate_latest(_Collected(families))


class _Collected(CollectorRegistry):
    """Metric families that were measured elsewhere."""

    def __init__(self, families: Mapping[str, Metric]):
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


@dataclass
class _Bucket:
    tokens: float
    updated: float


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
        """Count a request of this key if it may come now (0.0), else say in how many seconds it may."""
        if not self.per_minute:
            return 0.0
        now = self.clock()
        bucket = self._buckets.setdefault(key, _Bucket(float(self.per_minute), now))
        refill = (now - bucket.updated) * self.per_minute / 60
        bucket.tokens, bucket.updated = min(float(self.per_minute), bucket.tokens + refill), now
        if bucket.tokens < 1.0:
            return (1.0 - bucket.tokens) * 60 / self.per_minute
        bucket.tokens -= 1.0
        return 0.0
