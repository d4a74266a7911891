"""Draw what handing doubtful items to people gains: accuracy of the rest over the share handed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptkit.audit.confidence import ArmConfidence
from adaptkit.report.charts import Figure, short
from adaptkit.report.svg import WIDTH, Canvas, Scale, decimals, line, mark, padded, polyline, spread
from adaptkit.study.record import ArmRecord

_RIGHT = 140.0  # room for names
_TOP, _BOTTOM, _LEFT = 40.0, 290.0, 48.0


def answered_curves(
    task: str, audits: Sequence[ArmConfidence], arms: Mapping[str, ArmRecord], shown: str
) -> Figure:
    """One line per arm; whiskers on the arm `shown`, which people will use."""
    curves = {audit.arm: _points(audit) for audit in audits}
    of_shown = next(audit for audit in audits if audit.arm == shown)
    whiskers = [(step.share.mean, step.accuracy.low, step.accuracy.high) for step in of_shown.handed]
    heights = [y for points in curves.values() for _, y in points]
    low, high = padded([*heights, *(end for _, *ends in whiskers for end in ends)])
    x = Scale(0.0, max(0.55, max(points[-1][0] for points in curves.values())), _LEFT, WIDTH - _RIGHT)
    y = Scale(max(0.0, low), min(1.0, high), _BOTTOM, _TOP)
    title = f"Accuracy when doubtful items go to people: {task}"
    canvas = Canvas(WIDTH, _BOTTOM + 48, title, _described(audits))
    canvas.x_axis(x, _BOTTOM, _TOP, lambda value: f"{100 * value:.0f} %", "share of items handed to people")
    canvas.y_axis(y, x.start, x.end, decimals(y), "accuracy of the rest")
    for place, low_end, high_end in whiskers:
        ends = y(y.clip(low_end)), y(y.clip(high_end))
        canvas.group(f"o-{arms[shown].origin}", line(x(place), ends[0], x(place), ends[1], "whisker"))
    last = [y(y.clip(curves[audit.arm][-1][1])) for audit in audits]
    for audit, label in zip(audits, spread(last, 17, _TOP, _BOTTOM), strict=True):
        arm, points = arms[audit.arm], [(x(a), y(y.clip(b))) for a, b in curves[audit.arm]]
        dots = [mark(arm.adaptation or arm.origin, *point) for point in points]
        canvas.group(f"o-{arm.origin}", polyline(points, "track"), *dots)
        canvas.text(points[-1][0] + 12, label + 4.5, short(arm.name, 18), "name")
    note = f"Whiskers: intervals of {shown}. Thresholds were set on {of_shown.fitted_on}."
    return Figure(title, canvas.render(), f"{note} Flat: confidence does not tell right from wrong.")


def _points(audit: ArmConfidence) -> list[tuple[float, float]]:
    return [(0.0, audit.accuracy.mean), *((step.share.mean, step.accuracy.mean) for step in audit.handed)]


def _described(audits: Sequence[ArmConfidence]) -> str:
    return "; ".join(
        f"{audit.arm}: {audit.accuracy.mean:.3f} on all items, {audit.handed[-1].accuracy.mean:.3f} on the "
        f"surest {1 - audit.handed[-1].share.mean:.0%}"
        for audit in audits
    )
