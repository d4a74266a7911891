"""Figures, ratios, medians and prices from what vLLM's benchmark writes, and the table for people."""

from __future__ import annotations

import json

import pytest

from adaptkit.serve.bench_results import (
    BenchResult,
    Measurement,
    ModelFigures,
    Percentiles,
    Price,
    median,
    table,
)

FOUND = {
    "completed": 16,
    "failed": 0,
    "request_throughput": 4.0,
    "output_throughput": 128.0,
    "p50_ttft_ms": 30.0,
    "p95_ttft_ms": 80.0,
    "p99_ttft_ms": 90.0,
    "p50_tpot_ms": 5.0,
    "p95_tpot_ms": 8.0,
    "p99_tpot_ms": 9.0,
    "p50_e2el_ms": 200.0,
    "p95_e2el_ms": 300.0,
    "p99_e2el_ms": 400.0,
}


PRICE = Price(3.6, "a list", "2026-11-21")


def level(requests_per_s: float, concurrency: int = 1) -> Measurement:
    return Measurement.of_vllm({**FOUND, "request_throughput": requests_per_s}, concurrency, PRICE)


def model(name: str, weights_bytes: int, memory_bytes: int, load_s: float, *speeds: float) -> ModelFigures:
    levels = tuple(level(speed, place + 1) for place, speed in enumerate(speeds))
    return ModelFigures(name, "generate", None, weights_bytes, load_s, memory_bytes, levels)


def test_a_thousand_requests_cost_the_time_they_take():
    assert level(4.0).usd_per_1k_requests == pytest.approx(1000 / 4.0 / 3600 * 3.6)
    assert level(4.0).ttft_ms == Percentiles(30.0, 80.0, 90.0)
    pooled = {
        "completed": 3,
        "request_throughput": 2.0,
        "p50_e2el_ms": 1.0,
        "p95_e2el_ms": 1.5,
        "p99_e2el_ms": 2.0,
    }
    measured = Measurement.of_vllm(pooled, 8, None)
    assert measured.tpot_ms is None and measured.usd_per_1k_requests is None
    assert measured.latency_ms == Percentiles(1.0, 1.5, 2.0)


FIRST, OTHER = model("a", 100, 10, 2.0, 4.0, 8.0), model("b", 25, 5, 1.0, 6.0, 8.0)


def test_each_model_is_divided_by_the_first():
    assert OTHER.ratios(FIRST) == {
        "weights_bytes": 0.25,
        "memory_bytes": 0.5,
        "load_s": 0.5,
        "requests_per_s": [1.5, 1.0],
    }
    rows = table((FIRST, OTHER))
    assert [row[-1] for row in rows] == ["to first", "1.00x", "1.00x", "1.50x", "1.00x"]
    assert rows[3][:5] == ("b", "0.0", "1 s", "0.00 GiB", "1") and {len(row) for row in rows} == {11}


def test_of_several_rounds_the_one_in_the_middle_counts():
    middle = median([level(5.0), level(1.0), level(4.0)])
    assert middle.requests_per_s == 4.0 and middle.rounds == (5.0, 1.0, 4.0)
    assert middle.usd_per_1k_requests == level(4.0).usd_per_1k_requests


def test_the_file_holds_what_a_forecast_reads():
    result = BenchResult("2026-11-21", {"cores": 2}, {"input_tokens": 64}, PRICE, (FIRST, OTHER))
    written = json.loads(json.dumps(result.as_json()))
    assert written.keys() == {"date", "machine", "load", "price", "models"}
    assert written["price"]["usd_per_hour"] == 3.6
    assert written["models"][1]["ratios"]["weights_bytes"] == 0.25
    assert [row["requests_per_s"] for row in written["models"][1]["levels"]] == [6.0, 8.0]
    assert written["models"][0]["levels"][0]["ttft_ms"] == {"p50": 30.0, "p95": 80.0, "p99": 90.0}
