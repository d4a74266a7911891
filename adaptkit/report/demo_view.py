"""Show a finished study on the demo page: pieces of HTML, and answers to the two questions of its sliders.

    view = StudyView("runs/study-1a2b3c4d")
    view.verdict(), view.evidence(), view.about()
    view.weigh(requests_per_month=2e5, ...)         # when an own server pays, and what more text would do

The page itself lies in `adaptkit.demo`, which knows no study: it gets an object of this class and calls it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.report import charts, charts_money, prose
from adaptkit.report.charts import Figure, RowMark, typeset
from adaptkit.report.figures import BETTER_LEFT
from adaptkit.report.sliders import DATA, Dial, dials
from adaptkit.report.write import environment, report_context
from adaptkit.run import read_jsonl
from adaptkit.seal import check
from adaptkit.study import breakeven
from adaptkit.study.breakeven import BreakEven, Prices, Training, Workload
from adaptkit.study.calibration import Calibration, Judged, calibrate
from adaptkit.study.controls import OWN
from adaptkit.study.forecast import KEPT_ON, Curve, interval_of, size_text
from adaptkit.study.law import Place
from adaptkit.study.prices import Assumptions, assume
from adaptkit.study.record import ArmRecord, TaskRecord
from adaptkit.study.results import collect
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
class Outlook:
    """What more (or less) text would do, at the study's compute.

    Attributes:
        sentence: for people.
        figure: the own models' difference to the best way of keeping on with the base; None without laws.
        arm: the one that would be trained.
    """

    sentence: str
    figure: Figure | None
    arm: str | None


class StudyView:
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
        self.assumptions: Assumptions = assume(self.results, prices)

    @property
    def name(self) -> str:
        return self.results.record.name

    @property
    def arms(self) -> tuple[ArmRecord, ...]:
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
        volume = self.results.record.decision.requests_per_month
        shown = dials(self.assumptions, self.data_bytes, self.data_range, volume)
        if self.assumptions.missing() and not self._curves:  # more text would be told nothing about
            return [dial for dial in shown if dial.name != DATA]
        return shown

    def calibrate(self, dev: Judged, test: Judged) -> Calibration | None:
        """Temperature scaling of a served classifier; None for too few items."""
        return calibrate(dev, test)

    def labels(self, task: str) -> tuple[str, ...]:
        """Classes of a labelled task; empty for any other name."""
        return next((t.labels for t in self.results.tasks if t.name == task), ())

    def items(self, part: str, task: str) -> list[tuple[str, str]]:
        """(text, label) rows of a task's `dev` or `test` part, as the study prepared them.

        Empty where it kept none.
        """
        rows = self._prepared_rows(f"{task}.{part}.jsonl")
        labelled = [row for row in rows if isinstance(row.get("text"), str) and "label" in row]
        return [(row["text"], str(row["label"])) for row in labelled]

    def documents(self) -> list[tuple[str, str]]:
        """(name, text) of held-out domain passages."""
        rows = self._prepared_rows("domain.test.jsonl")
        return [(str(row.get("from", f"passage {i}")), row["text"]) for i, row in enumerate(rows, 1)]

    def questions(self) -> list[tuple[str, str]]:
        """(question, answer) of test rows that are answered in words."""
        rows = [row for task in self.tasks for row in self._prepared_rows(f"{task}.test.jsonl")]
        asked = [row for row in rows if {"prompt", "completion"} <= row.keys()]
        return [(str(row["prompt"]), str(row["completion"])) for row in asked]

    def _prepared_rows(self, name: str) -> list[dict[str, Any]]:
        """Rows of a file of the study's prepared data; none where the study or the file is not there."""
        prepared = self.results.record.prepared_run
        if prepared is None:
            return []
        file = self.path.parent / prepared / name
        if not file.is_file():
            return []
        check(file)
        return list(read_jsonl(file))

    @cached_property
    def data_bytes(self) -> float:
        """Domain text that there is."""
        return float(self.results.domain_bytes or 1e6)

    @property
    def data_range(self) -> tuple[float, float]:
        """Amounts of text that the slider reaches."""
        reach = self.context["forecast"].reach if self._curves else 1.0
        return self.data_bytes / 8, self.data_bytes * reach

    def weigh(self, **values: float) -> str:
        """Answer the sliders as HTML: bills, break-even, and what that much text would do.

        Args:
            values: the fields of `Choice`; of `data_bytes` alone where no break-even can be said.
        """
        if missing := self.assumptions.missing():
            return self._render(
                "demo_unpriced", missing=missing, forecast=self.forecast(values.get(DATA, self.data_bytes))
            )
        choice = Choice(**values)
        forecast = self.forecast(choice.data_bytes)
        answer, training, figure = self.bill(choice, forecast.arm)
        return self._render(
            "demo_weighed",
            choice=choice,
            answer=answer,
            training=training,
            figure_bills=figure,
            forecast=forecast,
            break_even_words=break_even_words(answer),
            never=math.isinf(answer.first),
            size_text=size_text,
            usd=charts_money.usd,
            count=charts_money.count_text,
            duration=prose.duration,
        )

    def bill(self, choice: Choice, arm: str | None) -> tuple[BreakEven, Training, Figure]:
        """Both bills, what training `arm` takes, and the figure."""
        work = Workload(
            choice.requests_per_month,
            choice.requests_per_s,
            choice.used_share,
            choice.tokens_in,
            choice.tokens_out,
        )
        prices = Prices(choice.usd_per_hour, choice.usd_in, choice.usd_out)
        seconds = self.results.cost(self.answer.primary, arm).seconds if arm else 0.0
        training = Training(seconds / 3600, choice.months)
        answer = breakeven.weigh(work, prices, training)
        return answer, training, charts_money.bills(work, prices, training, answer)

    def forecast(self, data_bytes: float) -> Outlook:
        """What the fitted laws of the study say about this much text, at its compute."""
        main = self.answer.main
        chosen = main.recommended
        if not self._curves:
            reason = "did no smaller trainings (`forecast.share`)"
            if self.context["forecast"] is not None:
                reason = "could not forecast"
            return Outlook(f"The study {reason}, so it cannot say what more text would do.", None, chosen)
        kept = self._kept_on(data_bytes)
        own = [curve for curve in self._curves if curve.origin in OWN]
        if kept is None or not own:
            sentence = "The study has no pair of arms to compare at other amounts of text."
            return Outlook(sentence, None, chosen)
        rows = [(curve, self._difference(curve, kept, data_bytes)) for curve in own]
        margin = self._language.margin * float(np.median(_at(kept, data_bytes)))
        best, gap = min(rows, key=lambda row: row[1].mean)
        ahead = gap.high < -margin
        if main.task == self._language.name:
            chosen = best.arm if ahead else kept.arm
        relation = "within the margin of, or too uncertain against,"
        if ahead:
            relation = "ahead of"
        elif gap.low > margin:
            relation = "behind"
        sentence = self._forecast_sentence(data_bytes, f"{best.arm} is {relation} {kept.arm}", gap)
        return Outlook(sentence, self._forecast_figure(rows, kept, margin), chosen)

    @property
    def _curves(self) -> tuple[Curve, ...]:
        forecast = self.context["forecast"]
        return forecast.curves if forecast is not None else ()

    @property
    def _language(self) -> TaskRecord:
        """The task scored in bits per byte; there is one where there are laws."""
        assert self.results.language is not None
        return self.results.language

    def _kept_on(self, data_bytes: float) -> Curve | None:
        """The way of keeping on with the base that its law puts lowest at this much text."""
        curves = [curve for curve in self._curves if curve.origin in KEPT_ON]
        return min(curves, key=lambda curve: float(np.median(_at(curve, data_bytes))), default=None)

    def _difference(self, curve: Curve, kept: Curve, data_bytes: float) -> Interval:
        """Score minus the kept base's, with the interval of both laws over the same resamples."""
        return interval_of(_at(curve, data_bytes) - _at(kept, data_bytes), self.results.confidence)

    def _forecast_sentence(self, data_bytes: float, prediction: str, gap: Interval) -> str:
        interval = f"{self.results.confidence:.0%} interval {gap.low:+.3f} to {gap.high:+.3f}"
        numbers = typeset(f"{gap.mean:+.3f} bits per byte, {interval}")
        return f"With {size_text(data_bytes)} of text, at the study's compute: {prediction} ({numbers})."

    def _forecast_figure(self, rows: list[tuple[Curve, Interval]], kept: Curve, margin: float) -> Figure:
        marks = []
        for curve, gap in sorted(rows, key=lambda row: row[1].mean):
            marks.append(RowMark(self.results.arm(curve.arm), curve.arm, gap, typeset(f"{gap.mean:+.3f}")))
        return charts.whiskers(
            f"Fitted difference to {kept.arm}",
            "; ".join(f"{mark.label}: {mark.text}" for mark in marks),
            marks,
            axis="difference in bits per byte",
            reference=0.0,
            margin=margin,
            hints=BETTER_LEFT,
            note="From laws fitted to the study's trainings, at its compute. Shaded: too small to matter.",
        )

    def _render(self, template: str, **more: Any) -> str:
        return environment().get_template(f"{template}.html.j2").render({**self.context, **more})


def _at(curve: Curve, data_bytes: float) -> np.ndarray:
    """Scores of an arm [num_replicates] on so much text, at the study's compute."""
    return curve.laws([Place(data_bytes, curve.whole.read)])[:, 0]


def break_even_words(answer: BreakEven) -> str:
    """Say which bill is smaller and where that turns."""
    cheaper, dearer = "your own server", "the API"
    if not answer.own_is_cheaper:
        cheaper, dearer = dearer, cheaper
    low, high = sorted([answer.own, answer.api])
    now = (
        f"At this volume {cheaper} costs {charts_money.usd(low)} a month, {dearer} {charts_money.usd(high)}."
    )
    if math.isinf(answer.first):
        never = "At these prices an own server never pays"
        return f"{now} {never}: a full one costs more than the same requests at the API."
    turn = f"An own server pays from {charts_money.count_text(answer.first)} requests a month on"
    if answer.always > answer.first * 1.001:
        turn += " (with gaps where one more server has just been rented)"
        if math.isfinite(answer.always):
            turn += f", and at every volume above {charts_money.count_text(answer.always)}"
    return f"{now} {turn}."
