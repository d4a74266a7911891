"""List the sliders of the demo page: what can be moved, how far, where each stands at first and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from adaptkit.report.charts_money import count_text, usd
from adaptkit.study.forecast import size_text
from adaptkit.study.prices import Assumptions, Sourced

REQUESTS_PER_MONTH = 1_000_000.0
PRICE, DATA = "usd_per_hour", "data_bytes"


UNKNOWN = Sourced(1.0, "not known")


@dataclass(frozen=True)
class Dial:
    """One number that can be moved.

    Attributes:
        name: the field of `Choice`.
        origin: where its first value comes from, a clause.
        show: the value in words.
        log: equal steps are equal factors.
        main: shown at once; the others are folded away.
    """

    name: str
    label: str
    low: float
    high: float
    value: float
    origin: str
    show: Callable[[float], str]
    log: bool = True
    main: bool = True


def dials(
    assumptions: Assumptions, data_bytes: float, data_range: tuple[float, float], volume: float = 0.0
) -> list[Dial]:
    """All sliders; a range always holds its first value.

    Where something that a break-even needs is not known, those of the text and of the server's price alone.

    Args:
        volume: requests a month as the study states them; 0 where it does not.
    """

    def priced(name: str, label: str, low: float, high: float, start: Sourced | None) -> Dial:
        known = start or UNKNOWN
        return Dial(name, label, low, high, known.value, known.origin, usd)

    def counted(
        name: str, label: str, low: float, high: float, start: Sourced | None, main: bool = True
    ) -> Dial:
        known = start or UNKNOWN
        return Dial(name, label, low, high, known.value, known.origin, count_text, main=main)

    requests = Sourced(REQUESTS_PER_MONTH, "move it to yours")
    if volume:
        requests = Sourced(volume, "as in the study")
    amount = "Domain text to train on"
    dials = [
        counted("requests_per_month", "Requests per month", 1e3, 1e9, requests),
        priced(PRICE, "Server, per hour", 0.02, 50.0, assumptions.usd_per_hour),
        Dial(DATA, amount, *data_range, data_bytes, "as in the study", size_text),
        priced("usd_in", "API, per million tokens read", 0.01, 50.0, assumptions.usd_in),
        priced("usd_out", "API, per million tokens written", 0.01, 200.0, assumptions.usd_out),
        counted("requests_per_s", "Requests a second, one server", 0.01, 1e3, assumptions.requests_per_s),
        counted("tokens_in", "Tokens read per request", 1, 1e5, assumptions.tokens_in, main=False),
        counted("tokens_out", "Tokens written per request", 1, 1e4, assumptions.tokens_out, main=False),
        USED_SHARE,
        MONTHS,
    ]
    if assumptions.missing():
        alone = {DATA} if assumptions.usd_per_hour is None else {DATA, PRICE}
        dials = [dial for dial in dials if dial.name in alone]
    return [_widened(dial) for dial in dials]


def _widened(dial: Dial) -> Dial:
    return dataclasses.replace(dial, low=min(dial.low, dial.value), high=max(dial.high, dial.value))


def _percent(share: float) -> str:
    return f"{share:.0%}"


USED_SHARE = Dial(
    name="used_share",
    label="Share of its speed used",
    low=0.05,
    high=1.0,
    value=0.5,
    origin="room for peaks",
    show=_percent,
    log=False,
    main=False,
)
MONTHS = Dial(
    name="months",
    label="Months to write training off",
    low=1,
    high=60,
    value=12.0,
    origin="an assumption",
    show="{:.0f}".format,
    log=False,
    main=False,
)
