"""Prometheus metrics of several processes as one page: the front's own, and those of each child with a label
`engine`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


def merge(own: CollectorRegistry, children: Mapping[str, str]) -> bytes:
    """One page from our registry and the pages of the children, by name; each family stands in it once."""
    families: dict[str, Metric] = {}
    for name, text in children.items():
        for family in text_string_to_metric_families(text):
            if family.name.startswith("adaptkit_"):
                continue  # the guard inside the child counts what ours has counted
            kept = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                kept.samples.append(sample._replace(labels={**sample.labels, "engine": name}))
    return generate_latest(own) + generate_latest(_Collected(families))


class _Collected(CollectorRegistry):
    """Families that were measured elsewhere."""

    def __init__(self, families: Mapping[str, Metric]):
        super().__init__()
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()
