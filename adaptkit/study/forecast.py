"""Fit scaling laws: how quality grows with the domain text, and from which amount on `scratch` catches up.

bits per byte (D) = c + a * D^-b for D bytes of domain text (the form of Kaplan et al. 2020 and Hoffmann et
al. 2022). The floor c is fitted from five amounts on and left out below: three parameters through three
points would fit noise exactly. Intervals come from fitting every bootstrap replicate over seeds and items,
spread corrected for few seeds (statistics.py). Fewer than three amounts give no curve and no claim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adaptkit.study.record import ArmRecord
from adaptkit.study.results import Results, tables_of
from adaptkit.study.statistics import Interval, Replicates, resample

CrossingStatus = Literal["at", "already", "beyond"]

KEPT_ON = ("continued", "continued-lora", "continued-vocabulary")
"""Origins that keep on with the base on domain text."""
MIN_POINTS = 3
MIN_POINTS_FOR_FLOOR = 5
REACH = 1.0
"""How far beyond the largest amount a law is read, as a factor: larger runs refuted what lay beyond it."""
_EXPONENTS = np.geomspace(0.01, 2.0, 400)
_GRID_POINTS = 400


@dataclass(frozen=True)
class PowerLaw:
    """`floor + scale * D^-exponent`, as arrays of one shape (a scalar, or one per replicate)."""

    scale: np.ndarray
    exponent: np.ndarray
    floor: np.ndarray

    def __call__(self, num_bytes: np.ndarray) -> np.ndarray:
        """Predictions [..., len(num_bytes)]."""
        return (
            self.floor[..., None] + self.scale[..., None] * np.asarray(num_bytes) ** -self.exponent[..., None]
        )


@dataclass(frozen=True)
class Curve:
    """One arm's scores at several amounts of text, and the law through them."""

    arm: str
    origin: str
    num_bytes: tuple[float, ...]
    points: tuple[Interval, ...]
    law: PowerLaw
    laws: PowerLaw
    exponent: Interval


@dataclass(frozen=True)
class Crossing:
    """The amount of text D* from which `arm` is as good as `against` and stays so.

    Attributes:
        status: `at` (D* found), `already` (ahead at every amount tested), `beyond` (not within what was
            read).
        num_bytes, low, high: D* and its interval; 0 stands for below the smallest amount tested, inf for
            beyond the text read.
    """

    arm: str
    against: str
    status: CrossingStatus
    num_bytes: float
    low: float
    high: float
    sentence: str


@dataclass(frozen=True)
class Scaling:
    """Curves of every arm with at least three amounts, and where scratch crosses the others."""

    curves: tuple[Curve, ...]
    crossings: tuple[Crossing, ...]


def measure(results: Results) -> Scaling | None:
    """Curves and crossings of the language task; None when no arm was trained at three amounts of text."""
    language = results.language
    if language is None or not results.domain_bytes:
        return None
    arms = [
        arm
        for arm in (scored.name for scored in results.scored_arms(language.name))
        if len(results.shares(language.name, arm)) >= MIN_POINTS
    ]
    if not arms:
        return None
    tables = {}
    for arm in arms:
        for share in results.shares(language.name, arm):
            tables[_key(arm, share)] = tables_of(results.of(language.name, arm, share), language.metric)
    replicates = resample(tables, results.clusters(language.name))
    curves = tuple(
        _curve(results.arm(arm), _bytes_read(results, language.name, arm), replicates, results.confidence)
        for arm in arms
    )
    return Scaling(curves, _crossings(curves, results.confidence))


def _bytes_read(results: Results, task: str, arm: str) -> dict[float, float]:
    """Share of the text -> bytes of it that the arm read, mean over seeds: a small budget ends before the
    text does."""
    sizes = {}
    for share in results.shares(task, arm):
        cells = results.of(task, arm, share)
        sizes[share] = sum(cell.text_bytes or share * results.domain_bytes for cell in cells) / len(cells)
    return sizes


def _key(arm: str, share: float) -> str:
    return f"{arm}@{share}"


def _curve(
    arm: ArmRecord, bytes_read: dict[float, float], replicates: Replicates, confidence: float
) -> Curve:
    keys = [_key(arm.name, share) for share in bytes_read]
    sizes = np.array(list(bytes_read.values()))
    law = fit(sizes, np.array([replicates.mean(key) for key in keys]))
    laws = fit(sizes, np.stack([replicates.widened(key, confidence) for key in keys], axis=1))
    low, high = np.quantile(laws.exponent, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Curve(
        arm=arm.name,
        origin=arm.origin,
        num_bytes=tuple(sizes.tolist()),
        points=tuple(replicates.interval(key, confidence) for key in keys),
        law=law,
        laws=laws,
        exponent=Interval(float(law.exponent), float(low), float(high)),
    )


def fit(num_bytes: np.ndarray, values: np.ndarray) -> PowerLaw:
    """Least-squares power law through each row of `values` [..., num_points]; with a floor from five points
    on.

    Without a floor: linear regression in log-log. With one: for each exponent of a grid, floor and scale are
    linear and solved exactly (floor >= 0), and the exponent with the smallest squared error is kept.
    """
    if len(num_bytes) < MIN_POINTS:
        raise ValueError(f"a power law needs {MIN_POINTS} points, got {len(num_bytes)}")
    if len(num_bytes) >= MIN_POINTS_FOR_FLOOR:
        return _fit_floored(num_bytes, values)
    return _fit_plain(num_bytes, values)


def _fit_plain(num_bytes: np.ndarray, values: np.ndarray) -> PowerLaw:
    x, y = np.log(num_bytes), np.log(np.maximum(values, 1e-9))
    x_centred = x - x.mean()
    slope = (y * x_centred).sum(axis=-1) / (x_centred**2).sum()
    return PowerLaw(np.exp(y.mean(axis=-1) - slope * x.mean()), -slope, np.zeros_like(slope))


def _fit_floored(num_bytes: np.ndarray, values: np.ndarray) -> PowerLaw:
    middle = np.exp(np.log(num_bytes).mean())
    powers = (num_bytes / middle)[None, :] ** -_EXPONENTS[:, None]  # [exponents, points]
    centred = powers - powers.mean(axis=1, keepdims=True)
    y = values[..., None, :]  # [..., 1, points]
    scale = (y * centred).sum(axis=-1) / (centred**2).sum(axis=-1)
    floor = y.mean(axis=-1) - scale * powers.mean(axis=1)
    below = floor < 0
    scale = np.where(below, (y * powers).sum(axis=-1) / (powers**2).sum(axis=-1), scale)
    floor = np.where(below, 0.0, floor)
    error = ((y - floor[..., None] - scale[..., None] * powers) ** 2).sum(axis=-1)
    best = error.argmin(axis=-1)[..., None]
    exponent = _EXPONENTS[best[..., 0]]
    best_scale = np.take_along_axis(scale, best, axis=-1)[..., 0]
    best_floor = np.take_along_axis(floor, best, axis=-1)[..., 0]
    return PowerLaw(best_scale * middle**exponent, exponent, best_floor)


def _crossings(curves: tuple[Curve, ...], confidence: float) -> tuple[Crossing, ...]:
    scratch = next((curve for curve in curves if curve.origin == "scratch"), None)
    if scratch is None:
        return ()
    others = [curve for curve in curves if curve.origin in KEPT_ON]
    return tuple(cross(scratch, other, confidence) for other in others)


def cross(curve: Curve, other: Curve, confidence: float = 0.95) -> Crossing:
    """Where `curve` catches `other`, on curves fitted to the same replicates."""
    sizes = sorted({*curve.num_bytes, *other.num_bytes})
    smallest, largest = sizes[0], sizes[-1]
    at = float(_catches(curve.law, other.law, smallest, largest))
    # np.quantile turns infinities into nan, so the order statistics are picked by hand.
    ordered = np.sort(_catches(curve.laws, other.laws, smallest, largest))
    low = float(ordered[round((len(ordered) - 1) * (0.5 - confidence / 2))])
    high = float(ordered[round((len(ordered) - 1) * (0.5 + confidence / 2))])
    interval = f"{confidence:.0%} interval: {_bound(low)}"
    if low != high:
        interval += f" to {_bound(high)}"
    status: CrossingStatus = "at"
    if at == 0:
        status = "already"
        words = f"{curve.origin} is level with or ahead of {other.arm} at every amount tested ({interval})"
    elif math.isinf(at):
        status = "beyond"
        words = (
            f"{curve.origin} does not catch {other.arm} within the text read; beyond it nothing is forecast"
        )
    else:
        words = f"{curve.origin} catches {other.arm} from {size_text(at)} of text on ({interval})"
    return Crossing(curve.arm, other.arm, status, at, low, high, sentence=words)


def _catches(left: PowerLaw, right: PowerLaw, smallest: float, largest: float) -> np.ndarray:
    """Bytes from which `left` lies at or below `right` as far as laws are read: 0 = from the smallest amount
    on, inf = not within reach."""
    grid = np.geomspace(smallest, largest * REACH, _GRID_POINTS)
    gap = left(grid) - right(grid)
    behind = gap > 0
    # The last grid point at which left is still behind.
    last = _GRID_POINTS - 1 - behind[..., ::-1].argmax(axis=-1)
    after = np.minimum(last + 1, _GRID_POINTS - 1)
    before_gap = np.take_along_axis(gap, last[..., None], axis=-1)[..., 0]
    after_gap = np.take_along_axis(gap, after[..., None], axis=-1)[..., 0]
    share = before_gap / np.where(before_gap == after_gap, 1.0, before_gap - after_gap)
    crossing = grid[last] * (grid[after] / grid[last]) ** share
    return np.where(~behind.any(axis=-1), 0.0, np.where(behind[..., -1], np.inf, crossing))


def _bound(value: float) -> str:
    if value == 0:
        return "below the smallest amount tested"
    return size_text(value) if value < math.inf else "beyond the text read"


def size_text(num_bytes: float) -> str:
    """`1.8 MB`: decimal units, three digits at most."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"
