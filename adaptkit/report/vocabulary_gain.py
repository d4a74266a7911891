"""What a vocabulary of the domain is worth: tokens that it saves, and its part in a gain on text."""

from __future__ import annotations

from adaptkit.study.record import StudyRecord
from adaptkit.study.results import Results
from adaptkit.study.verdict_line import interval_text

EXTENDED, KEPT = "continued-vocabulary", "continued"
"""Arms that differ by the vocabulary alone."""
_WORDS = {
    "win": "so much of it came with the vocabulary",
    "loss": "the new vocabulary cost more than it gave",
    "tie": "no gain by the vocabulary is shown",
}


def vocabulary_saving(record: StudyRecord) -> float | None:
    """Share of tokens that the domain tokenizer saves on domain text; None without both tokenizers."""
    generic, domain = (record.data.tokenizers.get(name) for name in ("generic", "domain"))
    if generic is None or domain is None:
        return None
    return 1 - generic.bytes_per_token / domain.bytes_per_token


def vocabulary_sentence(results: Results) -> str:
    """How much of a gain on text was the vocabulary's; empty where no arm added to it."""
    task = results.language
    if task is None or not all(results.of(task.name, name) for name in (EXTENDED, KEPT)):
        return ""
    replicates = results.replicates(task.name)
    pair = replicates.compare(
        EXTENDED, KEPT, margin=0.0, higher_is_better=False, confidence=results.confidence
    )
    gained = replicates.mean("generic") - replicates.mean(EXTENDED)
    before, after = (_num_tokens(results, task.name, name) for name in (KEPT, EXTENDED))
    return (
        f"{EXTENDED} is {gained:+.3f} bits per byte ahead of the base as it is. To {KEPT}, which differs by "
        f"the vocabulary alone, the difference is {interval_text(pair)}: {_WORDS[pair.outcome]}. "
        f"It reads the test in {1 - after / before:.1%} fewer tokens."
    )


def _num_tokens(results: Results, task: str, arm: str) -> int:
    """Tokens of the test in an arm's vocabulary."""
    return sum(row["num_tokens"] for row in results.of(task, arm)[0].rows)
