"""Say the verdict in plain words, for readers who have never met a confidence interval.

What to do, what was found, how sure that is, what it costs, and what the study cannot tell.
"""

from __future__ import annotations

from adaptkit.study.results import Cost, Results
from adaptkit.study.statistics import Comparison
from adaptkit.study.verdict import TaskVerdict, Verdict, flops_text, number

_PRETRAINED_WINS = {
    "scratch": "Pretrain a small model of your own.",
    "continued": "Keep pretraining the generic model on your text.",
    "distilled": "Distil a smaller model of your own.",
}
_GENERIC_WINS = {
    "prompt": "Do not pretrain. Use the generic model as it is.",
    "probe": "Do not pretrain. Use the features of the generic model as they are.",
    "lora": "Do not pretrain. Fine-tune the generic model with adapters.",
    "qlora": "Do not pretrain. Fine-tune the generic model with 4-bit adapters.",
    "full": "Do not pretrain. Fine-tune the generic model.",
}
FEW_ITEMS = 300
"""Test items below which the report calls them few."""
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def headline(verdict: Verdict, results: Results) -> str:
    """What to do, in one or two sentences."""
    main = verdict.main
    if main.outcome == "pretrained" and main.candidate:
        return _PRETRAINED_WINS[results.arm(main.candidate).origin]
    if main.outcome == "generic" and main.generic:
        adaptation = results.arm(main.generic).adaptation
        return _GENERIC_WINS.get(adaptation, "Do not pretrain. Use the generic model.")
    if main.versus_generic is None:
        return "Nothing to decide yet: one side is missing."
    if min(main.versus_generic.num_seeds) < 2:
        return "No verdict yet: one seed is not evidence."
    if main.versus_generic.outcome == "win":
        return "Do not pretrain. Your text is not what helped."
    if main.versus_generic.outcome == "loss":
        return "Do not pretrain. The generic model does better."
    if main.versus_generic.equivalent:
        return "Do not pretrain. It makes no difference that matters."
    return "Not settled. Until it is, do not pretrain."


def meaning(verdict: Verdict, results: Results) -> str:
    """What the numbers say, for the primary task."""
    main, pair = verdict.main, verdict.main.from_winners_side
    if pair is None or main.candidate is None or main.generic is None:
        return f"This study cannot answer the question: {main.reason}."
    first, second = main.winner or main.candidate, main.loser or main.generic
    better = "higher" if results.task(main.task).higher_is_better else "lower"
    direction = "higher" if pair.difference > 0 else "lower"
    where = f"on {main.title} ({better} is better)"
    if main.outcome == "tie":
        gap = f"{first} scores {number(abs(pair.difference), pair)} {direction} than {second} {where}"
        return f"{gap}. No winner: {main.reason}."
    scores = results.replicates(main.task)
    high, low = scores.mean(first), scores.mean(second)
    share = abs(pair.difference) / abs(low) if low else 0.0
    text = f"{first} reaches {high:.3f} against {low:.3f} for {second} {where}: {share:.1%} {direction}."
    if main.placebo and main.versus_placebo and main.outcome == "pretrained":
        placebo = f"{first} is also ahead of {main.placebo}"
        text += f" Training as long on general text does not do it: {placebo}."
    return text


def sureness(verdict: Verdict) -> str:
    """How far the numbers can be trusted."""
    pair = verdict.main.from_winners_side
    if pair is None:
        return "Not at all: there is nothing to compare with."
    if min(pair.num_seeds) < 2:
        return (
            "Not sure: one training run cannot show how much luck is in a score. "
            "The interval covers the test items only."
        )
    level = f"{pair.confidence:.0%}"
    margin = number(pair.margin, pair)
    basis = f"Based on {max(pair.num_seeds)} training runs per arm and {pair.num_items:,} test items."
    if verdict.main.outcome == "tie":
        low, high = number(pair.low, pair, "+"), number(pair.high, pair, "+")
        bounds = f"The true difference lies between {low} and {high}, at {level} confidence"
        return f"{bounds}; differences below {margin} were declared too small to matter. {basis}"
    least = number(min(abs(pair.low), abs(pair.high)), pair)
    return (
        f"Sure, at {level} confidence: the advantage is at least {least}, and anything above {margin} "
        f"was declared worth acting on before the study ran. {basis}"
    )


def price_tag(verdict: Verdict, results: Results) -> str:
    """What the arms in question cost to train, per seed."""
    names = [name for name in (verdict.main.candidate, verdict.main.generic) if name]
    costs = {name: results.cost(verdict.main.task, name) for name in names}
    if not costs:
        return "No training was compared."
    text = "; ".join(f"{name}: {cost_text(cost)}" for name, cost in costs.items())
    if price := results.record.price:
        dollars = max(cost.seconds for cost in costs.values()) / _HOUR * price.usd_per_hour
        rate = f"{price.usd_per_hour:g} USD an hour ({price.source}, {price.date})"
        text += f". At {rate} the dearer one costs {dollars:,.2f} USD per training"
    return f"{text}. Each per seed, tuning trials included."


def cost_text(cost: Cost) -> str:
    """`7 min, 3.1e14 FLOPs, 0.9 GB of memory`."""
    if not cost.flops and not cost.seconds:
        return "no training"
    parts = [duration(cost.seconds), f"{flops_text(cost.flops)} FLOPs"]
    if cost.peak_memory_bytes:
        parts.append(f"{memory_text(cost.peak_memory_bytes)} of memory")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`45 s`, `7.2 min`, `3.4 h`, `2.1 days`."""
    if seconds >= 2 * _DAY:
        return f"{seconds / _DAY:.1f} days"
    if seconds >= 1.5 * _HOUR:
        return f"{seconds / _HOUR:.1f} h"
    if seconds >= 1.5 * _MINUTE:
        return f"{seconds / _MINUTE:.1f} min"
    return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else "< 1 s"


def memory_text(num_bytes: float) -> str:
    """`0.9 GB`, decimal units."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.0f} MB"


def outcome_text(verdict: TaskVerdict) -> str:
    """A cell of the verdict table."""
    if verdict.versus_generic is None:
        return "not compared"
    return {"pretrained": "pretraining wins", "generic": "generic wins", "tie": "tie"}[verdict.outcome]


def margin_text(comparison: Comparison | None) -> str:
    """A cell of the verdict table: the margin on either side of zero."""
    return "" if comparison is None else f"\u00b1{number(comparison.margin, comparison)}"


# What the study cannot tell


def share_read(results: Results) -> float | None:
    """Largest share of the domain text that any arm read; None where runs do not tell."""
    read = [cell.text_bytes for cell in results.cells if cell.text_bytes]
    return max(read) / results.domain_bytes if read and results.domain_bytes else None


def limits(verdict: Verdict, results: Results) -> list[str]:
    """What a careful reader should hold against this study, worst first."""
    return [
        *unbeaten_baselines(verdict, results),
        *_limits_of_evidence(verdict, results),
        *rates_at_the_edge(results),
        *_limits_of_scope(verdict, results),
    ]


def _limits_of_evidence(verdict: Verdict, results: Results) -> list[str]:
    """What weakens the comparison that was made."""
    limits, pair, num_seeds = [], verdict.main.versus_generic, len(results.record.seeds)
    if num_seeds == 1:
        luck = "One seed: intervals cover the choice of test items, not the luck of training."
        limits.append(f"{luck} No winner can be declared.")
    elif num_seeds == 2:
        spread = "Two seeds: the spread between trainings is barely measured"
        limits.append(f"{spread}; a 95 % interval can cover as little as 88 %.")
    share = share_read(results)
    if share is not None and share < 0.5:
        read = f"The budget paid for reading {share:.1%} of the domain text"
        limits.append(f"{read}: what the rest would add is the next question.")
    if pair is not None and pair.num_items < FEW_ITEMS:
        few = f"{pair.num_items:,} test items are few"
        limits.append(f"{few}: intervals are as wide as they are mostly for that reason.")
    if pair is not None and verdict.main.placebo is None:
        gain = "No placebo arm: a gain may come from more training, not from your text."
        limits.append(f"{gain} The arm placebo+full would tell.")
    if verdict.main.picked_on == "test":
        picked = "the arms compared were picked on the test data, which flatters them"
        limits.append(f"Some runs hold no development score: {picked}.")
    return limits


def _limits_of_scope(verdict: Verdict, results: Results) -> list[str]:
    """What the study did not look at."""
    limits = []
    if [task.task for task in verdict.tasks] == ["language"]:
        told = "bits per byte tells how well text is modelled, not how well a job is done"
        limits.append(f"No labelled task was scored: {told}.")
    if len(verdict.tasks) > 1:
        verdicts = f"{len(verdict.tasks)} verdicts at {results.confidence:.0%} each"
        limits.append(f"{verdicts}: that one is wrong is likelier than for one.")
    if len(results.record.shares) < 3:
        change = "nothing is said about how the answer changes with more data"
        limits.append(f"Fewer than three amounts of text: {change}.")
    turn = "the answer may turn at others, which a larger study would show"
    limits.append(f"One model size and one budget: {turn}.")
    return limits


def unbeaten_baselines(verdict: Verdict, results: Results) -> list[str]:
    """Baselines without a language model that no arm beats on the primary task."""
    task, replicates = results.task(verdict.main.task), results.replicates(verdict.main.task)
    sign = 1 if task.higher_is_better else -1
    best = max((sign * replicates.mean(name) for name in results.distinct_arms(task.name)), default=0.0)
    sentences = []
    for name in dict.fromkeys(cell.arm for cell in results.baselines if cell.task == task.name):
        score = replicates.mean(f"baseline:{name}")
        if sign * score > best:
            where = f"scores {score:.3f} on {verdict.main.title}"
            sentences.append(f"{name}, without any language model, {where}: better than every arm.")
    return sentences


def rates_at_the_edge(results: Results) -> list[str]:
    """Trainings whose best learning rate was the lowest or the highest tried: a better one may lie beyond."""
    names: dict[str, list[str]] = {"lowest": [], "highest": []}
    for tuning in results.record.tuning:
        rates = [trial.learning_rate for trial in tuning.trials]
        if len(rates) < 2:
            continue
        best = min(tuning.trials, key=lambda trial: trial.dev).learning_rate
        if best == min(rates):
            names["lowest"].append(tuning.title)
        if best == max(rates):
            names["highest"].append(tuning.title)
    return [
        f"Of the learning rates tried, the {edge} was best for {', '.join(titles)}: one beyond may be better."
        for edge, titles in names.items()
        if titles
    ]
