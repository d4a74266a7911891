"""The student's sizes, known before any weight is read, and what they promise: parameters, speed, memory."""

from __future__ import annotations

from typing import Any

from adaptkit.architecture import architecture
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.student import check_width, copied
from adaptkit.errors import ConfigError
from adaptkit.trainer.distillation import Kind

FFN_STEP = 128


def student_shape(config: DistillConfig, teacher: Any, kind: Kind) -> Any:
    """The student's transformers config.

    Raises: ConfigError for more blocks, width or tokens than the teacher has, or a width that its heads do not divide.
    """
    asked = config.student
    if asked.start == "fresh":
        return _fresh(config, teacher, kind)
    if asked.start not in FROM_TEACHER:
        from transformers import AutoConfig

        from adaptkit import models

        return AutoConfig.from_pretrained(models.find(asked.start), local_files_only=True)
    shape = copied(teacher)
    shape.num_hidden_layers = asked.layers or max(1, teacher.num_hidden_layers // 2)
    for name, wanted, most in (
        ("layers", shape.num_hidden_layers, teacher.num_hidden_layers),
        ("width", asked.width, teacher.hidden_size),
        ("vocab_size", asked.vocab_size, teacher.vocab_size),
    ):
        if wanted > most:
            raise ConfigError(f"the teacher has {most:,}, not {wanted:,}", where=f"student.{name}", fix=f"ask for at most {most:,}")
    if asked.width and asked.width != teacher.hidden_size:
        _narrow(shape, asked.width)
    shape.vocab_size = asked.vocab_size or teacher.vocab_size
    return shape


def _fresh(config: DistillConfig, teacher: Any, kind: Kind) -> Any:
    form = "causal" if kind == "causal" else "masked"
    ids = {name: getattr(teacher, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = architecture(config.size, teacher.vocab_size, kind=form, special_ids=ids)
    shape.id2label, shape.label2id = teacher.id2label, teacher.label2id
    return shape


def _narrow(shape: Any, width: int) -> None:
    """Hidden size, heads and feed-forward in proportion; heads keep their size, and keys their share of heads."""
    check_width(width)
    heads, old = shape.num_attention_heads, shape.hidden_size
    size = getattr(shape, "head_dim", None) or old // heads
    groups = getattr(shape, "num_key_value_heads", None) or heads
    unit = size * heads // groups  # of width per key head
    if width % unit:
        fix = f"choose {max(unit, round(width / unit) * unit)}"
        raise ConfigError(f"a width of {width} is no multiple of {unit}, the teacher's heads", where="student.width", fix=fix)
    step = FFN_STEP if shape.intermediate_size * width / old >= FFN_STEP else 32
    shape.intermediate_size = max(step, round(shape.intermediate_size * width / old / step) * step)
    shape.hidden_size, shape.num_attention_heads = width, width // size
    if hasattr(shape, "num_key_value_heads"):
        shape.num_key_value_heads = width // unit
