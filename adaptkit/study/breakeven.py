"""Compute from how many requests a month on an own server is cheaper than an API.

    own(R) = servers(R) * hours * usd_per_hour + training / months        servers(R) = ceil(R / capacity)
    api(R) = R * (tokens_in * usd_in + tokens_out * usd_out) / 1e6

Servers are rented whole, so `own` climbs in steps and the lines may cross more than once: `first` is where an
own server is cheaper for the first time, `always` where it stays so. Training is paid once and written off
over some months; it grows in proportion to the amount of text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_PER_MONTH = 730.0
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600


@dataclass(frozen=True)
class Prices:
    """What is paid, in US dollars.

    Attributes:
        usd_per_hour: one server, rented around the clock.
        usd_in, usd_out: an API's price per million tokens of prompt and of answer.
    """

    usd_per_hour: float
    usd_in: float
    usd_out: float


@dataclass(frozen=True)
class Workload:
    """What is asked, and how fast one server answers.

    Attributes:
        requests_per_month: the volume to judge.
        requests_per_s: one server's speed under full load.
        used_share: the share of that speed that an average hour may use; the rest is room for peaks.
        tokens_in, tokens_out: of one request.
    """

    requests_per_month: float
    requests_per_s: float
    used_share: float = 0.5
    tokens_in: float = 500.0
    tokens_out: float = 150.0

    @property
    def capacity(self) -> float:
        """Requests a month that one server takes."""
        return self.requests_per_s * self.used_share * SECONDS_PER_MONTH


@dataclass(frozen=True)
class Training:
    """What making the model costs.

    Attributes:
        hours: machine hours of the training measured.
        months: over which it is written off.
    """

    hours: float = 0.0
    months: float = 12.0

    def usd(self, prices: Prices) -> float:
        return self.hours * prices.usd_per_hour

    def usd_per_month(self, prices: Prices) -> float:
        return self.usd(prices) / self.months


@dataclass(frozen=True)
class BreakEven:
    """The answer, in requests and US dollars a month.

    Attributes:
        own, api: the bills at the volume asked for.
        num_servers: rented at that volume.
        own_per_1k, api_per_1k: per thousand requests at that volume.
        full_per_1k: per thousand requests of a server that never idles, training left out.
        first, always: volumes from which an own server is cheaper for the first time, and for good; inf for
            never.
    """

    own: float
    api: float
    num_servers: int
    own_per_1k: float
    api_per_1k: float
    full_per_1k: float
    first: float
    always: float

    @property
    def own_is_cheaper(self) -> bool:
        return self.own <= self.api


def usd_per_1k_requests(usd_per_hour: float, requests_per_s: float) -> float:
    """A thousand requests on a server under full load."""
    return usd_per_hour / 3600 / requests_per_s * 1000


def api_usd_per_request(work: Workload, prices: Prices) -> float:
    return (work.tokens_in * prices.usd_in + work.tokens_out * prices.usd_out) / 1e6


def num_servers(requests_per_month: float, capacity: float) -> int:
    """Whole servers, at least one."""
    return max(1, math.ceil(requests_per_month / capacity - 1e-9))


def own_usd_per_month(requests_per_month: float, work: Workload, prices: Prices, training: Training) -> float:
    servers = num_servers(requests_per_month, work.capacity)
    return servers * HOURS_PER_MONTH * prices.usd_per_hour + training.usd_per_month(prices)


def weigh(work: Workload, prices: Prices, training: Training) -> BreakEven:
    """Both bills at the volume of `work`, and the volumes where they cross."""
    volume = work.requests_per_month
    own = own_usd_per_month(volume, work, prices, training)
    api = volume * api_usd_per_request(work, prices)
    first, always = crossings(work, prices, training)
    return BreakEven(
        own=own,
        api=api,
        num_servers=num_servers(volume, work.capacity),
        own_per_1k=own / volume * 1000,
        api_per_1k=api / volume * 1000,
        full_per_1k=usd_per_1k_requests(prices.usd_per_hour, work.requests_per_s),
        first=first,
        always=always,
    )


def crossings(work: Workload, prices: Prices, training: Training) -> tuple[float, float]:
    """(first, always) of `BreakEven`.

    With n servers the own bill is n * H + F and holds for volumes in ((n-1) * capacity, n * capacity]. It is
    met at (n * H + F) / a for an API price `a` per request. The first n whose meeting point lies within its
    own step gives `first`; the first n from whose beginning on the API is dearer at every step gives
    `always`.
    """
    each, capacity = api_usd_per_request(work, prices), work.capacity
    server, fixed = HOURS_PER_MONTH * prices.usd_per_hour, training.usd_per_month(prices)
    gain = each * capacity - server  # what a full server saves
    if each <= 0 or gain < 0 or (gain == 0 and fixed > 0):
        return math.inf, math.inf
    steps = max(1, math.ceil(fixed / gain - 1e-9)) if gain else 1
    first = max((steps * server + fixed) / each, (steps - 1) * capacity)
    if not gain:
        return first, math.inf
    # Step n + 1 begins at n * capacity with n + 1 servers: it must be cheaper there already.
    settled = math.ceil((server + fixed) / gain - 1e-9)
    return first, max(first, (settled * server + fixed) / each, (settled - 1) * capacity)
