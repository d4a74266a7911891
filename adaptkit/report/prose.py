"""The verdict in plain words, for readers who have never met a confidence interval: what to do, how sure,
what it costs."""

from __future__ import annotations

from adaptkit.study.results import Cost, Results
from adaptkit.study.statistics import Comparison
from adaptkit.study.verdict import TaskVerdict, Verdict, flops_text, number, reverse

_DO = {
    "scratch": "Pretrain a small model of your own.",
    "continued": "Keep pretraining the generic model on your text.",
    "distilled": "Distil a smaller model of your own.",
}
_HOW = {
    "prompt": "Do not pretrain. Use the generic model as it is.",
    "probe": "Do not pretrain. Use the features of the generic model as they are.",
    "lora": "Do not pretrain. Fine-tune the generic model with adapters.",
    "qlora": "Do not pretrain. Fine-tune the generic model with 4-bit adapters.",
    "full": "Do not pretrain. Fine-tune the generic model.",
}


def headline(verdict: Verdict, results: Results) -> str:
    """One imperative sentence."""
    main = verdict.main
    if main.outcome == "pretrained" and main.candidate:
        return _DO[results.arm(main.candidate).origin]
    if main.outcome == "generic" and main.generic:
        return _HOW.get(results.arm(main.generic).adaptation, "Do not pretrain. Use the generic model.")
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
    main, pair = verdict.main, verdict.main.versus_generic
    if pair is None:
        return f"This study cannot answer the question: {main.reason}."
    told = pair if main.outcome != "generic" else reverse(pair)
    better, worse = (
        (main.candidate, main.generic) if main.outcome != "generic" else (main.generic, main.candidate)
    )
    scores = {name: results.replicates(main.task).mean(name) for name in (better, worse) if name}
    share = abs(told.difference) / abs(scores[worse]) if worse and scores[worse] else 0.0
    direction = "higher" if results.task(main.task).higher_is_better else "lower"
    opposite = "lower" if direction == "higher" else "higher"
    ahead = direction if (told.difference > 0) == (direction == "higher") else opposite
    where = f"on {main.title} ({direction} is better)"
    if main.outcome == "tie":
        return f"{better} scores {number(abs(told.difference), told)} {ahead} than {worse} {where}. No winner: {main.reason}."
    text = f"{better} reaches {scores[better]:.3f} against {scores[worse]:.3f} for {worse} {where}: {share:.1%} {ahead}."
    if main.placebo and main.versus_placebo and main.outcome == "pretrained":
        text += f" Training as long on general text does not do it: {better} is also ahead of {main.placebo}."
    return text


def sureness(verdict: Verdict) -> str:
    """How far the numbers can be trusted."""
    pair = verdict.main.versus_generic
    if pair is None:
        return "Not at all: there is nothing to compare with."
    if min(pair.num_seeds) < 2:
        return "Not sure: one training run cannot show how much luck is in a score. The interval covers the test items only."
    told = pair if verdict.main.outcome != "generic" else reverse(pair)
    level = f"{pair.confidence:.0%}"
    basis = f"{max(pair.num_seeds)} training runs per arm and {pair.num_items:,} test items"
    if verdict.main.outcome == "tie":
        low, high = number(told.low, told, "+"), number(told.high, told, "+")
        bounds = f"The true difference lies between {low} and {high}, at {level} confidence"
        return f"{bounds}; differences below {number(told.margin, told)} were declared too small to matter. Based on {basis}."
    worst = min(abs(told.low), abs(told.high))
    return (
        f"Sure, at {level} confidence: the advantage is at least {number(worst, told)}, and anything above "
        f"{number(told.margin, told)} was declared worth acting on before the study ran. Based on {basis}."
    )


def price_tag(verdict: Verdict, results: Results) -> str:
    """What the arms in question cost to train, per seed."""
    names = [name for name in (verdict.main.candidate, verdict.main.generic) if name]
    costs = {name: results.cost(verdict.main.task, name) for name in names}
    if not costs:
        return "No training was compared."
    told = "; ".join(f"{name}: {cost_text(cost)}" for name, cost in costs.items())
    if price := results.study.get("price"):
        dollars = max(cost.seconds for cost in costs.values()) / 3600 * price["usd_per_hour"]
        rate = f"{price['usd_per_hour']:g} USD an hour ({price['source']}, {price['date']})"
        told += f". At {rate} the dearer one costs {dollars:,.2f} USD per training"
    return f"{told}. Each per seed, tuning trials included."


def cost_text(cost: Cost) -> str:
    """`7 min, 3.1e14 FLOPs, 0.9 GB of memory`."""
    if not cost.flops and not cost.seconds:
        return "no training"
    parts = [duration(cost.seconds), f"{flops_text(cost.flops)} FLOPs"]
    return ", ".join(
        parts + ([f"{memory_text(cost.peak_memory_bytes)} of memory"] if cost.peak_memory_bytes else [])
    )


def duration(seconds: float) -> str:
    """`45 s`, `7.2 min`, `3.4 h`, `2.1 days`."""
    for unit, size in (("days", 86400 * 2), ("h", 3600 * 1.5), ("min", 90)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 or seconds == 0 else "< 1 s"


def memory_text(num_bytes: float) -> str:
    """`0.9 GB`, decimal units."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.0f} MB"


def outcome_text(verdict: TaskVerdict) -> str:
    """A cell of the verdict table."""
    if verdict.versus_generic is None:
        return "not compared"
    return {"pretrained": "pretraining wins", "generic": "generic wins", "tie": "tie"}[verdict.outcome]


def share_read(results: Results) -> float | None:
    """Largest share of the domain text that any arm read; None where runs do not tell."""
    total = results.study.get("data", {}).get("domain", {}).get("train", {}).get("num_bytes")
    read = [cell.text_bytes for cell in results.cells if cell.text_bytes]
    return max(read) / total if read and total else None


def limits(verdict: Verdict, results: Results) -> list[str]:
    """What a careful reader should hold against this study, worst first."""
    pair, found = verdict.main.versus_generic, []
    seeds = len(results.study.get("seeds", []))
    found += _unbeaten(verdict, results)
    if seeds == 1:
        found.append(
            "One seed: intervals cover the choice of test items, not the luck of training. No winner can be declared."
        )
    elif seeds == 2:
        found.append(
            "Two seeds: the spread between trainings is barely measured; a 95 % interval can cover as little as 88 %."
        )
    if (share := share_read(results)) is not None and share < 0.5:
        found.append(
            f"The budget paid for reading {share:.1%} of the domain text: what the rest would add is the next question."
        )
    if pair is not None and pair.num_items < 300:
        found.append(
            f"{pair.num_items:,} test items are few: intervals are as wide as they are mostly for that reason."
        )
    if pair is not None and verdict.main.placebo is None:
        found.append(
            "No placebo arm: a gain may come from more training, not from your text. The arm placebo+full would tell."
        )
    if verdict.main.picked_on == "test":
        found.append(
            "Some runs hold no development score: the arms compared were picked on the test data, which flatters them."
        )
    found += at_the_edge(results)
    if [task.task for task in verdict.tasks] == ["language"]:
        found.append(
            "No labelled task was scored: bits per byte tells how well text is modelled, not how well a job is done."
        )
    if len(verdict.tasks) > 1:
        found.append(
            f"{len(verdict.tasks)} verdicts at {results.confidence:.0%} each: that one is wrong is likelier than for one."
        )
    if len(results.study.get("fractions", [])) < 3:
        found.append(
            "Fewer than three amounts of text: nothing is said about how the answer changes with more data."
        )
    found.append(
        "One model size and one budget: the answer may turn at others, which a larger study would show."
    )
    return found


def _unbeaten(verdict: Verdict, results: Results) -> list[str]:
    """Baselines without a language model that no arm beats on the primary task."""
    task, means = results.task(verdict.main.task), results.replicates(verdict.main.task).mean
    sign = 1 if task.higher_is_better else -1
    best = max((sign * means(name) for name in results.distinct_arms(task.name)), default=0.0)
    names = dict.fromkeys(cell.arm for cell in results.baselines if cell.task == task.name)
    scores = {name: means(f"baseline:{name}") for name in names}
    return [
        f"{name}, without any language model, scores {score:.3f} on {verdict.main.title}: better than every arm."
        for name, score in scores.items()
        if sign * score > best
    ]


def at_the_edge(results: Results) -> list[str]:
    """Arms whose best learning rate was the lowest or the highest that was tried: the best of all may lie
    outside."""
    best: dict[str, list[str]] = {"lowest": [], "highest": []}
    for name, trials in results.study.get("tuning", {}).items():
        rates = [trial["learning_rate"] for trial in sorted(trials, key=lambda trial: trial["dev"])]
        for edge, rate in zip(best, (min(rates, default=None), max(rates, default=None)), strict=True):
            if len(rates) > 1 and rates[0] == rate:
                best[edge].append(name)
    return [
        f"Of the learning rates tried, the {edge} was best for {', '.join(names)}: one beyond may be better."
        for edge, names in best.items()
        if names
    ]


def margin_text(comparison: Comparison | None) -> str:
    return "" if comparison is None else f"\u00b1{number(comparison.margin, comparison)}"
