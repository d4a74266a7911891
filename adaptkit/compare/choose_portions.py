"""Which smaller trainings a study does to forecast: those that settle most within what it may spend.

Candidates halve the compute, and the text, again and again. How their scores and those that are asked for
vary together, over laws drawn from their priors, tells what measuring them would leave open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from adaptkit.compare.build_stages import scores_text
from adaptkit.compare.costs import Costs
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.budget import MIN_STEPS, Budget
from adaptkit.study.config import StudyConfig
from adaptkit.study.forecast_record import Portion, reach_of
from adaptkit.study.law import Place, drawn_scores
from adaptkit.study.task_size import BYTES_PER_TOKEN

LEAST = 3
"""Smaller trainings of each arm: with fewer nothing is forecast."""
HALVINGS_OF_COMPUTE, HALVINGS_OF_TEXT = 6, 12
MOST_PASSES = 64.0
"""Over a part of the text: beyond them nothing is learnt."""
NOISE = 0.003
"""Of a cell's score, as a share of it."""
NUM_DRAWS = 400
NO_TEXT = "no portion has less text: what repeats are worth is taken from arXiv 2305.16264, not measured"
ASKED = ((1.0, 1.0), (2.0, 1.0), (1.0, 2.0), (0.25, 1.0))
"""Text and compute, in those of the largest run, at which scores are asked for."""


def choose_portions(
    config: StudyConfig, budget: Budget, costs: Costs, arms: Sequence[Arm]
) -> tuple[Portion, ...]:
    """What the smaller trainings have, the smallest compute first; the same for every arm.

    Empty where none are asked for, where no model gives bits per byte, and where the share of FLOPs pays for
    fewer than LEAST of `forecast.least_steps` each.
    """
    origins = [arm.origin for arm in arms if arm.ledger == "text" and arm.origin.has_law]
    if not config.forecast.share or not origins or not scores_text(config):
        return ()
    tokens = costs.text_tokens(Origin.GENERIC, budget.run(budget.text))
    passes = tokens * BYTES_PER_TOKEN / costs.texts.domain
    candidates = [
        portion
        for portion in _candidates(passes)
        if portion.text * costs.texts.domain >= MIN_STEPS * costs.bytes_per_step
        and all(_steps(budget, costs, origin, portion) >= config.forecast.least_steps for origin in origins)
    ]
    chosen = _most_telling(candidates, passes, config.forecast.share)
    return tuple(sorted(chosen, key=lambda portion: (portion.compute, portion.text)))


def _candidates(passes: float) -> Iterator[Portion]:
    """Smaller portions, `passes` being those of the largest run; less text only where it is then repeated."""
    for compute in (0.5**power for power in range(1, HALVINGS_OF_COMPUTE + 1)):
        yield Portion(compute=compute)
        for text in (0.5**power for power in range(1, HALVINGS_OF_TEXT + 1)):
            if 2 <= passes * compute / text <= MOST_PASSES:
                yield Portion(text=text, compute=compute)


def _steps(budget: Budget, costs: Costs, origin: Origin, portion: Portion) -> float:
    """Steps that a portion of the compute pays for; scoring comes on top."""
    learnt = budget.run(budget.text) - costs.text_scoring(origin)
    return learnt * portion.compute / costs.text_step(origin)


def _most_telling(candidates: Sequence[Portion], passes: float, share: float) -> list[Portion]:
    """A cross, two with less compute and two with less text too where that can be paid for, that leaves the
    least open of what is asked: each is exchanged for another of its kind while that helps."""
    chosen = _cheapest(candidates, share)
    if len(chosen) < LEAST or _compute(chosen) > share:
        return []
    asked = [Place(text, compute * passes) for text, compute in ASKED]
    places = [Place(portion.text, portion.compute * passes) for portion in candidates]
    left_open = LeftOpen.of([*places, *asked], len(candidates), NOISE)

    def left(portions: Sequence[Portion]) -> float:
        return left_open([candidates.index(portion) for portion in portions])

    exchanged = True
    while exchanged:
        exchanged = False
        for number, now in enumerate(chosen):
            others = [*chosen[:number], *chosen[number + 1 :]]
            able = [
                [*others, other]
                for other in candidates
                if other not in others
                and (other.text < 1) == (now.text < 1)
                and _allowed([*others, other], share)
            ]
            best = min(able, key=left)
            if left(best) < left(chosen) * (1 - 1e-9):
                chosen, exchanged = best, True
                break
    return chosen


def _cheapest(candidates: Sequence[Portion], share: float) -> list[Portion]:
    """Two with all of the text and two with less of it; where that cannot be paid for one with less, or three
    with all."""
    ascending = sorted(candidates, key=lambda portion: portion.compute)
    whole = [portion for portion in ascending if portion.text == 1]
    less = [portion for portion in ascending if portion.text < 1]
    for num in range(min(2, len(less)), 0, -1):
        enough = [portion for portion in whole[1:] if portion.compute >= less[num - 1].compute]
        cross = [*whole[:1], *enough[:1], *less[:num]]
        if enough and _compute(cross) <= share:
            return cross
    return whole[:LEAST]


def _allowed(portions: Sequence[Portion], share: float) -> bool:
    """Whether they are paid for, and the largest of them has all of the text, as the largest run has."""
    most = max(portions, key=lambda portion: (portion.compute, portion.text))
    return _compute(portions) <= share and most.text == 1


def _compute(portions: Sequence[Portion]) -> float:
    return sum(portion.compute for portion in portions)


@dataclass(frozen=True)
class LeftOpen:
    """What measuring candidates leaves open of what is asked.

    Attributes:
        blocks: covariance of the scores of candidates, then of what is asked, over laws drawn from their
            priors; of a model from scratch, and of one that starts from the base.
        num: candidates.
        noise: of a candidate's score, as a share of it.
    """

    blocks: tuple[np.ndarray, ...]
    num: int
    noise: float

    @classmethod
    def of(cls, places: Sequence[Place], num: int, noise: float) -> LeftOpen:
        """Draw the laws; `places` are those of candidates, then of what is asked."""
        rng = np.random.default_rng(0)
        drawn = [drawn_scores(places, NUM_DRAWS, from_base=from_base, rng=rng) for from_base in (False, True)]
        return cls(tuple(np.cov(scores, rowvar=False) for scores in drawn), num, noise)

    def __call__(self, measured: Sequence[int]) -> float:
        """Variance that is left, summed."""
        left = 0.0
        for block in self.blocks:
            noisy = block[np.ix_(measured, measured)] + self.noise**2 * np.eye(len(measured))
            across = block[self.num :, measured]
            known = (across * np.linalg.solve(noisy, across.T).T).sum()
            left += block[self.num :, self.num :].trace() - known
        return left


def forecast_sentences(
    config: StudyConfig, budget: Budget, costs: Costs, arms: Sequence[Arm], portions: Sequence[Portion]
) -> list[str]:
    """What a dry run says of the forecast: which smaller trainings, what they cost, what they can answer."""
    if not config.forecast.share:
        return []
    if not scores_text(config):
        return ["forecast: none, as a masked base gives no bits per byte"]
    if not portions:
        fewer = f"fewer than {LEAST} smaller trainings of {config.forecast.least_steps} steps"
        share = f"forecast.share={config.forecast.share:g}"
        return [
            f"forecast: none, as {share} pays for {fewer} (forecast.least_steps): raise it, or budget.amount"
        ]
    flops = _compute(portions) * budget.run(budget.text)
    count = f"{len(portions)} smaller trainings of each arm and seed"
    each = f"{count}, which learn with {flops:.2g} FLOPs beside the budget"
    titles = [f"  {portion.title}" for portion in portions]
    can = "from them the largest run is predicted before it begins; where that fails, nothing is forecast"
    asks = "answered then: with how much text, or compute, a model of one's own overtakes keeping on with the"
    reach = f"base, up to {reach_of(portions):g} times yours, and what twice of each buys each arm"
    less = [] if any(portion.text < 1 for portion in portions) else [f"  {NO_TEXT}"]
    no = "not answered: other sizes of model"
    return [f"forecast: {each}", *titles, f"  {can}", f"  {asks} {reach}", *less, f"  {no}"]
