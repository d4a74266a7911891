"""Fit one law per origin: how its score falls with the text it has and with the text it reads.

    score = floor + scale * ((worth + transfer) / (reference + transfer))^-exponent
    worth = read                                                          up to the first pass
    worth = text + text * wear * (1 - exp(-(read / text - 1) / wear))     from then on

`text` are different bytes, `read` are bytes read, repeats counted. Repeated text is worth less and less
(arXiv 2305.16264, where wear is about 15 passes); what the base has learnt counts as extra text, `transfer`
(arXiv 2102.01293), and is nothing for models of random weights.

A study has three to five cells per origin and the law has five parameters, so each has a wide prior, and the
law is fitted anew for every bootstrap replicate with each prior centred on another draw. The spread of the
fits then holds what the cells do not tell. No law is exact, in two ways. Its misfit is estimated from the
residuals, never as nothing, and moves every cell of a replicate and every prediction away from the cells. And
its slope drifts: it is multiplied by a random factor with each doubling, so that a prediction is the less
certain the farther it lies from the cells. Doublings are counted in all that was learnt from, the base's text
included: the slope of a model that knows much already changes little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

_EXPONENTS = np.geomspace(0.04, 1.6, 12)
_TRANSFERS = np.geomspace(0.01, 30.0, 8)
_WEARS = np.geomspace(3.8, 61.6, 5)
_EXPONENT, _TRANSFER, _WEAR = (0.35, 0.8), (0.3, 2.5), (15.4, 0.7)
"""Centre and log spread of each prior; transfer is counted in what the largest cell reads."""
_FLOOR, _LEVEL = (0.5, 0.3), (0.95, 0.3)
"""Centre and spread, as shares of the best score of the cells: where no text leads any further, which may be
anywhere below what is reached, and the score of the largest cell."""
DRIFT = 0.34
"""How much the slope of a law changes with each doubling of what has been learnt from: one standard deviation
of its logarithm, so that it doubles as easily as it halves. Curves of learning have no single slope (arXiv
2210.14891). The smallest that predicts nine largest runs of ten in each of the families of
benchmarks/forecast_families.py that it was tuned on; others judge it."""
_DOUBLINGS_BEYOND = 2
"""Doublings beyond the largest run in which the slope drifts on; laws are read no farther."""
MISFIT, MISFIT_FREEDOM = 0.002, 4.0
"""How far a law is taken to lie from the truth before any residual is seen, as a share of the score, and how
many residuals that counts for."""
PARAMETERS_SEEN = 3
"""Parameters that the cells themselves settle; residuals beyond them tell the misfit."""


@dataclass(frozen=True)
class Place:
    """Where a training stands.

    Attributes:
        text: different bytes of domain text that it had.
        read: bytes of domain text that it read, repeats counted.
    """

    text: float
    read: float


@dataclass(frozen=True)
class Drift:
    """Changes of a law's slope, at every doubling of what is read.

    Attributes:
        scale, exponent, transfer, wear, reference: the law through the means of the cells, less its floor.
        knots: its scores where the slope may change, falling.
        spreads: standard deviation of the change at each, in logarithms of the slope.
        num_within: how many of them lie among the cells; the others lie beyond the best cell.
    """

    scale: float
    exponent: float
    transfer: float
    wear: float
    reference: float
    knots: np.ndarray
    spreads: np.ndarray
    num_within: int = 0

    def among_cells(self, text: np.ndarray, read: np.ndarray) -> np.ndarray:
        """What a standard deviation at each knot does to the score of each cell [num_knots, num_places].

        Among the cells changes are taken as small, so that the law can be solved for. Beyond them, where
        nothing is solved for, they are factors.
        """
        return self.spreads[:, None] * np.minimum(0.0, self._scores(text, read) - self.knots[:, None])

    def __call__(self, turns: np.ndarray, text: np.ndarray, read: np.ndarray) -> np.ndarray:
        """What turns [num_replicates, num_knots] do to each score [num_replicates, num_places]."""
        ends = np.append(self.knots[1:], -np.inf)[:, None]
        fallen = np.clip(self.knots[:, None] - self._scores(text, read), 0.0, self.knots[:, None] - ends)
        return (1 - self._slopes(turns)) @ fallen

    def _slopes(self, turns: np.ndarray) -> np.ndarray:
        """The slope after each knot, in that of the law [num_replicates, num_knots]."""
        steps, within = turns * self.spreads, self.num_within
        among = 1 + steps[:, :within].cumsum(axis=1)
        last = np.maximum(among[:, -1:], 0.0) if within else np.ones((len(turns), 1))
        return np.hstack([among, last * np.exp(steps[:, within:].cumsum(axis=1))])

    def _effective(self, text: np.ndarray, read: np.ndarray) -> np.ndarray:
        worth = _worth(text, read, np.array(self.wear)) / self.reference
        return (worth + self.transfer) / (1 + self.transfer)

    def _scores(self, text: np.ndarray, read: np.ndarray) -> np.ndarray:
        return self.scale * self._effective(text, read) ** -self.exponent

    def over(self, text: np.ndarray, read: np.ndarray) -> Drift:
        """With a knot at each doubling from the smallest cell on, on the most text of any cell."""
        least = math.floor(math.log2(read.min() / self.reference))
        reads = self.reference * 2.0 ** np.arange(least, _DOUBLINGS_BEYOND)
        texts = np.full(len(reads), text.max())
        knots, best = self._scores(texts, reads), self._scores(text, read).min()
        doublings = np.log2(self._effective(texts, reads) / self._effective(texts, reads / 2))
        return replace(
            self,
            knots=knots,
            spreads=DRIFT * np.sqrt(doublings),
            num_within=int((knots > best * (1 + 1e-9)).sum()),
        )


@dataclass(frozen=True)
class Laws:
    """One law per replicate, as arrays of that length.

    Attributes:
        reference: bytes that the scale is counted from.
        cells: where the law was fitted.
        misfit: standard deviation of the truth around the law.
        side: how many of them the truth lies off in this replicate.
        drift: where the slope may change.
        turns: by how many standard deviations it does, at each of those [num_replicates, num_knots].
    """

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    transfer: np.ndarray
    wear: np.ndarray
    reference: float
    cells: tuple[Place, ...]
    misfit: np.ndarray
    side: np.ndarray
    drift: Drift
    turns: np.ndarray

    def __call__(self, places: Sequence[Place]) -> np.ndarray:
        """Scores [num_replicates, num_places], none below 0; the misfit is nothing at a cell, and whole from
        half or twice its text or compute on."""
        text, read = _columns(places)
        worth = _worth(text, read, self.wear[:, None]) / self.reference
        powers = _powers(worth, self.exponent[:, None], self.transfer[:, None])
        off = (self.misfit * self.side)[:, None] * np.minimum(1.0, self._distance(text, read))
        scores = self.floor[:, None] + self.scale[:, None] * powers + off + self.drift(self.turns, text, read)
        return np.maximum(scores, 0.0)

    def _distance(self, text: np.ndarray, read: np.ndarray) -> np.ndarray:
        """Doublings of text and compute between each place and the nearest cell [num_places]."""
        cell_text, cell_read = _columns(self.cells)
        more_text = np.log2(np.minimum(text, read)[:, None] / np.minimum(cell_text, cell_read))
        more_read = np.log2(read[:, None] / cell_read)
        return (np.abs(more_text) + np.abs(more_read)).min(axis=1)


def fit(
    places: Sequence[Place],
    values: np.ndarray,
    noise: np.ndarray,
    *,
    reference: float,
    from_base: bool,
    rng: np.random.Generator,
    assumed_misfit: float = MISFIT,
) -> Laws:
    """Fit a law to every replicate.

    Args:
        values: scores [num_replicates, num_places].
        noise: standard error of each place's mean, from seed to seed.
        reference: bytes that the largest cell reads, or will read.
        from_base: whether the weights start from the base.
        assumed_misfit: how far the law lies from the truth before any residual is seen, as a share of the
            score.
    """
    text, read = _columns(places)
    unit = values.mean(axis=0).min()
    scores, num = values / unit, len(values)
    grid = _Grid.of(text / reference, read / reference, from_base)
    exact = np.diag((noise / unit) ** 2 + assumed_misfit**2)
    first = grid.fitted(scores.mean(axis=0, keepdims=True), exact, np.zeros((1, 5)))
    misfit = _misfit(scores.mean(axis=0) - grid.at(first)[0], noise / unit, assumed_misfit, num, rng)
    drift = grid.drift(first, unit, reference).over(text, read)
    of_cells = drift.among_cells(text, read) / unit
    covariance = np.diag((noise / unit) ** 2 + (misfit**2).mean()) + of_cells.T @ of_cells
    turns = rng.standard_normal((num, len(of_cells)))
    moved = scores + misfit[:, None] * rng.standard_normal(scores.shape) - turns @ of_cells
    fitted = grid.fitted(moved, covariance, rng.standard_normal((num, 5)))
    # What the law leaves is shared out between misfit and drift, as likely as each is.
    turns += np.linalg.solve(covariance, (moved - grid.at(fitted)).T).T @ of_cells.T
    return Laws(
        floor=unit * fitted.floor,
        scale=unit * fitted.scale,
        exponent=grid.exponent[fitted.best],
        transfer=grid.transfer[fitted.best],
        wear=grid.wear[fitted.best],
        reference=reference,
        cells=tuple(places),
        misfit=unit * misfit,
        side=rng.standard_normal(num),
        drift=drift,
        turns=turns,
    )


def drawn_scores(
    places: Sequence[Place], num: int, *, from_base: bool, rng: np.random.Generator
) -> np.ndarray:
    """Scores [num, num_places] by laws drawn from the priors, in best scores; places are counted in what the
    largest cell reads."""
    text, read = _columns(places)

    def drawn(prior: tuple[float, float]) -> np.ndarray:
        return prior[0] * np.exp(prior[1] * rng.standard_normal((num, 1)))

    exponent, wear = drawn(_EXPONENT), drawn(_WEAR)
    transfer = drawn(_TRANSFER) if from_base else np.zeros((num, 1))
    floor, level = (centre + spread * rng.standard_normal((num, 1)) for centre, spread in (_FLOOR, _LEVEL))
    return floor + np.abs(level - floor) * _powers(_worth(text, read, wear), exponent, transfer)


def read_once(amount: float, read: float) -> Place:
    """The place that counts what is read again as what it is worth read once."""
    worth = float(_worth(np.array([amount]), np.array([read]), np.array(_WEAR[0]))[0])
    return Place(worth, worth)


def _columns(places: Sequence[Place]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([place.text for place in places]), np.array([place.read for place in places])


def _worth(text: np.ndarray, read: np.ndarray, wear: np.ndarray) -> np.ndarray:
    """Bytes read once that repeated ones are worth (arXiv 2305.16264, equation 5)."""
    once = np.minimum(text, read)
    return once + once * wear * -np.expm1(-(read / once - 1) / wear)


def _powers(worth: np.ndarray, exponent: np.ndarray, transfer: np.ndarray) -> np.ndarray:
    return ((worth + transfer) / (1 + transfer)) ** -exponent


def _misfit(
    residuals: np.ndarray, noise: np.ndarray, assumed: float, num: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws [num] of a law's standard misfit: what its residuals show beyond noise, and what is assumed."""
    freedom = MISFIT_FREEDOM + max(0, len(residuals) - PARAMETERS_SEEN)
    seen = np.maximum(0.0, residuals**2 - noise**2).sum()
    variance = (MISFIT_FREEDOM * assumed**2 + seen) / freedom
    return np.sqrt(variance * freedom / rng.chisquare(freedom, num))


@dataclass(frozen=True)
class _Fitted:
    """The best point of the grid for each replicate, and the linear parameters there."""

    best: np.ndarray
    floor: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class _Grid:
    """All combinations of exponent, transfer and wear that are tried, and the powers of each cell there."""

    exponent: np.ndarray
    transfer: np.ndarray
    wear: np.ndarray
    powers: np.ndarray

    @classmethod
    def of(cls, text: np.ndarray, read: np.ndarray, from_base: bool) -> _Grid:
        transfers = _TRANSFERS if from_base else np.zeros(1)
        axes = np.meshgrid(_EXPONENTS, transfers, _WEARS, indexing="ij")
        exponent, transfer, wear = (axis.ravel() for axis in axes)
        worth = _worth(text, read, wear[:, None])
        return cls(exponent, transfer, wear, _powers(worth, exponent[:, None], transfer[:, None]))

    def at(self, fitted: _Fitted) -> np.ndarray:
        """The fitted scores of the cells."""
        return fitted.floor[:, None] + fitted.scale[:, None] * self.powers[fitted.best]

    def drift(self, fitted: _Fitted, unit: float, reference: float) -> Drift:
        """Of the first of the fitted laws, without knots yet."""
        point, scale = fitted.best[0], unit * float(fitted.scale[0])
        return Drift(
            scale,
            exponent=float(self.exponent[point]),
            transfer=float(self.transfer[point]),
            wear=float(self.wear[point]),
            reference=reference,
            knots=np.zeros(0),
            spreads=np.zeros(0),
        )

    def fitted(self, scores: np.ndarray, covariance: np.ndarray, centres: np.ndarray) -> _Fitted:
        """The likeliest law of each row of scores.

        Floor and scale are linear and solved at each point of the grid; the others are searched for.

        Args:
            covariance: of the errors of the cells.
            centres: standard normal draws [rows, 5] that the priors' centres are moved by.
        """
        whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
        num_points, num_cells = self.powers.shape
        design = np.empty((num_points, num_cells + 2, 2))
        design[:, :-2, 0], design[:, :-2, 1] = whiten.sum(axis=0), self.powers @ whiten
        design[:, -2], design[:, -1] = np.array([1, 0]) / _FLOOR[1], np.array([1, 1]) / _LEVEL[1]
        basis, triangle = np.linalg.qr(design)
        priors = [_FLOOR[0] / _FLOOR[1] + centres[:, 0], _LEVEL[0] / _LEVEL[1] + centres[:, 1]]
        wanted = np.column_stack([scores @ whiten, *priors])
        seen = np.einsum("rk,gki->rgi", wanted, basis, optimize=True)
        scale = seen[..., 1] / triangle[:, 1, 1]
        floor = (seen[..., 0] - triangle[:, 0, 1] * scale) / triangle[:, 0, 0]
        misses = (wanted**2).sum(axis=1)[:, None] - (seen**2).sum(axis=-1) + self._unlikely(centres)
        misses += 1e6 * ((scale < 0) | (floor < 0))
        best = misses.argmin(axis=1)
        rows = np.arange(len(scores))
        return _Fitted(best, np.maximum(floor[rows, best], 0.0), np.maximum(scale[rows, best], 0.0))

    def _unlikely(self, centres: np.ndarray) -> np.ndarray:
        """How far each point of the grid lies from the centres of its priors."""
        unlikely = _distance(self.exponent, _EXPONENT, centres[:, 2])
        unlikely += _distance(self.wear, _WEAR, centres[:, 3])
        if self.transfer.any():
            unlikely += _distance(self.transfer, _TRANSFER, centres[:, 4])
        return unlikely


def _distance(values: np.ndarray, prior: tuple[float, float], moved: np.ndarray) -> np.ndarray:
    """Squared distance [rows, values] in spreads of a prior."""
    return ((np.log(values) - np.log(prior[0]))[None, :] / prior[1] - moved[:, None]) ** 2
