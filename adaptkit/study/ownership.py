"""What owning an arm costs: training written off, serving at the user's traffic; and which arm is simpler.

    ownerships(results, "queue")["continued+full"].usd_per_month

Speed and memory come from a kept `adaptkit bench` of that arm's model where there is one, else from its size
on the study's own machine; `origin` says which. Without a price for an hour there are no dollars, and arms
are ordered by simplicity alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptkit.run import Run, read_json, read_sealed
from adaptkit.run_record import read_record
from adaptkit.study.breakeven import Prices, Training, Workload, own_usd_per_month, usd_per_1k_requests
from adaptkit.study.record import ArmRecord, DecisionRecord
from adaptkit.study.results import BASELINE, Cell, Results

BYTES_PER_WEIGHT = 4.0
"""Of a model served as it was trained."""
BYTES_PER_TOKEN = 3.0
"""Where no tokenizer was measured."""
API = "api"
"""Origin of an arm whose model is behind an API."""
_ORIGINS = (
    *(BASELINE, "generic", API, "placebo", "tapt"),
    *("continued-lora", "continued", "continued-vocabulary", "mixed", "scratch", "distilled"),
)
_ADAPTATIONS = ("prompt", "rag", "probe", "hybrid", "lora", "qlora", "rag-lora", "full", "rerank")


@dataclass(frozen=True)
class Ownership:
    """What one arm costs to have.

    Attributes:
        training_hours: machine hours behind its score, tuning included.
        requests_per_s: of one server under full load; None where nothing is known.
        latency_s: of one request, 95th percentile where measured.
        memory_bytes: of the served model.
        usd_per_1k: per thousand requests of a server that never idles; None without a price.
        usd_per_month: training written off and servers rented whole; None without price or traffic.
        origin: where speed and memory come from, a clause.
        usd_per_request: of an arm that is paid by the request and owns nothing; None for others.
        measured: whether the speed was measured, and not counted from the model's size.
    """

    training_hours: float
    requests_per_s: float | None
    latency_s: float | None
    memory_bytes: float | None
    usd_per_1k: float | None
    usd_per_month: float | None
    origin: str
    usd_per_request: float | None = None
    measured: bool = False


@dataclass(frozen=True)
class _Speed:
    requests_per_s: float
    latency_s: float
    memory_bytes: float | None
    origin: str
    measured: bool = True


def simplicity(arm: ArmRecord) -> tuple[int, int]:
    """Sorts arms from the simplest to own: no model, the base as it is, adapters, all weights, pretrained."""
    origin = _ORIGINS.index(arm.origin) if arm.origin in _ORIGINS else len(_ORIGINS)
    if arm.adaptation is None:
        return origin, 0
    known = arm.adaptation in _ADAPTATIONS
    return origin, _ADAPTATIONS.index(arm.adaptation) if known else len(_ADAPTATIONS)


def ownerships(results: Results, task: str) -> dict[str, Ownership]:
    """What each arm scored on a task costs to own."""
    bench = _bench(results.path)
    return {arm.name: _ownership(results, task, arm, bench) for arm in results.scored_arms(task)}


def _ownership(results: Results, task: str, arm: ArmRecord, bench: dict[str, Any]) -> Ownership:
    if arm.origin == API:
        return _rented(results, task, arm)
    hours = results.cost(task, arm.name).seconds / 3600
    speed = _measured(bench, results, task, arm)
    speed = speed or _counted(results, task, arm) or _estimated(results, task, arm)
    if speed is None:
        return Ownership(hours, None, None, None, None, None, "not known")
    price, decision = results.record.price, results.record.decision
    usd_per_1k = usd_per_month = None
    if price is not None:
        usd_per_1k = usd_per_1k_requests(price.usd_per_hour, speed.requests_per_s)
        usd_per_month = monthly_usd(decision, price.usd_per_hour, speed.requests_per_s, hours)
    return Ownership(
        training_hours=hours,
        requests_per_s=speed.requests_per_s,
        latency_s=speed.latency_s,
        memory_bytes=speed.memory_bytes,
        usd_per_1k=usd_per_1k,
        usd_per_month=usd_per_month,
        origin=speed.origin,
        measured=speed.measured,
    )


def request_bills(results: Results, task: str, arm: str) -> list[float]:
    """US dollars that a request of an arm behind an API took, by seed."""
    paid = [path for cell in results.of(task, arm) for path in cell.paid_by]
    return [read_sealed(Run(path).cost_path)["usd_per_item"] for path in paid]


def _rented(results: Results, task: str, arm: ArmRecord) -> Ownership:
    """What an arm behind an API costs: its requests, as the study paid for them; nothing is trained."""
    costs = [read_sealed(Run(path).cost_path) for cell in results.of(task, arm.name) for path in cell.paid_by]
    if not costs:
        return Ownership(0.0, None, None, None, None, None, "not known")
    usd = sum(cost["usd_per_item"] for cost in costs) / len(costs)
    waits = [cost["latency_s"]["p95"] for cost in costs if cost["latency_s"]]
    requests = results.record.decision.requests_per_month
    return Ownership(
        training_hours=0.0,
        requests_per_s=None,
        latency_s=max(waits, default=None),
        memory_bytes=None,
        usd_per_1k=1000 * usd,
        usd_per_month=requests * usd if requests else None,
        origin="measured and paid over the API in this study",
        usd_per_request=usd,
    )


def monthly_usd(
    decision: DecisionRecord, usd_per_hour: float, requests_per_s: float, hours: float
) -> float | None:
    """Servers and training of a month; None where the traffic was not stated."""
    if not decision.requests_per_month:
        return None
    work = Workload(decision.requests_per_month, requests_per_s)
    prices = Prices(usd_per_hour, 0.0, 0.0)
    training = Training(hours, decision.months)
    return own_usd_per_month(decision.requests_per_month, work, prices, training)


def _bench(study: Path) -> dict[str, Any]:
    path = Run(study).bench_path
    return read_json(path) if path.is_file() else {}


def _readings(results: Results, task: str, arm: ArmRecord) -> int:
    """Requests to the model that one answer takes: a reranker reads `depth` documents for each query."""
    if arm.adaptation != "rerank":
        return 1
    return max(int(read_record(Run(cell.run)).facts["depth"]) for cell in results.of(task, arm.name))


def _measured(bench: dict[str, Any], results: Results, task: str, arm: ArmRecord) -> _Speed | None:
    """The fastest level that `adaptkit bench` measured of this arm's model."""
    for model in bench.get("models") or []:
        levels = [level for level in model["levels"] if level.get("requests_per_s")]
        if model.get("arm") != arm.name or not levels:
            continue
        best = max(levels, key=lambda level: level["requests_per_s"])
        waiting = best.get("latency_ms") or {}
        latency = waiting.get("p95") or 1000 * best["concurrency"] / best["requests_per_s"]
        origin = f"measured by adaptkit bench on {bench['date']}"
        readings = _readings(results, task, arm)
        if readings > 1:
            origin += f", {readings} documents read for each query"
        seconds = readings * latency / 1000
        return _Speed(best["requests_per_s"] / readings, seconds, model["memory_bytes"], origin)
    return None


def _counted(results: Results, task: str, arm: ArmRecord) -> _Speed | None:
    """A baseline's speed while it answered the test; it keeps no model, and its memory is not counted."""
    if arm.origin != BASELINE:
        return None
    costs = [read_sealed(Run(path).cost_path) for cell in results.of(task, arm.name) for path in cell.paid_by]
    speeds = [cost["requests_per_s"] for cost in costs if cost.get("requests_per_s")]
    if not speeds:
        return None
    return _Speed(speeds[0], 1 / speeds[0], None, "as measured while it answered the test")


def _estimated(results: Results, task: str, arm: ArmRecord) -> _Speed | None:
    """From the model's size: 2 FLOPs per weight and token of a mean test item, at the speed of training.

    A prompted item is as long as its whole prompt and its answer; one that passages stand beside counts them.
    """
    machine = results.record.machine
    params = _params(results, task, arm)
    if machine is None or not params:
        return None
    tokens = _tokens_read(results, task, arm) or tokens_per_item(results, task, arm)
    flops = 2.0 * params * tokens
    seconds = flops / machine.flops_per_second
    origin = f"from its size on the study's {machine.device}, one request at a time"
    return _Speed(1 / seconds, seconds, params * BYTES_PER_WEIGHT, origin, measured=False)


def _params(results: Results, task: str, arm: ArmRecord) -> int:
    """Parameters of the model that answers; 0 for baselines and where no run tells."""
    if arm.origin == BASELINE:
        return 0
    cells = results.of(task, arm.name)
    if arm.origin == "generic" and arm.adaptation in (None, "prompt", "rag", "probe", "hybrid"):
        return results.record.base.params
    return max((_params_of(cell) for cell in cells), default=0)


def _params_of(cell: Cell) -> int:
    runs = [path for path in (*cell.paid_by, cell.run) if "record" in Run(path).manifest()]
    return max((read_record(Run(path)).params for path in runs), default=0)


def _tokens_read(results: Results, task: str, arm: ArmRecord) -> float:
    """Tokens of a mean test item with all that was asked beside it; 0 where no run counted them."""
    counts = [_tokens_asked(Run(cell.run)) for cell in results.of(task, arm.name)]
    counted = [count for count in counts if count]
    return sum(counted) / len(counted) if counted else 0.0


def _tokens_asked(run: Run) -> float:
    """What a prompted run counted while it answered, or a training with passages before it began; else 0."""
    if "record" not in run.manifest():
        return 0.0
    looked_up: dict[str, Any] = read_record(run).facts.get("looked_up") or {}
    cost = read_sealed(run.cost_path) if run.cost_path.is_file() else {}
    return float(cost.get("tokens_per_item") or looked_up.get("tokens_per_item") or 0.0)


def tokens_per_item(results: Results, task: str, arm: ArmRecord) -> float:
    """Tokens of a mean test item as it stands in the data, in the arm's own tokens."""
    data = results.record.data
    corpus = data.corpora.get("domain" if task == "language" else task)
    if corpus is None or not corpus.test.documents:
        return 1.0
    return max(1.0, corpus.test.num_bytes / corpus.test.documents / bytes_per_token(results, arm))


def bytes_per_token(results: Results, arm: ArmRecord) -> float:
    """Bytes of text that a token of the arm's own tokenizer holds in the mean."""
    own = "domain" if arm.origin in ("scratch", "mixed") else "generic"
    tokenizer = results.record.data.tokenizers.get(own)
    return tokenizer.bytes_per_token if tokenizer else BYTES_PER_TOKEN
