"""The scaling law of a study's own models from scratch, fitted to its sizes and its smaller trainings.

    chosen = choose_law(config)
    chosen.law, chosen.draws, chosen.note

It has the form of the published laws, in bits per byte of the study's held-out text. It needs other sizes
(`sizes`, so that parameters vary) and smaller trainings (`forecast.share`, so that text does); a study
without them has no law of its own. It is fitted to bootstrap replicates over seeds and passages, each prior
centred on another draw, so the spread of the fits holds what so few trainings cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from adaptkit.errors import ConfigError
from adaptkit.planning.config import PlanConfig, Published
from adaptkit.planning.published_law import PUBLISHED, Law, worth_of_tokens
from adaptkit.study.forecast import FROM_SCRATCH, generator_of, interval_of, measure
from adaptkit.study.ladder import tables_at
from adaptkit.study.law import MISFIT
from adaptkit.study.record import StudyRecord
from adaptkit.study.results import Results, collect, tables_of
from adaptkit.study.statistics import Interval, Replicates, resample
from adaptkit.study.task_size import BYTES_PER_TOKEN

LEAST_CELLS = 3
"""Trainings of the study's own size, the largest among them: with fewer text does not vary enough."""
NUM_DRAWS = 200
CONFIDENCE = 0.95
_EXPONENTS = np.geomspace(0.08, 1.2, 16)
_EXPONENT = (0.35, 0.5)
"""Centre and log spread: the published laws have 0.28 to 0.37."""
_FLOOR, _PART = (0.5, 0.3), (0.25, 0.25)
"""Centre and spread, as shares of the best score: of what no size and no text leads below, and of what more
parameters, or more text, would take off it."""


@dataclass(frozen=True)
class ChosenLaw:
    """The law of a plan.

    Attributes:
        draws: of a study's own law, one per replicate; none of a published one, which has no interval.
        note: of a plan with a study, whether the law is its own, or why not.
    """

    law: Law
    draws: tuple[Law, ...] = ()
    note: str = ""

    def interval(self, params: float, tokens: float, text_tokens: float) -> Interval | None:
        """Of a loss; None of a published law."""
        if not self.draws:
            return None
        losses = np.array([law.loss(params, tokens, text_tokens) for law in self.draws])
        interval = interval_of(losses, CONFIDENCE)
        return Interval(interval.mean, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class _Cell:
    """A training of the law's arm: its name, parameters, and what it read, worth tokens read once."""

    name: str
    params: float
    tokens: float


def choose_law(config: PlanConfig) -> ChosenLaw:
    """The law that a config names, or its study's own where it names none.

    Raises: ConfigError where the study's own is asked for and there is none.
    """
    name: Published = "besiroglu-2024"
    if config.law != "study":
        name = config.law
        if not config.study or "law" in config.model_fields_set:
            return ChosenLaw(PUBLISHED[name])
    reason = "none is named"
    if config.study:
        results = collect(config.study)
        reason = why_none(results)
        if not reason:
            return own_law(results)
    if config.law == "study":
        fix = "name a study that has one, or a published law"
        raise ConfigError(f"there is no study with a law of its own: {reason}", where="law", fix=fix)
    return ChosenLaw(PUBLISHED[name], note=f"The study has no law of its own: {reason}.")


def why_none(results: Results) -> str:
    """Why a study has no law of its own; empty where it has one."""
    ladder, arm = results.record.ladder, _arm(results)
    if ladder is None or not ladder.scores or arm is None:
        return "its models from scratch have one size (set `sizes` in the study)"
    if any(score.read_bytes is None for score in ladder.scores):
        return "an older release did not record what its other sizes read (run the same study again)"
    assert results.language is not None
    if len(results.portions(results.language.name, arm)) < LEAST_CELLS:
        return "its own size was trained with one amount of text (set `forecast.share` in the study)"
    forecast = measure(results)
    if forecast is None or forecast.curve(arm) is None:
        return f"its curves did not predict the largest run of {arm}"
    return ""


def _arm(results: Results) -> str | None:
    """The model from scratch that the law is of."""
    scored = {arm.origin: arm.name for arm in results.arms if arm.ledger == "text"}
    return next((scored[origin] for origin in FROM_SCRATCH if origin in scored), None)


def own_law(results: Results) -> ChosenLaw:
    """Fit the law of a study that has one."""
    arm = _arm(results)
    assert arm is not None
    cells, replicates = _cells(results, arm)
    scores = np.stack([replicates.widened(cell.name, CONFIDENCE)[:NUM_DRAWS] for cell in cells], axis=1)
    means = np.array([replicates.mean(cell.name) for cell in cells])
    rng = generator_of(arm)
    law = _fitted(results.record, arm, cells, means[None], np.zeros((1, 5)))[0]
    left = means - np.array([law.loss(cell.params, cell.tokens) for cell in cells])
    misfit = max(MISFIT * means.min(), math.sqrt((left**2).sum() / max(1, len(cells) - 3)))
    moved = scores + misfit * rng.standard_normal(scores.shape)
    draws = _fitted(results.record, arm, cells, moved, rng.standard_normal((len(moved), 5)))
    sizes = f"{law.sizes[0]:,.0f} to {law.sizes[1]:,.0f} parameters"
    seen = f"{sizes} and {law.tokens[0]:.3g} to {law.tokens[1]:.3g} tokens"
    note = f"The law is the study's own, of {arm}, fitted to {len(cells)} trainings of {seen}"
    return ChosenLaw(law, draws, f"{note}; beyond these it is a guess.")


def _cells(results: Results, arm: str) -> tuple[list[_Cell], Replicates]:
    """All trainings of an arm, of every size, and the bootstrap of their scores, passages shared."""
    language, ladder = results.language, results.record.ladder
    assert language is not None and ladder is not None
    text, per_token = float(results.domain_bytes), _bytes_per_token(results.record)

    def cell(name: str, params: float, text_bytes: float, read: float) -> _Cell:
        return _Cell(name, params, worth_of_tokens(read, text_bytes) / per_token)

    cells, tables = [], {}
    for portion in results.portions(language.name, arm):
        of_portion = results.of(language.name, arm, portion)
        reads = [each.read_bytes or 0.0 for each in of_portion]
        cells.append(cell(portion.title, ladder.own, portion.text * text, sum(reads) / len(reads)))
        tables[portion.title] = tables_of(of_portion, language.metric)
    for size in ladder.sizes:
        mine = [score for score in ladder.scores if (score.arm, score.size) == (arm, size)]
        if mine:
            name, reads = f"{size} parameters", [score.read_bytes or 0.0 for score in mine]
            cells.append(cell(name, mine[0].params, text, sum(reads) / len(reads)))
            tables[name] = tables_at(results, ladder, arm, size)
    return cells, resample(tables, results.clusters(language.name))


def _bytes_per_token(record: StudyRecord) -> float:
    own = record.data.tokenizers.get("domain")
    return own.bytes_per_token if own is not None else BYTES_PER_TOKEN


def _fitted(
    record: StudyRecord, arm: str, cells: list[_Cell], scores: np.ndarray, centres: np.ndarray
) -> tuple[Law, ...]:
    """The likeliest law of each row of scores; floor and scales are solved at each pair of exponents.

    Args:
        centres: standard normal draws [rows, 5] that the centres of the priors are moved by.
    """
    params, tokens = (np.array([getattr(cell, name) for cell in cells]) for name in ("params", "tokens"))
    own_params, own_tokens = np.exp(np.log(params).mean()), np.exp(np.log(tokens).mean())
    unit = scores.mean(axis=0).min()
    by_size, by_data = (axis.ravel() for axis in np.meshgrid(_EXPONENTS, _EXPONENTS, indexing="ij"))
    design = np.empty((len(by_size), len(cells) + 3, 3))
    design[:, :-3, 0] = 1 / MISFIT
    design[:, :-3, 1] = (params / own_params) ** -by_size[:, None] / MISFIT
    design[:, :-3, 2] = (tokens / own_tokens) ** -by_data[:, None] / MISFIT
    centre, spread = np.array([_FLOOR, _PART, _PART]).T
    design[:, -3:] = np.diag(1 / spread)
    wanted = np.hstack([scores / unit / MISFIT, centre / spread + centres[:, :3]])
    solved = np.einsum("gkc,rc->rgk", np.linalg.pinv(design), wanted)
    misses = ((wanted[:, None] - np.einsum("gck,rgk->rgc", design, solved)) ** 2).sum(axis=-1)
    misses += 1e6 * (solved < 0).any(axis=-1)
    for axis, values in ((3, by_size), (4, by_data)):
        misses += (np.log(values / _EXPONENT[0])[None] / _EXPONENT[1] - centres[:, [axis]]) ** 2
    best = misses.argmin(axis=1)

    def law(row: int) -> Law:
        floor, size_part, data_part = (unit * np.maximum(solved[row, best[row]], 0.0)).tolist()
        size_exponent, data_exponent = float(by_size[best[row]]), float(by_data[best[row]])
        return Law(
            name="study",
            source=f"fitted to {arm} of the study {record.name}",
            floor=floor,
            size_scale=size_part * own_params**size_exponent,
            data_scale=max(data_part, 1e-9) * own_tokens**data_exponent,
            size_exponent=size_exponent,
            data_exponent=data_exponent,
            unit="bits per byte",
            sizes=_ends(params),
            tokens=_ends(tokens),
        )

    return tuple(map(law, range(len(scores))))


def _ends(values: Iterable[float]) -> tuple[float, float]:
    ordered = sorted(map(float, values))
    return ordered[0], ordered[-1]
