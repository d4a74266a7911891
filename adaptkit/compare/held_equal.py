"""What a study holds equal between its arms, in sentences; each has a test that fails when it is false."""

from __future__ import annotations

from adaptkit.study.budget import Budget
from adaptkit.study.config import StudyConfig


def held_equal(config: StudyConfig, budget: Budget) -> tuple[str, ...]:
    """The sentences that hold for a study."""
    num = budget.settings_tried
    tried = f"{num} settings are tried" if num > 1 else "one setting is tried"
    sentences = [
        f"each arm may spend the same {budget.flops:.3g} FLOPs per task and seed, on text and task together, "
        "its trials and their scoring included; the budget table says what stayed unspent, and why",
        f"{tried} for each arm, around what its own size and kind of training suggest: learning rates where "
        "weights move, prompt formats and regularisations elsewhere",
        "all arms but those of random weights (scratch, mixed) start from the same base",
        f"models learn text in rows of {config.size.seq_len} tokens and are scored in windows of as many",
        "all arms of a ledger answer the same test items, and differences are paired item by item",
        f"each arm is trained with the same {config.seeds} seeds"
        if config.seeds > 1
        else "each arm has one seed",
    ]
    if any(arm.looks_up for arm in config.job_arms):
        sentences.append(
            "arms that look things up search one collection without test text; the FLOPs of longer prompts "
            "and of encoding count, and numbers of passages and retrievers are tried within the same settings"
        )
    if config.tasks:
        lengths = ", ".join(f"{task.max_length} on {task.name}" for task in config.tasks)
        sentences[3] += f"; on tasks all arms read at most the same number of tokens: {lengths}"
    return tuple(sentences)
