"""Rates of a key over time, and metrics of several engines on one page."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client", reason="the serve extra is not installed")
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from adaptkit.serve.gateway.counters import Metrics, Rates, merge_pages


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_key_may_come_so_often_a_minute_and_then_waits_for_its_turn() -> None:
    clock = Clock()
    rates = Rates(6, clock)
    assert [rates.take("a") for _ in range(6)] == [0.0] * 6
    assert rates.take("a") == pytest.approx(10.0), "one request in ten seconds"
    clock.now += 4
    assert rates.take("a") == pytest.approx(6.0), "asking does not put it off"
    clock.now += 6
    assert rates.take("a") == 0.0 and rates.take("a") == pytest.approx(10.0)
    clock.now += 30
    assert [rates.take("a") for _ in range(3)] == [0.0] * 3 and rates.take("a") > 0


def test_a_long_rest_gives_one_minutes_share_and_no_more() -> None:
    clock = Clock()
    rates = Rates(3, clock)
    rates.take("a")
    clock.now += 3600
    assert [rates.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_keys_do_not_share_and_zero_lifts_the_limit() -> None:
    clock = Clock()
    rates = Rates(1, clock)
    assert rates.take("a") == 0.0 and rates.take("a") == pytest.approx(60.0) and rates.take("b") == 0.0
    assert [Rates(0, clock).take("a") for _ in range(100)] == [0.0] * 100


def page(value: float) -> str:
    lines = ("# HELP vllm:running R", "# TYPE vllm:running gauge", f'vllm:running{{model="m"}} {value}')
    own = ("# TYPE adaptkit_requests counter", "adaptkit_requests_total 9")
    return "\n".join([*lines, *own, ""])


def test_pages_are_merged_under_one_family_with_the_engines_name() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.requests.labels("/classify", 200).inc()
    text = merge_pages(metrics.registry, {"one": page(2.0), "two": page(3.0), "three": ""}).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    running = {sample.labels["engine"]: sample.value for sample in families["vllm:running"].samples}
    assert running == {"one": 2.0, "two": 3.0} and text.count("# TYPE vllm:running") == 1
    assert all(sample.labels["model"] == "m" for sample in families["vllm:running"].samples)
    assert "adaptkit_requests_total 9" not in text, "the guard of a child counts what ours has counted"
    assert 'adaptkit_requests_total{route="/classify",status="200"} 1.0' in text
    assert merge_pages(CollectorRegistry(), {"a": ""}) == b""
