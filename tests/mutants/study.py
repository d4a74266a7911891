"""Faults in statistics, metrics, the forecast, costs and the verdict."""

from __future__ import annotations

from mutants import Mutant

VERDICT = ("tests/test_verdict.py",)
CONTROLS = ("tests/test_controls.py",)
LINE = ("tests/test_verdict_line.py",)
OWNERSHIP = ("tests/test_ownership.py",)
PREFERENCE = ("tests/test_preference.py",)
FRONT = ("tests/test_front.py",)
FLIPS = ("tests/test_flips.py",)
BASE_COST = ("tests/test_base_cost.py",)
STATISTICS = ("tests/test_statistics.py",)
INTERVALS = ("tests/test_intervals.py",)
ITEM_NOISE = ("tests/test_item_noise.py",)
POWER = ("tests/test_power.py",)
CONTENDERS = tuple(
    f"tests/test_contenders.py::{name}"
    for name in (
        "test_arms_beaten_by_more_than_the_margin_are_out",
        "test_lower_is_better_mirrors_it",
        "test_several_arms_are_enough_when_shown_to_be_close",
        "test_only_contenders_must_be_shown_to_be_close",
        "test_holm_frees_what_decided_tasks_do_not_need",
    )
)
TOGETHER = ("tests/test_statistics.py::test_intervals_of_many_arms_hold_together",)
NO_ORDER = ("tests/test_statistics.py::test_versus_is_compare_for_two_arms_and_minds_no_order",)
CLUSTERED = tuple(
    f"tests/test_statistics.py::{name}"
    for name in (
        "test_unequal_clusters_are_drawn_whole_and_tell_less",
        "test_repeats_within_a_cluster_tell_nothing_new",
    )
)
FORECAST = ("tests/test_forecast.py",)
LADDER = ("tests/test_ladder.py",)
LABELS = ("tests/test_label_forecast.py",)
EXIT = ("tests/test_exit_plan.py",)
SCORES = tuple(
    f"tests/test_scores.py::{name}"
    for name in (
        "test_weighted_table_is_the_metric_of_the_resample",
        "test_rouge_l_on_repeated_words_and_long_texts",
        "test_ece_by_hand_and_at_the_bin_edges",
        "test_ece_equals_a_loop_over_bins",
    )
)
BILLS = (
    "tests/test_demo_breakeven.py::test_the_arithmetic_of_one_server_by_hand",
    "tests/test_demo_breakeven.py::test_servers_are_rented_whole",
)
PRICES = (
    "tests/test_demo_breakeven.py::test_speed_is_the_measured_one_where_the_study_was_benchmarked",
    "tests/test_demo_breakeven.py::test_what_nobody_quoted_or_measured_is_left_out_with_the_key_to_set",
    "tests/test_demo_breakeven.py::test_lengths_are_those_of_the_tasks_own_items",
)
CALIBRATION = (
    "tests/test_demo_breakeven.py::test_temperature_finds_back_what_was_distorted",
    "tests/test_demo_breakeven.py::test_a_temperature_above_one_softens",
)
RESULTS = ("tests/test_results.py",)

MUTANTS = [
    # The verdict
    Mutant("adaptkit/study/verdict.py", "if all(gaining) and sides.without:", "if all(gaining):", VERDICT),
    Mutant("adaptkit/study/verdict.py", "if all(gaining) and sides.without:", "if any(gaining):", VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        'if settled or asked else "undecided"',
        'if asked else "undecided"',
        VERDICT,
    ),
    Mutant("adaptkit/study/verdict.py", "    if not settled:", "    if settled is None:", VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        "if results.num_seeds == 1 or len(arms) == 1:",
        "if len(arms) == 1:",
        VERDICT,
    ),
    Mutant("adaptkit/study/verdict.py", "return task.margin * min(scores)", "return task.margin", VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        'return pair if outcome == "gain" else reverse(pair)',
        "return pair",
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py", "return field.best_of(sides.without)", "return field.arms[0]", VERDICT
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        "confidences.get(task.name, results.confidence)",
        "results.confidence",
        VERDICT,
    ),
    Mutant("adaptkit/study/statistics.py", "low=-comparison.high,", "low=-comparison.low,", VERDICT),
    # Controls
    Mutant(
        "adaptkit/study/controls.py",
        "OWN if is_language(task) else DOMAIN_TRAINED",
        "DOMAIN_TRAINED",
        CONTROLS,
    ),
    Mutant(
        "adaptkit/study/controls.py",
        'arm.adaptation in ("lora", "qlora")',
        'arm.adaptation == "lora"',
        CONTROLS,
    ),
    Mutant(
        "adaptkit/study/controls.py",
        "if task.kind in WORD_COUNTED else ()",
        "if not task.kind else ()",
        CONTROLS,
    ),
    Mutant("adaptkit/study/controls.py", '"retrieve": (PROBED,)', '"classify": (PROBED,)', CONTROLS),
    # The line
    Mutant(
        "adaptkit/study/verdict_line.py",
        "if not any(control.name.startswith(PLACEBO) for control in verdict.missing):",
        "if verdict.outcome:",
        LINE,
    ),
    Mutant("adaptkit/study/verdict_line.py", "if others and not verdict.settled:", "if others:", LINE),
    Mutant(
        "adaptkit/study/verdict_line.py",
        "if not verdict.missing or not verdict.decided:",
        "if not verdict.missing:",
        LINE,
    ),
    Mutant(
        "adaptkit/study/verdict_line.py",
        "comparison.high - comparison.low < 0.01",
        "comparison.high < 0.01",
        LINE,
    ),
    # Owning, preferring, the front
    Mutant("adaptkit/study/ownership.py", "flops = 2.0 * params", "flops = 6.0 * params", OWNERSHIP),
    Mutant(
        "adaptkit/study/ownership.py",
        'best = max(levels, key=lambda level: level["requests_per_s"])',
        "best = levels[0]",
        OWNERSHIP,
    ),
    Mutant(
        "adaptkit/study/ownership.py",
        "if not decision.requests_per_month:",
        "if decision.months < 0:",
        OWNERSHIP,
    ),
    Mutant(
        "adaptkit/study/preference.py",
        "-1.0 if task.higher_is_better else 1.0",
        "1.0 if task.higher_is_better else 1.0",
        PREFERENCE,
    ),
    Mutant("adaptkit/study/preference.py", "else after - before", "else before - after", PREFERENCE),
    Mutant("adaptkit/study/front.py", "and any(a < b for a, b in pairs)", "", FRONT),
    Mutant("adaptkit/study/front.py", "return complete and all(", "return all(", FRONT),
    # What would change the answer, and the cost of the base
    Mutant(
        "adaptkit/study/flips.py",
        'return low - verdict.margin if verdict.outcome == "gain" else verdict.margin - high',
        "return low - verdict.margin",
        FLIPS,
    ),
    Mutant(
        "adaptkit/study/flips.py",
        "    if not verdict.higher_is_better:",
        "    if verdict.higher_is_better:",
        FLIPS,
    ),
    Mutant(
        "adaptkit/study/flips.py",
        'if verdict.ledger == "jobs" else ""',
        'if verdict.ledger == "text" else ""',
        FLIPS,
    ),
    Mutant("adaptkit/study/flips.py", "        if cheapest != before:", "        if before is None:", FLIPS),
    Mutant("adaptkit/study/base_cost.py", 'OWN - {"distilled"}', "OWN", BASE_COST),
    Mutant(
        "adaptkit/study/base_cost.py",
        "return BaseCosts(arm.name, own, None, None)",
        "return BaseCosts(arm.name, own, own, own)",
        BASE_COST,
    ),
    Mutant("adaptkit/study/base_cost.py", "if row.arm in contenders]", "]", BASE_COST),
    # Intervals
    Mutant("adaptkit/study/intervals.py", "    if worst > margin:", "    if worst > 0:", STATISTICS),
    Mutant(
        "adaptkit/study/intervals.py",
        "        worst, best = -high, -low",
        "        worst, best = -low, -high",
        STATISTICS,
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "        return offsets, 2 * wanted / float(ends[1] - ends[0]), ends",
        "        return offsets, 1.0, ends",
        STATISTICS,
    ),
    Mutant("adaptkit/study/power.py", "parts.append((variance / count,", "parts.append((variance,", POWER),
    Mutant("adaptkit/study/intervals.py", "scores.var(ddof=1)", "scores.var(ddof=0)", STATISTICS),
    Mutant(
        "adaptkit/study/statistics.py",
        "places = _cluster_places(clusters, lengths.pop())",
        "places = _cluster_places(None, lengths.pop())",
        ("tests/test_statistics.py::test_whole_clusters_are_drawn_and_cover_where_items_do_not",),
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "item_noise.freedom(cluster_sizes)",
        "float(self.num_clusters)",
        CLUSTERED,
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "SeedNoise.of(self.scores[arm], item_noise.interaction(self.influences[arm]))",
        "SeedNoise.of(self.scores[arm])",
        ("tests/test_statistics.py::test_what_seeds_and_items_share_counts_once",),
    ),
    Mutant("adaptkit/study/item_noise.py", "np.sqrt(1 - sizes / sizes.sum())", "1.0", ITEM_NOISE),
    Mutant("adaptkit/study/item_noise.py", "shares**2 / (1 - shares)", "shares**2", ITEM_NOISE),
    Mutant("adaptkit/study/item_noise.py", "(num_seeds * (num_seeds - 1))", "num_seeds**2", ITEM_NOISE),
    Mutant("adaptkit/study/intervals.py", "variance * freedom / (freedom + 2)", "variance", INTERVALS),
    Mutant("adaptkit/study/intervals.py", "_chi_nodes(freedom + 2)", "_chi_nodes(freedom)", INTERVALS),
    Mutant(
        "adaptkit/study/statistics.py",
        "level = simultaneous_level(covariance, names.index(reference), confidence)",
        "level = confidence",
        TOGETHER,
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "names = tuple(sorted({reference, *others}))",
        "names = (reference, *others)",
        NO_ORDER,
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "seed_freedom=comparison.seed_freedom[::-1],",
        "",
        ("tests/test_statistics.py::test_a_comparison_turned_round",),
    ),
    Mutant("adaptkit/study/intervals.py", "max(own.variance, averaged)", "averaged", INTERVALS),
    Mutant("adaptkit/study/intervals.py", "_BORROWED_FREEDOM = 4.0", "_BORROWED_FREEDOM = 0.0", INTERVALS),
    Mutant("adaptkit/study/intervals.py", "if len(own) < 3", "if len(own) < 2", INTERVALS),
    Mutant("adaptkit/study/intervals.py", "1 - (1 - confidence) / varying.sum()", "confidence", INTERVALS),
    # What would settle it
    Mutant(
        "adaptkit/study/power.py",
        "(comparison.item_variance - of_seeds) / more,",
        "(comparison.item_variance - of_seeds),",
        POWER,
    ),
    Mutant("adaptkit/study/power.py", "comparison.item_freedom * more", "num_items", POWER),
    Mutant("adaptkit/study/power.py", "comparison.interaction * (1 - 1 / more_seeds)", "0.0", POWER),
    Mutant("adaptkit/study/power.py", "freedom + count - present", "count - 1", POWER),
    Mutant(
        "adaptkit/study/power.py", "simultaneous_level(np.eye(num_arms), 0, confidence)", "confidence", POWER
    ),
    # Who can still be the best
    Mutant("adaptkit/study/contenders.py", 'pair.outcome != "win"', 'pair.outcome == "tie"', CONTENDERS),
    Mutant(
        "adaptkit/study/contenders.py",
        "self.most_worse(arm, other) <= self.margin",
        "self.most_worse(arm, other) <= -self.margin",
        CONTENDERS,
    ),
    Mutant(
        "adaptkit/study/contenders.py",
        "return -pair.low if self.higher_is_better else pair.high",
        "return pair.high if self.higher_is_better else -pair.low",
        CONTENDERS,
    ),
    Mutant(
        "adaptkit/study/contenders.py",
        "for other in contenders if other != arm",
        "for other in self.arms if other != arm",
        CONTENDERS,
    ),
    Mutant(
        "adaptkit/study/contenders.py",
        "self.seen_from[self.best][arm]",
        "self.seen_from[arm][self.best]",
        CONTENDERS,
    ),
    Mutant(
        "adaptkit/study/contenders.py",
        '== "win" for other in others',
        '!= "loss" for other in others',
        CONTENDERS,
    ),
    Mutant(
        "adaptkit/study/contenders.py",
        "level = 1 - (1 - confidence) / len(still_open)",
        "level = 1 - (1 - confidence) / num_tasks",
        CONTENDERS,
    ),
    Mutant("adaptkit/study/contenders.py", "levels[task] = level", "levels[task] = confidence", CONTENDERS),
    # Metrics
    Mutant(
        "adaptkit/data/score_table.py",
        "    return np.nanmean(_class_f1(totals), axis=-1)",
        "    return np.nan_to_num(_class_f1(totals)).mean(axis=-1)",
        SCORES,
    ),
    Mutant("adaptkit/study/scores.py", "NUM_ECE_BINS = 15", "NUM_ECE_BINS = 10", SCORES),
    Mutant(
        "adaptkit/study/scores.py",
        "np.ceil(confidence * num_bins).astype(int) - 1",
        "np.floor(confidence * num_bins).astype(int)",
        SCORES,
    ),
    Mutant(
        "adaptkit/subsequence.py",
        "        row = ((row + hits) | (row - hits)) & everything",
        "        row = (row + hits) & everything",
        SCORES,
    ),
    # The forecast
    Mutant("adaptkit/study/law.py", "((scale < 0) | (floor < 0))", "(scale < 0)", FORECAST),
    Mutant("adaptkit/study/law.py", "MISFIT_FREEDOM * assumed**2 + seen", "seen", FORECAST),
    Mutant("adaptkit/study/law.py", "once = np.minimum(text, read)", "once = text", FORECAST),
    Mutant("adaptkit/study/law.py", "last * np.exp(steps[", "last + (steps[", FORECAST),
    Mutant("adaptkit/study/forecast.py", "if not record.came_first:", "if False:", FORECAST),
    Mutant(
        "adaptkit/study/forecast.py",
        "self.predicted.low <= self.measured <= self.predicted.high",
        "self.measured <= self.predicted.high",
        FORECAST,
    ),
    Mutant(
        "adaptkit/study/forecast.py", "for check in checks if check.held", "for check in checks", FORECAST
    ),
    Mutant("adaptkit/study/forecast_answers.py", "WIDEST = 8.0", "WIDEST = 80.0", FORECAST),
    Mutant("adaptkit/study/forecast_answers.py", "behind = gaps > 0", "behind = gaps < 0", FORECAST),
    Mutant("adaptkit/study/forecast_answers.py", "if low == math.inf:", "if value == math.inf:", FORECAST),
    # Other numbers of labels
    Mutant("adaptkit/study/label_forecast.py", "if not record.came_first:", "if False:", LABELS),
    Mutant("adaptkit/study/label_forecast.py", "np.abs(self._best - scores)", "np.abs(scores)", LABELS),
    Mutant("adaptkit/study/label_forecast.py", "labels * self.max_epochs, self", "labels * 80, self", LABELS),
    Mutant("adaptkit/study/label_answers.py", "first.lacks(span.factors) - second", "second", LABELS),
    Mutant("adaptkit/study/label_answers.py", "affordable <= curve.num_labels", "False", LABELS),
    Mutant("adaptkit/data/drawing.py", "drawn = [*first, *(", "drawn = [*(", LABELS),
    Mutant("adaptkit/study/exit_plan.py", "first(bills[2], hours[0])", "first(bills[0], hours[2])", EXIT),
    # Other sizes
    Mutant("adaptkit/study/ladder.py", 'if after == "open":', 'if after == "equal":', LADDER),
    Mutant(
        "adaptkit/study/ladder.py", "len(self.steps) - self.count(", "len(self.steps) + self.count(", LADDER
    ),
    Mutant("adaptkit/study/tuning.py", "(widths[0] / widths[1])", "(widths[1] / widths[0])", LADDER),
    Mutant("adaptkit/study/tuning.py", "per_token[1], per_token[0]", "per_token[0], per_token[1]", LADDER),
    Mutant("adaptkit/compare/stages/language.py", "replace(order, params=0)", "replace(order)", LADDER),
    # Studies read back
    Mutant(
        "adaptkit/study/results.py",
        "total_cost(paid_by).plus(total_cost(tuned_by), 1 / self.num_seeds)",
        "total_cost(paid_by)",
        RESULTS,
    ),
    Mutant(
        "adaptkit/study/results.py",
        "if cells and len(values) == len(cells) else None",
        "if values else None",
        RESULTS,
    ),
    Mutant(
        "adaptkit/study/results.py",
        '        if [row["id"] for row in cell.rows] != ids:',
        "        if not cell.rows:",
        RESULTS,
    ),
    Mutant(
        "adaptkit/study/results.py",
        "resample(tables, self.clusters(task))",
        "resample(tables)",
        ("tests/test_results.py::test_items_of_one_document_stay_together",),
    ),
    Mutant(
        "adaptkit/study/data_record.py",
        'else ("item", item)',
        'else ("cluster", item)',
        ("tests/test_results.py::test_an_item_named_like_a_document_stands_alone",),
    ),
    # Money
    Mutant("adaptkit/study/breakeven.py", "HOURS_PER_MONTH = 730.0", "HOURS_PER_MONTH = 720.0", BILLS),
    Mutant(
        "adaptkit/study/breakeven.py",
        "return max(1, math.ceil(requests_per_month / capacity - 1e-9))",
        "return max(1, math.floor(requests_per_month / capacity))",
        BILLS,
    ),
    Mutant("adaptkit/study/breakeven.py", "return self.own <= self.api", "return self.own > self.api", BILLS),
    Mutant(
        "adaptkit/study/prices.py",
        "    usd_per_hour: Sourced | None = None",
        '    usd_per_hour: Sourced | None = Sourced(1.0, "an example")',
        PRICES,
    ),
    Mutant(
        "adaptkit/study/prices.py",
        "{**_bench_lengths(bench), **_item_lengths(results), **_asked(results)}",
        "{**_item_lengths(results), **_bench_lengths(bench), **_asked(results)}",
        PRICES,
    ),
    Mutant(
        "adaptkit/study/prices.py",
        'best = max(levels, key=lambda level: level["requests_per_s"])',
        "best = levels[-1]",
        PRICES,
    ),
    Mutant(
        "adaptkit/study/calibration.py",
        "np.log(np.maximum(probabilities_NC, _TINY)) / temperature",
        "np.log(np.maximum(probabilities_NC, _TINY)) * temperature",
        CALIBRATION,
    ),
]
