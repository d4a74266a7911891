"""Faults in statistics, metrics, scaling laws, costs and the verdict."""

from __future__ import annotations

from mutants import Mutant

VERDICT = ("tests/test_verdict.py",)
STATISTICS = ("tests/test_statistics.py",)
SCALING = ("tests/test_scaling.py",)
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
    "tests/test_demo_breakeven.py::test_what_nobody_quoted_is_called_an_example",
)
CALIBRATION = (
    "tests/test_demo_breakeven.py::test_temperature_finds_back_what_was_distorted",
    "tests/test_demo_breakeven.py::test_a_temperature_above_one_softens",
)
RESULTS = ("tests/test_results.py",)

MUTANTS = [
    # The verdict
    Mutant("adaptkit/study/verdict.py", 'met.outcome == "loss":', 'met.outcome != "win":', VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        'if placebo is None or placebo.outcome == "win":',
        'if placebo is None or placebo.outcome != "loss":',
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        "candidate = _best(results, task, sides.pretrained, sides.picked_on)",
        'candidate = _best(results, task, sides.pretrained, "test")',
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        'hardest_generic = _best(results, task, sides.generic, "test")',
        "hardest_generic = _best(results, task, sides.generic, sides.picked_on)",
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        "    if min(generic.num_seeds) < 2:",
        "    if min(generic.num_seeds) < 1:",
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        "    return task.margin * abs(results.replicates(task.name).mean(generic))",
        "    return task.margin",
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/verdict.py",
        'missing = "pretrained" if candidate is None else "generic"',
        'missing = "generic" if candidate is None else "pretrained"',
        VERDICT,
    ),
    Mutant("adaptkit/study/verdict.py", "< 0.25 * comparison.margin", "< 25 * comparison.margin", VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        "    if items_too_few(comparison):",
        "    if not items_too_few(comparison):",
        VERDICT,
    ),
    Mutant("adaptkit/study/statistics.py", "low=-comparison.high,", "low=-comparison.low,", VERDICT),
    Mutant(
        "adaptkit/study/verdict.py",
        'return {"pretrained": self.generic, "generic": self.candidate, "tie": None}',
        'return {"pretrained": self.candidate, "generic": self.generic, "tie": None}',
        VERDICT,
    ),
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
        "        return offsets, wanted / (_z(shape) * spread)",
        "        return offsets, 1.0",
        STATISTICS,
    ),
    Mutant(
        "adaptkit/study/statistics.py",
        "return -self.margin <= self.low and self.high <= self.margin",
        "return -self.margin <= self.low or self.high <= self.margin",
        VERDICT,
    ),
    Mutant(
        "adaptkit/study/power.py", "parts.append((variance / count,", "parts.append((variance,", STATISTICS
    ),
    Mutant("adaptkit/study/intervals.py", "scores.var(ddof=1)", "scores.var(ddof=0)", STATISTICS),
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
        "adaptkit/study/scores.py",
        "        row = ((row + hits) | (row - hits)) & everything",
        "        row = (row + hits) & everything",
        SCORES,
    ),
    # Scaling laws
    Mutant("adaptkit/study/forecast.py", "    below = floor < 0", "    below = floor < -9", SCALING),
    Mutant("adaptkit/study/forecast.py", "        if at > largest:", "        if at > smallest:", SCALING),
    Mutant("adaptkit/study/forecast.py", "MIN_POINTS = 3", "MIN_POINTS = 2", SCALING),
    Mutant("adaptkit/study/forecast.py", "    behind = gap > 0", "    behind = gap < 0", SCALING),
    Mutant(
        "adaptkit/study/forecast.py",
        'return "below the smallest amount tested"',
        'return "beyond the largest amount tested"',
        SCALING,
    ),
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
        '_STANDS_FOR_OTHERS = {"full": 0, "lora": 1',
        '_STANDS_FOR_OTHERS = {"full": 9, "lora": 1',
        RESULTS,
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
        'EXAMPLE, GUESS = "an example, not a quote"',
        'EXAMPLE, GUESS = "a quote"',
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
