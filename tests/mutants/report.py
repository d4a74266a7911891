"""Faults in the report's sentences, tables and figures."""

from __future__ import annotations

from mutants import Mutant

PROSE = ("tests/test_prose.py",)
FIGURES = ("tests/test_figures.py",)
TOKENIZERS = ("tests/test_report.py::test_the_domain_tokenizer_s_saving_is_told_as_fewer_or_more",)
DECIDES = ("tests/test_report.py::test_a_paragraph_on_verdicts_says_which_task_decides",)
FORECAST = ("tests/test_demo_breakeven.py::test_the_forecast_says_what_its_interval_does",)
BREAK_EVEN = ("tests/test_demo_breakeven.py::test_every_sentence_on_break_even",)
TABLES = ("tests/test_tables.py",)

MUTANTS = [
    # Sentences
    Mutant(
        "adaptkit/report/prose.py",
        '"scratch": "Pretrain a small model of your own."',
        '"scratch": "Keep pretraining the generic model on your text."',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        '        return "Do not pretrain. Your text is not what helped."',
        '        return "Not settled. Until it is, do not pretrain."',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "    if main.versus_generic.equivalent:",
        "    if not main.versus_generic.equivalent:",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'direction = "higher" if pair.difference > 0 else "lower"',
        'direction = "lower" if pair.difference > 0 else "higher"',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'better = "higher" if results.task(main.task).higher_is_better else "lower"',
        'better = "lower"',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "high, low = scores.mean(first), scores.mean(second)",
        "high, low = scores.mean(second), scores.mean(first)",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'if main.placebo and main.versus_placebo and main.outcome == "pretrained":',
        "if main.placebo and main.versus_placebo:",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "least = number(min(abs(pair.low), abs(pair.high)), pair)",
        "least = number(abs(pair.difference), pair)",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'basis = f"Based on {max(pair.num_seeds)} training runs',
        'basis = f"Based on {pair.num_items} training runs',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "dollars = max(cost.seconds for cost",
        "dollars = min(cost.seconds for cost",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        '{"pretrained": "pretraining wins", "generic": "generic wins", "tie": "tie"}',
        '{"pretrained": "generic wins", "generic": "pretraining wins", "tie": "tie"}',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py", "if share is not None and share < 0.5:", "if share is not None:", PROSE
    ),
    Mutant("adaptkit/report/prose.py", "FEW_ITEMS = 300", "FEW_ITEMS = 200", PROSE),
    Mutant(
        "adaptkit/report/prose.py",
        "if pair is not None and verdict.main.placebo is None:",
        "if pair is not None and verdict.main.placebo:",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'if verdict.main.picked_on == "test":',
        'if verdict.main.picked_on == "dev":',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "if len(results.record.shares) < 3:",
        "if len(results.record.shares) < 2:",
        PROSE,
    ),
    Mutant("adaptkit/report/prose.py", "        if sign * score > best:", "        if score > best:", PROSE),
    Mutant(
        "adaptkit/report/prose.py", "        if best == min(rates):", "        if best == max(rates):", PROSE
    ),
    # Figures
    Mutant(
        "adaptkit/report/charts.py",
        'canvas.rect(x(band_low), y + 22, x(band_high) - x(band_low), 18, "margin")',
        'canvas.rect(x(reference), y + 22, x(band_high) - x(reference), 18, "margin")',
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/charts.py",
        "band_low, band_high = reference - margin, reference + margin",
        "band_low, band_high = reference - 2 * margin, reference + 2 * margin",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/charts.py",
        "direction = 1 if row.value.mean > x.high else -1",
        "direction = -1 if row.value.mean > x.high else 1",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/charts.py",
        "measured = [point for point in fitted if point[0] <= largest]",
        "measured = fitted",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/charts.py",
        "low, high = x(x.clip(crossing.low)), x(x.clip(crossing.high))",
        "low, high = x(x.clip(crossing.low)), x(crossing.num_bytes)",
        FIGURES,
    ),
    Mutant("adaptkit/report/charts.py", 'c.status == "at" and c.num_bytes', "c.num_bytes", FIGURES),
    Mutant(
        "adaptkit/report/figures.py",
        "hints=BETTER_RIGHT if task.higher_is_better else BETTER_LEFT,",
        "hints=BETTER_LEFT if task.higher_is_better else BETTER_RIGHT,",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "{'Higher' if task.higher_is_better else 'Lower'} is better.",
        "{'Lower' if task.higher_is_better else 'Higher'} is better.",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "marks.sort(key=lambda mark: mark.value.mean, reverse=task.higher_is_better)",
        "marks.sort(key=lambda mark: mark.value.mean)",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "reference = replicates.mean(untouched or names[0])",
        "reference = replicates.mean(names[-1])",
        FIGURES,
    ),
    Mutant("adaptkit/report/charts_detail.py", "MAX_CLASSES = 20", "MAX_CLASSES = 40", FIGURES),
    Mutant(
        "adaptkit/report/charts_money.py",
        "    if answer.first < right:",
        "    if answer.first > right:",
        FIGURES,
    ),
    # Tables and the page
    Mutant(
        "adaptkit/report/tables.py",
        "low, high = max(interval.low, 0.0), min(interval.high, METRICS[metric].most)",
        "low, high = interval.low, interval.high",
        TABLES,
    ),
    Mutant(
        "adaptkit/report/tables.py", "    sign = 1 if task.higher_is_better else -1", "    sign = 1", TABLES
    ),
    Mutant(
        "adaptkit/report/templates/data.html.j2",
        '"fewer" if vocabulary_saving >= 0 else "more"',
        '"fewer" if vocabulary_saving else "more"',
        TOKENIZERS,
    ),
    Mutant(
        "adaptkit/report/templates/verdicts.html.j2",
        "{% if task.task == verdict.primary %} (decides){% endif %}",
        "{% if task.task != verdict.primary %} (decides){% endif %}",
        DECIDES,
    ),
    # The demo's sentences
    Mutant(
        "adaptkit/report/demo_view.py",
        "        ahead = gap.high < -margin",
        "        ahead = gap.low < -margin",
        FORECAST,
    ),
    Mutant("adaptkit/report/demo_view.py", "if factor > 1.01 else", "if factor > 100 else", FORECAST),
    Mutant(
        "adaptkit/report/demo_view.py",
        "    if not answer.own_is_cheaper:",
        "    if answer.own_is_cheaper:",
        BREAK_EVEN,
    ),
    Mutant(
        "adaptkit/report/demo_view.py",
        "        if math.isfinite(answer.always):",
        "        if math.isfinite(answer.first):",
        BREAK_EVEN,
    ),
]
