"""A finished study as the demo page shows it: pieces of HTML, and the two questions that its sliders ask.

    shown = Showcase("runs/study-1a2b3c4d")
    shown.verdict(), shown.evidence(), shown.about()
    shown.weigh(requests_per_month=2e5, ...)         # when an own server pays, and what more text would do

The page itself lies in serve, which knows no study: it gets an object of this class and calls it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.report import charts, charts_money, prose
from adaptkit.report.charts import Figure, RowMark, typeset
from adaptkit.report.sliders import Dial, dials
from adaptkit.report.write import environment, report_context
from adaptkit.run import read_json, read_jsonl
from adaptkit.study import breakeven, forecast
from adaptkit.study.breakeven import BreakEven, Prices, Training, Workload
from adaptkit.study.calibration import Calibration, Judged, calibrate
from adaptkit.study.forecast import REACH, Curve, size_text
from adaptkit.study.prices import Assumptions, assume
from adaptkit.study.results import ArmInfo, collect
from adaptkit.study.statistics import Interval
from adaptkit.study.verdict import judge


@dataclass(frozen=True)
class Choice:
    """Where the sliders stand.

    Attributes:
        data_bytes: domain text to train on.
        used_share: of one server's measured speed, what an average hour may use.
        months: over which a training is written off.
    Prices are US dollars; the API's per million tokens.
    """

    requests_per_month: float
    usd_per_hour: float
    requests_per_s: float
    data_bytes: float
    usd_in: float
    usd_out: float
    tokens_in: float
    tokens_out: float
    used_share: float
    months: float


@dataclass(frozen=True)
class Forecast:
    """What more (or less) text would do.

    Attributes:
        sentence: for people.
        figure: every arm's predicted difference to the best generic one; None where nothing is predicted.
        arm: the one that would be trained.
    """

    sentence: str
    figure: Figure | None
    arm: str | None


class Showcase:
    """Everything the page shows of one study.

    Args:
        path: the study's run directory.
        prices: a file of prices, see prices.py.
    Raises: DataError for a study that has not ended, ConfigError for a price file that does not fit.
    """

    def __init__(self, path: Path, prices: Path | None = None):
        self.path = path
        self.results = collect(path)
        self.answer = judge(self.results)
        self.context = report_context(self.results, self.answer)
        self.assumptions: Assumptions = assume(path, prices)

    @property
    def name(self) -> str:
        return self.results.study["name"]

    @property
    def arms(self) -> list[ArmInfo]:
        return self.results.arms

    def verdict(self) -> str:
        """The answer in plain words with its figure."""
        return self._render("demo_verdict")

    def evidence(self) -> str:
        """Tables and figures behind the answer."""
        return self._render("demo_evidence")

    def about(self) -> str:
        """What was studied, on which data, what it cost, and what it cannot tell."""
        return self._render("demo_about")

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.results.tasks]

    def dials(self) -> list[Dial]:
        """The sliders of `weigh`."""
        return dials(self.assumptions, self.data_bytes, self.data_range)

    def calibrate(self, dev: Judged, test: Judged) -> Calibration | None:
        """Temperature scaling of a served classifier; None for too few items."""
        return calibrate(dev, test)

    def labels(self, task: str) -> tuple[str, ...]:
        """Classes of a labelled task; empty for any other name."""
        return next((t.labels for t in self.results.tasks if t.name == task), ())

    def items(self, part: str, task: str) -> list[tuple[str, str]]:
        """(text, label) rows of a task's `dev` or `test` part, as the study prepared them; empty where it
        kept none."""
        rows = self._prepared(f"{task}.{part}.jsonl")
        return [
            (row["text"], str(row["label"]))
            for row in rows
            if isinstance(row.get("text"), str) and "label" in row
        ]

    def documents(self) -> list[tuple[str, str]]:
        """(name, text) of held-out domain passages."""
        return [
            (str(row.get("from", f"passage {i}")), row["text"])
            for i, row in enumerate(self._prepared("domain.test.jsonl"), 1)
        ]

    def _prepared(self, name: str) -> list[dict[str, Any]]:
        stage = self.path / "stages" / "prepare.json"
        file = self.path.parent / read_json(stage)["run"] / name if stage.is_file() else None
        return list(read_jsonl(file)) if file and file.is_file() else []

    @cached_property
    def data_bytes(self) -> float:
        """Domain text that the arms read at most, or that there is."""
        if self._scaling:
            return max(size for curve in self._scaling.curves for size in curve.num_bytes)
        return float(
            self.results.study.get("data", {}).get("domain", {}).get("train", {}).get("num_bytes") or 1e6
        )

    @property
    def data_range(self) -> tuple[float, float]:
        """Amounts of text that the slider reaches."""
        return self.data_bytes / 8, self.data_bytes * REACH

    def weigh(self, **values: float) -> str:
        """The sliders' answer as HTML, by the names of `Choice`: bills, break-even, and what that much text
        would do."""
        choice = Choice(**values)
        forecast = self.forecast(choice.data_bytes)
        found, training, figure = self.bill(choice, forecast.arm)
        context = {
            "choice": choice,
            "found": found,
            "training": training,
            "figure_bills": figure,
            "forecast": forecast,
        }
        return self._render(
            "demo_weighed",
            verdict_words=break_even_words(found),
            size_text=size_text,
            usd=charts_money.usd,
            count=charts_money.count_text,
            duration=prose.duration,
            **context,
        )

    def bill(self, choice: Choice, arm: str | None) -> tuple[BreakEven, Training, Figure]:
        """Both bills, what training `arm` on that much text takes, and the figure."""
        work = Workload(
            choice.requests_per_month,
            choice.requests_per_s,
            choice.used_share,
            choice.tokens_in,
            choice.tokens_out,
        )
        prices = Prices(choice.usd_per_hour, choice.usd_in, choice.usd_out)
        seconds = self.results.cost(self.answer.primary, arm).seconds if arm else 0.0
        training = Training(seconds / 3600, choice.months).scaled(choice.data_bytes / self.data_bytes)
        found = breakeven.weigh(work, prices, training)
        return found, training, charts_money.bills(work, prices, training, found)

    def forecast(self, data_bytes: float) -> Forecast:
        """What the scaling laws of the study say about this much text."""
        main = self.answer.main
        chosen = main.winner or main.generic
        if self._scaling is None:
            told = "The study trained on fewer than three amounts of text, so it cannot say what more text would do."
            return Forecast(told + " The slider moves the cost of training only.", None, chosen)
        generic = self._generic(data_bytes)
        others = [curve for curve in self._scaling.curves if curve.origin not in ("generic", "placebo")]
        if generic is None or not others:
            return Forecast(
                "The study has no pair of arms to compare at other amounts of text.", None, chosen
            )
        rows = [(curve, self._difference(curve, generic, data_bytes)) for curve in others]
        margin = self.results.task(self._language).margin * float(generic.law(np.array([data_bytes]))[0])
        best, gap = min(rows, key=lambda row: row[1].mean)
        ahead, behind = gap.high < -margin, gap.low > margin
        if main.task == self._language:
            chosen = best.arm if ahead else generic.arm
        sentence = self._sentence(data_bytes, best, generic, gap, (ahead, behind))
        return Forecast(sentence, self._figure(rows, generic, margin), chosen)

    @cached_property
    def _scaling(self) -> forecast.Scaling | None:
        return self.context["scaling"]

    @property
    def _language(self) -> str:
        return next(task.name for task in self.results.tasks if task.metric == "bits_per_byte")

    def _generic(self, data_bytes: float) -> Curve | None:
        """The generic arm that the verdict compares with, else the one predicted best."""
        picked = next(verdict.generic for verdict in self.answer.tasks if verdict.task == self._language)
        curves = [curve for curve in self.context["scaling"].curves if curve.origin == "generic"]
        at = np.array([data_bytes])
        return min(curves, key=lambda curve: (curve.arm != picked, float(curve.law(at)[0])), default=None)

    def _difference(self, curve: Curve, generic: Curve, data_bytes: float) -> Interval:
        """Predicted score minus the generic one's, with the interval of both laws over the same replicates."""
        at, tail = np.array([data_bytes]), 0.5 - self.results.confidence / 2
        low, high = np.quantile((curve.laws(at) - generic.laws(at))[..., 0], [tail, 1 - tail])
        return Interval(float((curve.law(at) - generic.law(at))[0]), float(low), float(high))

    def _sentence(
        self, data_bytes: float, best: Curve, generic: Curve, gap: Interval, sides: tuple[bool, bool]
    ) -> str:
        factor = data_bytes / self.data_bytes
        reach = f", {factor:.3g} times what was read: an extrapolation" if factor > 1.01 else ""
        ahead, behind = sides
        told = (
            "ahead of" if ahead else "behind" if behind else "within the margin of, or too uncertain against,"
        )
        numbers = f"{gap.mean:+.3f} bits per byte, {self.results.confidence:.0%} interval {gap.low:+.3f} to {gap.high:+.3f}"
        return f"With {size_text(data_bytes)} of text{reach}: {best.arm} is predicted {told} {generic.arm} ({typeset(numbers)})."

    def _figure(self, rows: list[tuple[Curve, Interval]], generic: Curve, margin: float) -> Figure:
        marks = [
            RowMark(
                self.results.arm(curve.arm),
                self.results.label(self._language, curve.arm),
                gap,
                typeset(f"{gap.mean:+.3f}"),
            )
            for curve, gap in sorted(rows, key=lambda row: row[1].mean)
        ]
        return charts.whiskers(
            f"Predicted difference to {generic.arm}",
            "; ".join(f"{mark.label}: {mark.text}" for mark in marks),
            marks,
            axis="difference in bits per byte",
            reference=0.0,
            margin=margin,
            hints=("\u2190 better", "worse \u2192"),
            note="From the power laws fitted to the study's amounts of text. Shaded: too small to matter.",
        )

    def _render(self, template: str, **more: Any) -> str:
        return environment().get_template(f"{template}.html.j2").render({**self.context, **more})


def break_even_words(found: BreakEven) -> str:
    """One sentence on which bill is smaller and where that turns."""
    cheaper, dearer = (
        ("your own server", "the API") if found.own_is_cheaper else ("the API", "your own server")
    )
    low, high = sorted([found.own, found.api])
    now = (
        f"At this volume {cheaper} costs {charts_money.usd(low)} a month, {dearer} {charts_money.usd(high)}."
    )
    if found.first == float("inf"):
        return f"{now} At these prices an own server never pays: a full one costs more than the same requests at the API."
    turn = f"An own server pays from {charts_money.count_text(found.first)} requests a month on"
    if found.always > found.first * 1.001:
        settled = (
            ""
            if found.always == float("inf")
            else f", and at every volume above {charts_money.count_text(found.always)}"
        )
        turn += f" (with gaps where one more server has just been rented){settled}"
    return f"{now} {turn}."
