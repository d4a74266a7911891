"""Say the verdict in plain words, for readers who have never met a confidence interval.

What to do, what was found, how sure that is, and what it costs.
"""

from __future__ import annotations

from adaptkit.study.controls import gains_from_text
from adaptkit.study.record import ArmRecord
from adaptkit.study.results import BASELINE, Cost, Results
from adaptkit.study.statistics import Comparison
from adaptkit.study.task_verdict import TaskVerdict, Verdict
from adaptkit.study.verdict_line import flops_text, number, what_settles

_BASELINES = {"word-features": "spelling and known names of words"}
"""What baselines go by that are no word counts, by their names."""
_BY_ORIGIN = {
    BASELINE: "Word counts are enough. No language model is needed.",
    "placebo": "Train the generic model for longer. Your text is not what helps.",
    "tapt": "Pretrain the generic model on the text of the task's own rows first. No other text is needed.",
    "continued": "Keep pretraining the generic model on your text.",
    "continued-lora": "Keep pretraining the generic model on your text, with adapters.",
    "continued-vocabulary": "Add words of your text to the generic model, and keep pretraining it on that.",
    "mixed": "Pretrain a small model of your own, with general text mixed in.",
    "scratch": "Pretrain a small model of your own.",
    "distilled": "Distil a smaller model of your own.",
    "api": "Stay with the model behind the API.",
}
_BY_ADAPTATION = {
    None: "Leave the generic model as it is.",
    "prompt": "Use the generic model as it is.",
    "rag": "Use the generic model, and let it look things up in your text.",
    "probe": "Use the features of the generic model as they are.",
    "hybrid": "Use the vectors of the generic model as they are, and count shared words beside them.",
    "lora": "Fine-tune the generic model with adapters.",
    "qlora": "Fine-tune the generic model with 4-bit adapters.",
    "rag-lora": "Fine-tune the generic model with adapters, and let it look things up in your text.",
    "full": "Fine-tune the generic model.",
    "rerank": "Fine-tune the generic model to read again what a search finds, and sort it.",
}
_PLAIN_ORIGIN = {
    BASELINE: "word counts",
    "generic": "the generic model",
    "placebo": "the generic model, trained for longer",
    "tapt": "the generic model, pretrained on the text of the task's own rows",
    "continued": "the generic model, pretrained on your text",
    "continued-lora": "the generic model, pretrained on your text with adapters",
    "continued-vocabulary": "the generic model, pretrained on your text with words of it added",
    "mixed": "a small model of your own, with general text mixed in",
    "scratch": "a small model of your own",
    "distilled": "a smaller model of your own",
    "api": "the model behind the API",
}
_PLAIN_ADAPTATION = {
    "prompt": "prompted",
    "rag": "looking things up in your text",
    "probe": "its features alone",
    "hybrid": "its vectors, with shared words counted beside them",
    "lora": "fine-tuned with adapters",
    "qlora": "fine-tuned with 4-bit adapters",
    "rag-lora": "fine-tuned with adapters, looking things up in your text",
    "full": "fine-tuned",
    "rerank": "fine-tuned to read again what a search finds",
}
_NOT_NEEDED = {
    "jobs": "Pretraining on your text is not needed.",
    "text": "A model of your own is not needed.",
}
_DAY, _HOUR, _MINUTE = 86400, 3600, 60


def headline(verdict: Verdict, results: Results) -> str:
    """What to do, in one or two sentences."""
    main, arm = verdict.main, results.arm(verdict.main.recommended)
    if not main.decided:
        if main.rival is None:
            return "Nothing to decide yet: there is only one arm."
        return _still_open(arm, main.rival, results)
    if main.outcome == "no gain" and not main.settled and main.rival is not None:
        return f"{_NOT_NEEDED[main.ledger]} {_still_open(arm, main.rival, results)}"
    advice = advice_for(arm)
    if arm.origin == "generic" and main.ledger == "jobs" and main.outcome == "no gain":
        return f"{advice} Pretraining on your text adds nothing that matters."
    return advice


def _still_open(arm: ArmRecord, rival: str, results: Results) -> str:
    return f"Not settled: {in_plain_words(arm)}, or {in_plain_words(results.arm(rival))}."


def in_plain_words(arm: ArmRecord) -> str:
    """An arm without its name: `the generic model, fine-tuned`."""
    words = _PLAIN_ORIGIN.get(arm.origin, arm.name)
    if arm.origin == BASELINE:
        words = _BASELINES.get(arm.name, words)
    if arm.adaptation is None:
        return words
    return f"{words}, {_PLAIN_ADAPTATION.get(arm.adaptation, arm.adaptation)}"


def advice_for(arm: ArmRecord) -> str:
    """What taking an arm means."""
    if arm.origin == BASELINE and arm.name in _BASELINES:
        words = _BASELINES[arm.name]
        return f"{words[0].upper()}{words[1:]} are enough. No language model is needed."
    if arm.origin in _BY_ORIGIN:
        return _BY_ORIGIN[arm.origin]
    return _BY_ADAPTATION.get(arm.adaptation, "Use the generic model.")


def meaning(verdict: Verdict, results: Results) -> str:
    """What the numbers say, for the task that decides."""
    main = verdict.main
    better = "higher" if main.higher_is_better else "lower"
    scores = results.replicates(main.task)
    score = f"{main.recommended} scores {scores.mean(main.recommended):.3f}"
    text = f"{score} ({main.title}, {better} is better)"
    if main.pair is None or main.rival is None:
        return f"{text}, and nothing else ran."
    against = f"{main.rival} with {scores.mean(main.rival):.3f}"
    if main.outcome == "gain":
        asked = "without your domain text" if main.own_text else "without pretraining on your text"
        if main.ledger == "text":
            asked = "by keeping on with the base"
        text += f"; the best {asked} is {against}."
    elif main.decided and main.settled:
        text += f". No arm is better by {main.margin:.3f} or more; the closest is {against}."
    else:
        text += f", {against}: the study cannot tell whether one of the two is better by {main.margin:.3f}."
    return f"{text} {_standing(main)}{_other_side(main, results)}"


def _standing(main: TaskVerdict) -> str:
    """How many arms are still in it."""
    others = [name for name in main.contenders if name != main.recommended]
    if not others:
        return "Every other arm is behind by more than the margin."
    listed = ", ".join(others)
    return f"These may be as good, as no arm beats them by more than the margin: {listed}."


def _other_side(main: TaskVerdict, results: Results) -> str:
    """What the best arm with pretraining on the text reached, where it is not named yet."""
    task = results.task(main.task)
    gaining = [arm.name for arm in results.scored_arms(task.name) if gains_from_text(arm, task)]
    named = {main.recommended, main.rival, *main.contenders}
    if not gaining or named & set(gaining):
        return ""
    scores = results.replicates(main.task)
    sign = 1 if main.higher_is_better else -1
    best = max(gaining, key=lambda name: sign * scores.mean(name))
    what = "of your own"
    if main.ledger == "jobs":
        what = "with pretraining on your domain text" if main.own_text else "with pretraining on your text"
    return f" The best {what}, {best}, reaches {scores.mean(best):.3f}."


def sureness(verdict: Verdict, results: Results) -> str:
    """How far the numbers can be trusted."""
    main = verdict.main
    if main.pair is None:
        return "Not at all: there is nothing to compare with."
    if results.num_seeds < 2:
        luck = "one training run cannot show how much luck is in a score"
        return f"Not sure: {luck}. The intervals cover the test items only."
    level = f"{verdict.confidence:.0%}"
    basis = f"Based on {results.num_seeds} training runs per arm and {_items(main.pair)}."
    if not main.decided:
        return f"Not sure enough: {what_settles(main)}. {basis}"
    kept = f"With {level} confidence the truly best arm is among the {len(main.contenders)} contenders"
    if len(main.contenders) == 1:
        kept = f"With {level} confidence {main.recommended} is the best arm"
    elif main.settled:
        kept += f", and {main.recommended} lies within {main.margin:.3f} of it"
    elif main.safe is not None:
        kept += f". Which of them is best is open; {main.safe} is shown to be within {main.margin:.3f} of it"
    else:
        kept += ". Which of them is best is open"
    small = f"Differences below {main.margin:.3f}{margin_share(main)} were declared too small to matter."
    return f"{kept}. {small} {basis}"


def _items(pair: Comparison) -> str:
    if pair.num_clusters < pair.num_items:
        return f"{pair.num_items:,} test items of {pair.num_clusters:,} documents or groups"
    return f"{pair.num_items:,} test items"


def price_tag(verdict: Verdict, results: Results) -> str:
    """What the arms in question cost to train, per seed."""
    names = [name for name in dict.fromkeys((verdict.main.recommended, verdict.main.rival)) if name]
    costs = {name: results.cost(verdict.main.task, name) for name in names}
    text = "; ".join(f"{name}: {cost_text(cost)}" for name, cost in costs.items())
    if price := results.record.price:
        dollars = max(cost.seconds for cost in costs.values()) / _HOUR * price.usd_per_hour
        rate = f"{price.usd_per_hour:g} USD an hour ({price.source}, {price.date})"
        text += f". At {rate} the more expensive one costs {dollars:,.2f} USD per training"
    chosen = f"Among the contenders the recommended arm is {verdict.main.preferred_by}"
    return f"{text}. Costs are per seed, tuning trials included. {chosen}."


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
    if verdict.ledger == "text":
        words = {"gain": "a model of one's own pays", "no gain": "the base is enough"}
    elif verdict.own_text:
        words = {"gain": "the domain text pays", "no gain": "the domain text is not needed"}
    else:
        words = {"gain": "pretraining pays", "no gain": "pretraining is not needed"}
    return words.get(verdict.outcome, verdict.outcome)


def difference_text(verdict: TaskVerdict) -> str:
    """A cell of the verdict table: which arm is compared with which."""
    if verdict.pair is None:
        return ""
    first, second = verdict.rival, verdict.recommended
    if verdict.outcome == "gain":
        first, second = second, first
    return f"{first} minus {second}"


def margin_text(verdict: TaskVerdict) -> str:
    """A cell of the verdict table: the margin on either side of zero."""
    if verdict.pair is None:
        return ""
    return f"\u00b1{number(verdict.margin, verdict.pair)}{margin_share(verdict)}"


def margin_share(verdict: TaskVerdict) -> str:
    """How a margin in the metric's units follows from the one that was set; empty where it is the same."""
    if not verdict.margin_share:
        return ""
    return f" ({100 * verdict.margin_share:g} % of the best score)"
