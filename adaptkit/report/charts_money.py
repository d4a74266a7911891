"""Draw the figure behind a break-even: both bills over the number of requests a month."""

from __future__ import annotations

import math

from adaptkit.report.charts import Figure
from adaptkit.report.svg import WIDTH, Canvas, Scale, circle, polyline
from adaptkit.study.breakeven import (
    BreakEven,
    Prices,
    Training,
    Workload,
    api_usd_per_request,
    own_usd_per_month,
)

_MOST_STEPS = 120  # more servers than this are drawn as a straight line
_HEIGHT, _LEFT, _RIGHT = 262.0, 66.0, 92.0
TITLE = "What a month costs"


def bills(work: Workload, prices: Prices, training: Training, answer: BreakEven) -> Figure:
    """Own servers against an API in USD a month, from zero; the volume asked for and the break-even are
    marked."""
    right = 1.3 * max(work.requests_per_month, answer.first if math.isfinite(answer.first) else 0.0)
    each = api_usd_per_request(work, prices)
    top = max(right * each, own_usd_per_month(right, work, prices, training)) * 1.06
    x, y = Scale(0.0, right, _LEFT, WIDTH - _RIGHT), Scale(0.0, top, _HEIGHT + 34, 34)
    canvas = Canvas(
        WIDTH, _HEIGHT + 84, TITLE, f"own servers {usd(answer.own)}, API {usd(answer.api)} a month"
    )
    if answer.first < right:
        canvas.rect(x(answer.first), y.end, x.end - x(answer.first), y.start - y.end, "margin")
    canvas.x_axis(x, y.start, y.end, count_text, "requests a month", count=4)
    canvas.y_axis(y, x.start, x.end, usd, "US dollars a month", count=4)
    own = _own_line(right, work, prices, training)
    canvas.group("o-ink", polyline([(x(volume), y(bill)) for volume, bill in own], "track"))
    canvas.group("o-placebo", polyline([(x(0), y(0)), (x(right), y(right * each))], "track ahead"))
    _names(canvas, x, y, own[-1][1], right * each)
    if math.isfinite(answer.first):
        _break_even(canvas, x, y, answer.first, answer.first * each)
    _asked(canvas, x, y, work.requests_per_month, (answer.own, answer.api))
    note = "Shaded: volumes from which an own server is the cheaper one. Dots: the volume set above."
    return Figure(TITLE, canvas.render(), note)


def _own_line(right: float, work: Workload, prices: Prices, training: Training) -> list[tuple[float, float]]:
    """Corners of the stairs."""
    steps = right / work.capacity
    if steps > _MOST_STEPS:
        return [
            (share * right, own_usd_per_month(share * right, work, prices, training)) for share in (1e-9, 1.0)
        ]
    points = []
    for server in range(math.ceil(steps)):
        start, end = server * work.capacity, min((server + 1) * work.capacity, right)
        bill = own_usd_per_month(end, work, prices, training)
        points += [(start, bill), (end, bill)]
    return points


def _names(canvas: Canvas, x: Scale, y: Scale, own: float, api: float) -> None:
    """Both lines' names at their right ends, apart."""
    low, high = sorted([(y(own), "own server"), (y(api), "API")], key=lambda place: -place[0])
    gap = max(0.0, 17 - (low[0] - high[0])) / 2
    canvas.text(x.end + 8, low[0] + gap + 4.5, low[1], "end name")
    canvas.text(x.end + 8, high[0] - gap + 4.5, high[1], "end name")


def _break_even(canvas: Canvas, x: Scale, y: Scale, volume: float, bill: float) -> None:
    canvas.line(x(volume), y.end, x(volume), y.start, "zero")
    canvas.group("o-ink", circle(x(volume), y(bill), 5.0, "mark"))
    canvas.text(x(volume), y.end - 6, f"break-even {count_text(volume)}", "name halo", "middle")


def _asked(canvas: Canvas, x: Scale, y: Scale, volume: float, both: tuple[float, float]) -> None:
    canvas.line(x(volume), y.start, x(volume), y(max(both)), "leader here")
    for origin, bill in zip(("ink", "placebo"), both, strict=True):
        canvas.group(f"o-{origin}", circle(x(volume), y(bill), 5.0, "hollow"))


def count_text(value: float) -> str:
    """`950`, `20 k`, `1.2 M`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def usd(value: float) -> str:
    """`$0.042`, `$0.40`, `$12.50`, `$1,240`, `$1.2 M`."""
    if value >= 1e6:
        return f"${value / 1e6:.3g} M"
    if value >= 100 or value == 0:
        return f"${value:,.0f}"
    return f"${value:.2f}" if value >= 0.095 else f"${value:.2g}"
