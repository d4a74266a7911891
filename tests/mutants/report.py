"""Faults in the report's sentences, tables and figures."""

from __future__ import annotations

from mutants import Mutant

PROSE = ("tests/test_prose.py",)
LIMITS = ("tests/test_caveats.py",)
PRINTED = ("tests/test_report.py::test_the_report_prints_on_four_pages",)
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
        "adaptkit/report/prose.py", '    "probe": "Use the features', '    "prompt": "Use the features', PROSE
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "    if not main.decided:\n        if main.rival is None:",
        "    if main.rival is None:\n        if main.decided:",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'if main.outcome == "no gain" and not main.settled and',
        'if main.outcome == "no gain" and main.settled and',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'if arm.origin == "generic" and main.ledger == "jobs" and main.outcome == "no gain":',
        'if main.outcome == "no gain":',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        'better = "higher" if main.higher_is_better else "lower"',
        'better = "lower"',
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py", "    elif main.decided and main.settled:", "    elif main.decided:", PROSE
    ),
    Mutant("adaptkit/report/prose.py", "    if not others:", "    if others:", PROSE),
    Mutant("adaptkit/report/prose.py", "if not gaining or named & set(gaining):", "if not gaining:", PROSE),
    Mutant(
        "adaptkit/report/prose.py",
        "    best = max(gaining, key=lambda name: sign * scores.mean(name))",
        "    best = gaining[-1]",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py", "    if results.num_seeds < 2:", "    if results.num_seeds < 1:", PROSE
    ),
    Mutant("adaptkit/report/prose.py", "if len(main.contenders) == 1:", "if main.settled:", PROSE),
    Mutant(
        "adaptkit/report/prose.py", "    elif main.safe is not None:", "    elif main.safe is None:", PROSE
    ),
    Mutant(
        "adaptkit/report/prose.py", "if pair.num_clusters < pair.num_items:", "if pair.num_clusters:", PROSE
    ),
    Mutant(
        "adaptkit/report/prose.py",
        "dollars = max(cost.seconds for cost",
        "dollars = min(cost.seconds for cost",
        PROSE,
    ),
    Mutant(
        "adaptkit/report/prose.py",
        '{"gain": "pretraining pays", "no gain": "pretraining is not needed"}',
        '{"no gain": "pretraining pays", "gain": "pretraining is not needed"}',
        PROSE,
    ),
    # Limits
    Mutant(
        "adaptkit/report/caveats.py", "if share is not None and share < 0.5:", "if share is not None:", LIMITS
    ),
    Mutant("adaptkit/report/caveats.py", "FEW_ITEMS = 300", "FEW_ITEMS = 299", LIMITS),
    Mutant("adaptkit/report/caveats.py", "*exclusions(verdict.main.missing),", "", LIMITS),
    Mutant(
        "adaptkit/report/caveats.py",
        "if forecast is None or not forecast.predictions:",
        "if forecast is None:",
        LIMITS,
    ),
    Mutant(
        "adaptkit/report/caveats.py",
        "if arm.origin == BASELINE and sign * score > best:",
        "if arm.origin == BASELINE and score > best:",
        LIMITS,
    ),
    Mutant(
        "adaptkit/report/caveats.py",
        "        if best == min(rates):",
        "        if best == max(rates):",
        LIMITS,
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
        "turn = int((grid <= line.largest * 1.0001).sum())",
        "turn = len(grid)",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/charts.py",
        "grid = np.geomspace(least, whole.read * reach, 60)",
        "grid = np.geomspace(least, whole.read, 60)",
        FIGURES,
    ),
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
    Mutant("adaptkit/report/charts_detail.py", "MAX_CLASSES = 20", "MAX_CLASSES = 40", FIGURES),
    Mutant(
        "adaptkit/report/charts_money.py",
        "    if answer.first < right:",
        "    if answer.first > right:",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "return sorted(marks, key=lambda mark: mark.value.mean, reverse=verdict.higher_is_better)",
        "return sorted(marks, key=lambda mark: mark.value.mean)",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "if main.rival is not None and main.rival not in shown:",
        "if main.rival is None:",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "untouched = UNTOUCHED if UNTOUCHED in names else names[0]",
        "untouched = names[-1]",
        FIGURES,
    ),
    Mutant(
        "adaptkit/report/figures.py",
        "dimmed=row.dominated_by is not None",
        "dimmed=row.dominated_by is None",
        FIGURES,
    ),
    Mutant("adaptkit/report/figures.py", "    if len(shown) < 2:", "    if len(shown) < 0:", FIGURES),
    # Tables and the page
    Mutant(
        "adaptkit/report/tables.py",
        "rows.sort(key=lambda row: row.arm.name != verdict.recommended)",
        "rows.sort(key=lambda row: row.arm.name == verdict.best)",
        TABLES,
    ),
    Mutant("adaptkit/report/tables.py", "    if len(cheapest) < len(VIEWS):", "    if not cheapest:", TABLES),
    Mutant(
        "adaptkit/report/tables.py",
        "    if len(set(cheapest.values())) == 1:",
        "    if len(cheapest.values()) == 1:",
        TABLES,
    ),
    Mutant(
        "adaptkit/report/templates/report.css", ".screen, .words, #sure dl,", ".screen, #sure dl,", PRINTED
    ),
    Mutant(
        "adaptkit/study/scores.py",
        "low=max(interval.low, known.least), high=min(interval.high, known.most)",
        "low=interval.low, high=interval.high",
        ("tests/test_figures.py::test_no_interval_of_a_report_reaches_past_its_metric",),
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        "margin_share=task.margin if is_language(task) else 0.0",
        "margin_share=0.0",
        ("tests/test_prose.py",),
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
    Mutant(
        "adaptkit/report/changes.py",
        "        if ids[0] != ids[1]:",
        "        if len(ids) == 3:",
        ("tests/test_changes.py",),
    ),
]
