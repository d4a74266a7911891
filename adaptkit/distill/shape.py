"""Choose the student's sizes before any weight is read; only shapes that vLLM serves are made."""

from __future__ import annotations

from typing import Any, Literal

from transformers import AutoConfig

from adaptkit import models
from adaptkit.architecture import architecture
from adaptkit.distill.config import FROM_TEACHER, DistillConfig
from adaptkit.distill.depth import copy_config
from adaptkit.errors import ConfigError, ModelError
from adaptkit.models.capabilities import PRUNABLE
from adaptkit.trainer.distillation import REPLACING, Kind

FFN_STEP = 128


def student_shape(config: DistillConfig, teacher: Any, kind: Kind) -> Any:
    """The student's transformers config.

    Raises: ConfigError for more blocks, width or tokens than the teacher has, or a width that its heads do
        not divide.
    """
    settings = config.student
    if settings.start == "fresh":
        return _fresh(config, teacher, kind)
    if settings.start not in FROM_TEACHER:
        return AutoConfig.from_pretrained(models.find(settings.start), local_files_only=True)
    shape = copy_config(teacher)
    shape.num_hidden_layers = settings.layers or max(1, teacher.num_hidden_layers // 2)
    if getattr(shape, "layer_types", None):
        shape.layer_types = shape.layer_types[: shape.num_hidden_layers]
    for name, wanted, most in (
        ("layers", shape.num_hidden_layers, teacher.num_hidden_layers),
        ("width", settings.width, teacher.hidden_size),
        ("vocab_size", settings.vocab_size, teacher.vocab_size),
    ):
        if wanted > most:
            what, fix = f"the teacher has {most:,}, not {wanted:,}", f"ask for at most {most:,}"
            raise ConfigError(what, where=f"student.{name}", fix=fix)
    if settings.width and settings.width != teacher.hidden_size:
        _narrow(shape, settings.width)
    shape.vocab_size = settings.vocab_size or teacher.vocab_size
    return shape


def _fresh(config: DistillConfig, teacher: Any, kind: Kind) -> Any:
    form: Literal["causal", "masked"] = "causal" if kind == "causal" else "masked"
    ids = {name: getattr(teacher, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = architecture(config.size, teacher.vocab_size, kind=form, special_ids=ids)
    shape.id2label, shape.label2id = teacher.id2label, teacher.label2id
    return shape


def _narrow(shape: Any, width: int) -> None:
    """Hidden size, heads and feed-forward in proportion; heads keep their size, and keys their share of
    heads."""
    check_width(width)
    heads, old = shape.num_attention_heads, shape.hidden_size
    size = getattr(shape, "head_dim", None) or old // heads
    groups = getattr(shape, "num_key_value_heads", None) or heads
    unit = size * heads // groups  # of width per key head
    if width % unit:
        fix = f"choose {max(unit, round(width / unit) * unit)}"
        what = f"a width of {width} is no multiple of {unit}, the teacher's heads"
        raise ConfigError(what, where="student.width", fix=fix)
    step = FFN_STEP if shape.intermediate_size * width / old >= FFN_STEP else 32
    shape.intermediate_size = max(step, round(shape.intermediate_size * width / old / step) * step)
    shape.hidden_size, shape.num_attention_heads = width, width // size
    if hasattr(shape, "num_key_value_heads"):
        shape.num_key_value_heads = width // unit


def check_pair(config: DistillConfig, kind: Kind, student: Any, teacher: Any) -> None:
    """Raises: ModelError for a student that no server runs, and for blocks or vectors that do not fit the
    teacher's."""
    check_shape(student.model_type)
    if any(name in config.losses for name in REPLACING):
        _check_replaceable(student, teacher)
    if kind != "encoder" or student.hidden_size == teacher.hidden_size:
        return
    for name in ("cosine", "mse"):
        if name in config.losses:
            ours, theirs = student.hidden_size, teacher.hidden_size
            what = f"the student's vectors have {ours} numbers and the teacher's {theirs}"
            fix = "compare their scores: losses={margin: 1}"
            raise ModelError(f"{what}: {name} compares vectors of one size", where=f"losses.{name}", fix=fix)


def check_shape(shape: str) -> None:
    """Raises: ModelError for a transformers `model_type` that no vLLM server runs."""
    if shape not in PRUNABLE:
        what = f"a student of the shape '{shape}' is not served: only {', '.join(PRUNABLE)} are"
        fix = "use student.start=fresh, which makes a Llama or a ModernBERT"
        raise ModelError(what, where="student", fix=fix)


def check_width(width: int) -> None:
    """Raises: ConfigError unless the width suits tensor cores and groups of int4 weights."""
    step = 32 if width < 256 else 128
    if width % step:
        fix = f"choose {max(step, round(width / step) * step)}"
        raise ConfigError(f"a width of {width} is no multiple of {step}", where="student.width", fix=fix)


def _check_replaceable(own: Any, theirs: Any) -> None:
    """The teacher's blocks must be able to stand in for the student's."""
    if (own.model_type, own.hidden_size) != (theirs.model_type, theirs.hidden_size):
        teachers = f"blocks of a {theirs.model_type} of width {theirs.hidden_size}"
        what = f"{teachers} cannot stand among those of a {own.model_type} of width {own.hidden_size}"
        raise ModelError(what, where="losses.replacing", fix="leave student.width at 0")
    if len(set(getattr(theirs, "layer_types", None) or [""])) > 1:
        what = "the teacher's blocks differ in what they attend to, so they cannot take each other's place"
        raise ModelError(what, where="losses.replacing", fix="use hidden or forward_kl")
