"""What the words of the report mean: each stands beside a section that uses it, and all at the end."""

from __future__ import annotations

from collections.abc import Sequence

GLOSSARY = {
    "arm": "One way that was tried: where a model's weights start from, and how it learns the task.",
    "seed": "One repetition of a training with other random numbers. Several show how much of a score "
    "is luck.",
    "interval": "The range in which the true value lies with the stated confidence, given that other "
    "seeds and other test items might have been drawn. Made by drawing both again, many times.",
    "margin": "The smallest difference worth acting on, set before the study.",
    "contender": "An arm that no other beats by more than the margin. The intervals behind this hold "
    "together: with the stated confidence the truly best arm is a contender, however many arms there "
    "are.",
    "standing": "Recommended: the contender that is easiest or cheapest to own. Behind: no contender.",
    "bits per byte": "How many bits a model needs, on average, to predict one byte of text that it "
    "has not seen. Lower is better. It does not depend on how a model cuts text into tokens.",
    "FLOPs": "Arithmetic operations of a training: the same on any machine, unlike time.",
    "word counts": "A baseline that counts words and uses no language model (tfidf; bm25 for search).",
    "generic": "The generic model, called the base, as it came.",
    "continued": "The base after more pretraining on your text; continued-lora: with adapters only; "
    "continued-vocabulary: with words of your text added to its vocabulary.",
    "scratch": "A model of random weights, pretrained on your text alone.",
    "mixed": "A model of random weights, pretrained on general text with yours mixed in from the start.",
    "tapt": "The base after more pretraining on the text of the task's own rows, labels left out.",
    "distilled": "A small model, taught by a larger one.",
    "placebo": "The base trained further on general text with the same effort. What it gains comes "
    "from training, not from your text.",
    "adaptation": "How a task is learnt. prompt: asked, nothing trained; rag: asked, with passages "
    "looked up; probe: a simple rule on the model's features; lora, qlora: small adapters; full: all "
    "weights.",
    "forgotten": "How much worse a model got on general text while it learnt yours.",
    "calibration error": "How far a stated confidence is from being right that often (ECE); 0 is honest.",
    "temperature": "The number that a classifier's log-probabilities are divided by, so that what it "
    "calls 90 % sure is right nine times in ten. Above 1 it was too sure. The order of the labels stays.",
    "power law": "The curve by which quality usually grows with the amount of text; drawn where measured.",
}


def terms(names: Sequence[str]) -> list[tuple[str, str]]:
    """Words with what they mean, in the order given."""
    return [(name, GLOSSARY[name]) for name in names]


def terms_of(origins: Sequence[str]) -> list[tuple[str, str]]:
    """The words for these origins, each once."""
    named = ("word counts" if origin == "baseline" else origin for origin in origins)
    return terms([name for name in dict.fromkeys(named) if name in GLOSSARY])
