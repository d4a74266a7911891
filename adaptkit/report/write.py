"""Write a study's report: report.html (one file, opens offline), report.md and verdict.json.

paths = write_report("runs/study-1a2b3c4d")        # needs no torch, reads JSON only
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from adaptkit.report import board, data_tables, figures, prose, tables
from adaptkit.report.bias_section import bias_parts
from adaptkit.report.cards import label_cells
from adaptkit.report.caveats import limits
from adaptkit.report.confidence_section import confidence_sections
from adaptkit.report.forecast_section import forecast_section
from adaptkit.report.glossary import GLOSSARY, terms, terms_of
from adaptkit.report.label_section import label_parts
from adaptkit.report.ladder_section import ladder_section
from adaptkit.report.ledger import left_out_sentences, spend_rows, time_sentence
from adaptkit.report.manners import HABITS, manners
from adaptkit.report.memorisation_section import memorisation_section
from adaptkit.report.passages import looked_up
from adaptkit.report.vocabulary_gain import vocabulary_saving, vocabulary_sentence
from adaptkit.run import Run, write_sealed, write_text
from adaptkit.study.exit_plan import MONTHS
from adaptkit.study.flips import flips
from adaptkit.study.forecast import Forecast, measure, size_text
from adaptkit.study.forecast_answers import Answers, answer
from adaptkit.study.label_answers import LabelAnswers, answer_labels
from adaptkit.study.label_forecast import LabelForecast, measure_labels
from adaptkit.study.ladder import measure_ladder
from adaptkit.study.record import StudyRecord, TrialRecord
from adaptkit.study.results import Results, collect, task_title
from adaptkit.study.task_verdict import Verdict
from adaptkit.study.verdict import judge
from adaptkit.study.verdict_line import flops_text, interval_text
from adaptkit.study.verdict_record import VERDICT_FILE

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class ReportPaths:
    """What `write_report` wrote, and the content of verdict.json."""

    html: Path
    markdown: Path
    verdict_json: Path
    verdict: dict[str, Any]


def write_report(study_path: str | Path) -> ReportPaths:
    """Write report/{report.html,report.md,verdict.json} into a study's run directory.

    Raises: DataError that names the run or file which is missing.
    """
    run = Run(study_path)
    results = collect(run.path)
    verdict = judge(results)
    context = report_context(results, verdict)
    html, markdown, answer = (run.report / name for name in ("report.html", "report.md", VERDICT_FILE))
    content = {**verdict.as_json(), "scores": arm_scores(results)}
    write_sealed(answer, content)
    write_text(markdown, environment().get_template("report.md.j2").render(context))
    write_text(html, label_cells(environment().get_template("report.html.j2").render(context)))
    return ReportPaths(html, markdown, answer, content)


def arm_scores(results: Results) -> list[dict[str, Any]]:
    """Each arm's score on each task with its interval: what the card of an exported model cites."""
    rows = []
    for task in results.tasks:
        replicates = results.replicates(task.name)
        for arm in results.scored_arms(task.name):
            interval = results.interval(task.name, arm.name)
            rows.append(
                {
                    "arm": arm.name,
                    "task": task.name,
                    "metric": task.metric,
                    "mean": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "num_seeds": len(results.of(task.name, arm.name)),
                    "num_items": replicates.num_items,
                }
            )
    return rows


def report_context(results: Results, verdict: Verdict) -> dict[str, Any]:
    """Everything the templates read."""
    forecast, record = measure(results), results.record
    labels = tuple((each, answer_labels(results, each)) for each in measure_labels(results))
    answers = answer(results, forecast) if forecast else None
    exit_table = tables.exit_table(results, verdict.main)
    manifest = Run(results.path).manifest()
    return {
        "study": record,
        "verdict": verdict,
        "results": results,
        "headline": prose.headline(verdict, results),
        "board": {
            "How sure that is": board.sureness(verdict, results),
            "What it takes": board.effort(verdict, results),
        },
        "finding": board.finding(verdict, results),
        "origin_terms": terms_of([arm.origin for arm in tables.ordered_arms(results)]),
        "meaning": prose.meaning(verdict, results),
        "sureness": prose.sureness(verdict, results),
        "price_tag": prose.price_tag(verdict, results),
        "limits": limits(verdict, results),
        "accent": results.arm(verdict.main.recommended).origin if verdict.main.decided else "ink",
        "primary_title": task_title(results.primary),
        "decision_table": tables.decision_table(results, verdict.main),
        "exit_table": exit_table,
        "exit_months": MONTHS,
        "flips": flips(results, verdict.main, forecast, answers, labels),
        "base_costs": tables.base_cost_table(results, verdict.main),
        "base_cost_sentence": tables.base_cost_sentence(results, verdict.main),
        "main_table": tables.main_table(results),
        "detail_tables": tables.detail_tables(results),
        **_forecast_context(results, forecast, answers, labels, bills=exit_table),
        **_figures_context(results, verdict, forecast),
        "looked_up": looked_up(results),
        **_audits_context(results, verdict),
        "manners": manners(results),
        "habits": HABITS,
        "spends": spend_rows(results),
        "left_out": left_out_sentences(results),
        "time_sentence": time_sentence(results),
        **_data_context(record, verdict),
        "vocabulary_saving": vocabulary_saving(record),
        "vocabulary_sentence": vocabulary_sentence(results),
        "tuning": _trials(record),
        "manifest": manifest,
        "date": (manifest.get("finished") or manifest.get("created") or "")[:10],
        "dash": "\u2013",
        "study_folder": results.path.name,
    }


def _forecast_context(
    results: Results,
    forecast: Forecast | None,
    answers: Answers | None,
    labels: tuple[tuple[LabelForecast, LabelAnswers], ...],
    *,
    bills: list[tables.ExitRow],
) -> dict[str, Any]:
    """What the sections on other amounts of text, compute, labels and parameters read."""
    return {
        "forecast": forecast,
        "forecast_section": forecast_section(results, forecast, answers, bills=bills),
        "label_parts": label_parts(results, labels),
        "ladder_section": ladder_section(measure_ladder(results)),
    }


def _audits_context(results: Results, verdict: Verdict) -> dict[str, Any]:
    """What the sections on audits read: confidence of every study, the others where they were asked for."""
    run = Run(results.path)
    return {
        "confidence_sections": confidence_sections(results, verdict),
        "memorisation": memorisation_section(run),
        "bias_parts": bias_parts(run),
    }


def _figures_context(results: Results, verdict: Verdict, forecast: Forecast | None) -> dict[str, Any]:
    """The figures, and what their legends say."""
    return {
        "main_difference": figures.main_difference(verdict, results),
        "differences": [
            figure for task in verdict.tasks if (figure := figures.all_differences(task, results))
        ],
        "front_figure": figures.front_figure(results, results.primary),
        "cost_figures": figures.cost_figures(results),
        "forecast_figure": figures.forecast_figure(results, forecast),
        "class_figures": figures.class_figures(results),
        "curves": figures.curves_figure(results),
        "forgetting": figures.forgetting_figure(results),
        "origins": figures.origins(results),
        "adaptations": figures.adaptations(results),
    }


def _data_context(record: StudyRecord, verdict: Verdict) -> dict[str, Any]:
    """What the section on data reads."""
    return {
        "corpora": _corpora(record),
        "cuts": data_tables.cut_rows(record.data),
        "test_sets": data_tables.judged_rows(record.data),
        "shifts": [
            *data_tables.expectation_sentences(record.data, verdict),
            *data_tables.shift_sentences(record.data),
        ],
    }


@dataclass(frozen=True)
class CorpusRow:
    """A line of the data table: one part of one data set."""

    name: str
    part: str
    documents: int
    num_bytes: int
    licences: str
    digest: str


def _corpora(record: StudyRecord) -> list[CorpusRow]:
    rows = []
    for name, corpus in record.data.corpora.items():
        for part, split in (("train", corpus.train), ("test", corpus.test)):
            licences = ", ".join(sorted(split.licences))
            rows.append(CorpusRow(name, part, split.documents, split.num_bytes, licences, split.digest))
    return rows


def _trials(record: StudyRecord) -> list[tuple[str, list[TrialRecord]]]:
    """Trials by what was trained, ascending in learning rate."""
    return [
        (tuning.title, sorted(tuning.trials, key=lambda trial: trial.learning_rate))
        for tuning in record.tuning
        if tuning.trials
    ]


def _code(text: str) -> Markup:
    """Set what stands between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    parts[1::2] = [Markup("<code>{}</code>").format(part) for part in parts[1::2]]
    return Markup("").join(parts)


@cache
def environment() -> jinja2.Environment:
    """Jinja with the report's filters; what goes into HTML is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    environment.globals |= {"terms": terms, "glossary": list(GLOSSARY.items())}
    environment.filters |= {
        "svg": Markup,
        "size": size_text,
        "flops": flops_text,
        "interval": interval_text,
        "outcome": prose.outcome_text,
        "margin": prose.margin_text,
        "margin_share": prose.margin_share,
        "code": _code,
        "compared": prose.difference_text,
        "minus": lambda text: str(text).replace("-", "\u2212"),
        "cell": lambda text: str(text).replace("|", "\\|"),
    }
    return environment
