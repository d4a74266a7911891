"""The sliders of the demo page: what can be moved, how far, where each stands at first and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adaptkit.report.charts_money import count_text, usd
from adaptkit.study.forecast import size_text
from adaptkit.study.prices import Assumptions

REQUESTS_PER_MONTH, USED_SHARE, MONTHS = 1_000_000.0, 0.5, 12.0


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


def dials(known: Assumptions, data_bytes: float, data_range: tuple[float, float]) -> list[Dial]:
    """All sliders; a range always holds its first value."""
    hour, speed, rate_in, rate_out = known.usd_per_hour, known.requests_per_s, known.usd_in, known.usd_out
    made = [
        Dial(
            "requests_per_month",
            "Requests per month",
            1e3,
            1e9,
            REQUESTS_PER_MONTH,
            "your volume",
            count_text,
        ),
        Dial("usd_per_hour", "Server, per hour", 0.02, 50.0, hour.value, hour.origin, usd),
        Dial("data_bytes", "Domain text to train on", *data_range, data_bytes, "as in the study", size_text),
        Dial("usd_in", "API, per million tokens read", 0.01, 50.0, rate_in.value, rate_in.origin, usd),
        Dial("usd_out", "API, per million tokens written", 0.01, 200.0, rate_out.value, rate_out.origin, usd),
        Dial(
            "requests_per_s",
            "Requests a second, one server",
            0.01,
            1e3,
            speed.value,
            speed.origin,
            count_text,
        ),
        Dial(
            "tokens_in",
            "Tokens read per request",
            1,
            1e5,
            known.tokens_in.value,
            known.tokens_in.origin,
            count_text,
            main=False,
        ),
        Dial(
            "tokens_out",
            "Tokens written per request",
            1,
            1e4,
            known.tokens_out.value,
            known.tokens_out.origin,
            count_text,
            main=False,
        ),
        Dial(
            "used_share",
            "Share of its speed used",
            0.05,
            1.0,
            USED_SHARE,
            "room for peaks",
            _percent,
            log=False,
            main=False,
        ),
        Dial(
            "months",
            "Months to write training off",
            1,
            60,
            MONTHS,
            "an assumption",
            "{:.0f}".format,
            log=False,
            main=False,
        ),
    ]
    return [_holding(dial) for dial in made]


def _holding(dial: Dial) -> Dial:
    low, high = min(dial.low, dial.value), max(dial.high, dial.value)
    return dial if (low, high) == (dial.low, dial.high) else Dial(**{**vars(dial), "low": low, "high": high})


def _percent(share: float) -> str:
    return f"{share:.0%}"
