"""What a model can be wanted for. Loads no torch: configs and kinds of task name uses too."""

from __future__ import annotations

from enum import StrEnum


class Use(StrEnum):
    """What a model is wanted for."""

    CONTINUE = "continue"
    """More pretraining: `pretrain` with a base, and the arms continued, continued-lora, tapt and placebo."""
    EXTEND = "extend"
    """More pretraining with entries added to the vocabulary: the arm continued-vocabulary."""
    PROMPT = "prompt"
    """Labels by their likelihood after a prompt."""
    PROBE = "probe"
    """Frozen features."""
    CLASSIFY = "classify"
    """A classification head."""
    TAG = "tag"
    """A head that labels every token."""
    LABEL_WORDS = "label_words"
    """Fine-tuning to write the label."""
    SFT = "sft"
    """Fine-tuning to write answers."""
    WRITE = "write"
    """Answers written after a prompt, nothing trained."""
    SCORE = "score"
    """Bits per byte of text, which studies measure."""
    EMBED = "embed"
    """An encoder of texts."""
    DISTILL = "distill"
    """A teacher whose own blocks make the student."""
    TEACH = "teach"
    """A teacher of a student made otherwise."""
    EXPORT = "export"
    SERVE = "serve"
