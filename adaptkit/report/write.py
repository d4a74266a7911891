"""The report: report.html (one file, opens offline), report.md and verdict.json, from a study's run
directory.

paths = write_report("runs/study-1a2b3c4d")        # needs no torch, reads JSON only
rich.print(table(collect("runs/study-1a2b3c4d")))
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptkit.report import figures, prose
from adaptkit.run import Run, write_json, write_text
from adaptkit.study import forecast
from adaptkit.study.forecast import size_text
from adaptkit.study.results import Results, collect
from adaptkit.study.verdict import Verdict, flops_text, interval_text, judge

if TYPE_CHECKING:
    import rich.table

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
    html, markdown, answer = (run.report / name for name in ("report.html", "report.md", "verdict.json"))
    told = {**verdict.as_json(), "scores": arm_scores(results)}
    write_json(answer, told)
    write_text(markdown, environment().get_template("report.md.j2").render(context))
    write_text(html, environment().get_template("report.html.j2").render(context))
    return ReportPaths(html, markdown, answer, told)


def arm_scores(results: Results) -> list[dict[str, Any]]:
    """Each arm's score on each task with its interval: what the card of an exported model cites."""
    rows = []
    for task in results.tasks:
        replicates = results.replicates(task.name)
        for arm in results.scored_arms(task.name):
            found = replicates.interval(results.same_as(task.name, arm.name), results.confidence)
            counts = {"num_seeds": len(results.of(task.name, arm.name)), "num_items": replicates.num_items}
            score = {"mean": found.mean, "low": found.low, "high": found.high, **counts}
            rows.append({"arm": arm.name, "task": task.name, "metric": task.metric, **score})
    return rows


def report_context(results: Results, verdict: Verdict) -> dict[str, Any]:
    """Everything the templates read."""
    scale = forecast.measure(results)
    manifest = Run(results.path).manifest()
    return {
        "study": results.study,
        "verdict": verdict,
        "results": results,
        "headline": prose.headline(verdict, results),
        "meaning": prose.meaning(verdict, results),
        "sureness": prose.sureness(verdict),
        "price_tag": prose.price_tag(verdict, results),
        "limits": prose.limits(verdict, results),
        "accent": results.arm(verdict.winner).origin if verdict.winner else "ink",
        "main_table": figures.main_table(results),
        "detail_tables": figures.detail_tables(results),
        "hero": figures.hero(verdict, results),
        "forests": [figure for task in verdict.tasks if (figure := figures.forest(task, results))],
        "budget_figures": figures.budget_figures(results, scale),
        "scaling": scale,
        "scaling_figure": figures.scaling_figure(results, scale),
        "class_figures": figures.class_figures(results),
        "curves": figures.curves_figure(results),
        "forgetting": figures.forgetting_figure(results),
        "origins": figures.origins(results),
        "adaptations": figures.adaptations(results),
        "corpora": _corpora(results.study),
        "vocabulary_saving": _vocabulary_saving(results.study),
        "tuning": _tuning(results.study),
        "manifest": manifest,
        "date": (manifest.get("finished") or manifest.get("created") or "")[:10],
        "dash": "\u2013",
        "study_folder": results.path.name,
    }


def _corpora(study: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per corpus or task and split, with what is known of it."""
    rows = []
    for name, splits in study.get("data", {}).items():
        if name in ("tokenizers", "overlap", "duplicates", "labels") or not isinstance(splits, dict):
            continue
        for split, facts in splits.items():
            if isinstance(facts, dict) and "num_bytes" in facts:
                files = [file for file in facts.get("files", []) if isinstance(file, dict)]
                licences = facts.get("licences") or [file["licence"] for file in files if file.get("licence")]
                rows.append(
                    {"name": name, "split": split, **facts, "licences": ", ".join(sorted(set(licences)))}
                )
    return rows


def _num_contaminated(facts: dict[str, Any]) -> int:
    """Test items found in training text, recorded as a number or as their ids."""
    found = facts.get("contaminated", 0)
    return found if isinstance(found, int) else len(found)


def _vocabulary_saving(study: dict[str, Any]) -> float | None:
    """Share of tokens that the domain tokenizer saves on domain text; None without both tokenizers."""
    tokenizers = study.get("data", {}).get("tokenizers", {})
    sizes = [tokenizers.get(name, {}).get("bytes_per_token") for name in ("generic", "domain")]
    return 1 - sizes[0] / sizes[1] if all(sizes) else None


def _tuning(study: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Trials by arm or job, ascending in learning rate."""
    return [
        (name, sorted(trials, key=lambda t: t["learning_rate"]))
        for name, trials in study.get("tuning", {}).items()
        if trials
    ]


@cache
def environment() -> Any:
    """Jinja with the report's filters; what goes into HTML is escaped."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: bool(name) and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup((TEMPLATES / "report.css").read_text(encoding="utf-8"))
    environment.filters |= {
        "svg": Markup,
        "size": size_text,
        "flops": flops_text,
        "interval": interval_text,
        "outcome": prose.outcome_text,
        "margin": prose.margin_text,
        "contaminated": _num_contaminated,
        "minus": lambda text: str(text).replace("-", "\u2212"),
        "cell": lambda text: str(text).replace("|", "\\|"),
    }
    return environment


def table(results: Results, verdict: Verdict | None = None) -> rich.table.Table:
    """The terminal's table: every arm on every task with its interval, and what the primary score cost."""
    from rich.table import Table
    from rich.text import Text

    verdict = verdict or judge(results)
    main = figures.main_table(results)
    drawn = Table(
        title=f"{results.study['name']}: {results.confidence:.0%} intervals over seeds and items",
        title_justify="left",
    )
    drawn.add_column("arm", no_wrap=True)
    for column in main.columns:
        drawn.add_column(column, justify="right")
    for column in main.cost_columns[:2]:
        drawn.add_column(column, justify="right", style="dim")
    for row in main.rows:
        name = Text(row.name, style="bold green" if row.name == verdict.winner else "")
        cells = [
            Text.assemble((c.value, "bold" if c.best else ""), (f"\n{c.interval}", "dim")) if c else "-"
            for c in row.cells
        ]
        drawn.add_row(name, *cells, *row.costs[:2])
    return drawn
