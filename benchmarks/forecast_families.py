"""Made laws of learning, most of them other than the one that a forecast fits.

Tuned on: the constants of study/law.py were set with these in sight.

as fitted      floor, power, repeats and transfer within what is assumed
no floor       a power of the text alone
near floor     nearly all that can be learnt is learnt
steep start    twice the exponent below a quarter of the compute
bent           a smooth deviation of half a percent from any power
harsh repeats  repeats wear out after 4 passes instead of 15
shallow start  half the exponent below a quarter of the compute
broken         the exponent is halved to doubled at a random place between 1/16 of the compute and all of it
warm-up        another 10 to 40 % above the law at first, which fades over 1/16 of the compute
logarithmic    as much less with every doubling, without a power or a floor

Judged on: written, and their coverage predicted in results/README.md, before any was run.

speeding up    the exponent grows steadily, from half of it at 1/32 of the compute to one and a half
slowing down   the exponent shrinks steadily, from one and a half to half of it
sudden fall    another 5 to 15 % is learnt within a doubling, at a random place from 1/8 of the compute on
two powers     the sum of a fast and a slow power
saturating     an exponential instead of a power: after the fall nothing is left to learn
wandering      the slope changes by a random factor at each doubling, of log spread 0 to 0.6 by study
re-warmed      what starts from the base is 2 to 10 % worse at first, which fades over 1/32 of what is read
harmful        every pass beyond the second costs 0.5 to 2 % of the score
uneven         each smaller training is off by 1 %, as if its learning rate had been tuned with less luck
loud seeds     seeds differ by four times as much
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from adaptkit.study.law import Place

PASSES = 4.0
"""Of the largest run over the text."""
TUNED = (
    *("as fitted", "no floor", "near floor", "steep start", "bent"),
    *("harsh repeats", "shallow start", "broken", "warm-up", "logarithmic"),
)
JUDGED = (
    *("speeding up", "slowing down", "sudden fall", "two powers", "saturating"),
    *("wandering", "re-warmed", "harmful", "uneven", "loud seeds"),
)
SEED_SD = 0.006
LARGE_SEED_SD = 0.024
CELL_SD = 0.01
"""Of the cells of `uneven`, as a share of the score."""

Shape = Callable[[float], float]
"""What is left to learn at a share of the effective text of the largest run, in what is left at all of it."""


@dataclass(frozen=True)
class Truth:
    """A made law, in bits per byte.

    Attributes:
        shape: how what is left falls, 1 at the largest run.
        bend: height of a wave around the law, as a share of the score.
        start: share of the score that lies above the law at first, and fades with effective text.
        rewarm: the same, but fading with what is read, whatever the base has learnt.
        harm: share of the score that each pass beyond the second costs.
    """

    floor: float
    scale: float
    transfer: float
    wear: float
    shape: Shape
    bend: float = 0.0
    start: float = 0.0
    rewarm: float = 0.0
    harm: float = 0.0

    def __call__(self, place: Place) -> float:
        once = min(place.text, place.read)
        worth = once * (1 + self.wear * (1 - math.exp(-(place.read / once - 1) / self.wear)))
        share = (worth / PASSES + self.transfer) / (1 + self.transfer)
        above = self.bend * math.sin(1.5 * math.log2(share)) + self.start * math.exp(-16 * share)
        above += self.rewarm * math.exp(-32 * place.read / PASSES)
        above += self.harm * max(0.0, place.read / once - 2)
        return (self.floor + self.scale * self.shape(share)) * (1 + above)


def draw(rng: np.random.Generator, family: str, from_base: bool) -> Truth:
    """A law of a family, near 1.8 bits per byte at the largest run."""
    level, floor = rng.uniform(1.6, 2.0), rng.uniform(0.45, 0.85)
    floor = {"no floor": 0.0, "near floor": rng.uniform(0.9, 0.97)}.get(family, floor)
    exponent = 0.35 * math.exp(0.5 * rng.standard_normal())
    if family == "no floor":
        exponent *= 0.3
    made = Truth(
        floor=level * floor,
        scale=level * (1 - floor),
        shape=_shape(rng, family, exponent),
        transfer=0.3 * math.exp(1.5 * rng.standard_normal()) if from_base else 0.0,
        wear=4.0 if family == "harsh repeats" else 15.4 * math.exp(0.4 * rng.standard_normal()),
    )
    if family == "bent":
        return replace(made, bend=0.005)
    if family == "warm-up":
        return replace(made, start=rng.uniform(0.1, 0.4))
    if family == "re-warmed" and from_base:
        return replace(made, rewarm=rng.uniform(0.02, 0.1))
    if family == "harmful":
        return replace(made, harm=rng.uniform(0.005, 0.02))
    return made


def seed_noise_of(family: str) -> float:
    """Standard deviation from seed to seed."""
    return LARGE_SEED_SD if family == "loud seeds" else SEED_SD


def _shape(rng: np.random.Generator, family: str, exponent: float) -> Shape:
    if family in ("steep start", "shallow start", "broken"):
        early, knee = {"steep start": (2.0, 0.25), "shallow start": (0.5, 0.25)}.get(family, (1.0, 0.25))
        if family == "broken":
            early, knee = 2 ** rng.uniform(-1, 1), 2 ** rng.uniform(-4, 0)
        return lambda share: max(share, knee) ** -exponent * min(1.0, share / knee) ** (-exponent * early)
    if family == "logarithmic":
        return lambda share: 1 - exponent * math.log(share)
    if family in ("speeding up", "slowing down"):
        gain = {"speeding up": 0.5, "slowing down": -0.5}[family]
        # The exponent 1 + gain at the end and 1 - gain five doublings before, integrated over log share.
        return lambda share: share ** (-exponent * (1 + gain + gain * math.log2(share) / 5))
    if family == "sudden fall":
        height, place = rng.uniform(0.05, 0.15), rng.uniform(-3, 0)
        return lambda share: share**-exponent + 3 * height / (1 + math.exp(4 * (math.log2(share) - place)))
    if family == "two powers":
        fast = rng.uniform(0.1, 0.4)
        return lambda share: fast * share ** (-3 * exponent) + (1 - fast) * share ** (-0.4 * exponent)
    if family == "saturating":
        height = rng.uniform(1.0, 3.0)
        return lambda share: 1 + height * math.exp(-6 * share)
    if family == "wandering":
        return _wandering(exponent, np.exp(rng.uniform(0, 0.6) * rng.standard_normal(12).cumsum()))
    return lambda share: share**-exponent


def _wandering(exponent: float, slopes: np.ndarray) -> Shape:
    """A power whose slope is multiplied by another number within each doubling, the last ones first."""

    def left(share: float) -> float:
        ends = 2.0 ** np.arange(3, -9, -1)
        ends[-1] = 1e-9
        tops, values = ends * 2, 0.0
        for top, end, slope in zip(tops, ends, slopes, strict=True):
            # The part of this doubling that lies between `share` and the largest run, with its sign.
            low, high = (min(max(at, end), top) for at in (share, 1.0))
            values += slope * (low**-exponent - high**-exponent)
        return 1 + values

    return left
