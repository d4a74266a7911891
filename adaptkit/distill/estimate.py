"""Estimate what a distillation will make, before anything trains: size, speed, memory and cost of the
student."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig

from adaptkit import models
from adaptkit.adapters import AdapterConfig, attach
from adaptkit.distill import http_teacher
from adaptkit.distill.answer_store import TOP_K, StoreLayout
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.shape import check_pair, check_shape, student_shape
from adaptkit.distill.start import check_losses, loss_weights, teacher_kind
from adaptkit.distill.teacher import StoredTeacher
from adaptkit.trainer.distillation import Distillation, Kind
from adaptkit.trainer.memory import STATE_BYTES, activation_bytes

TEACHER_BYTES = {"online": 4.0, "int8": 1.0, "nf4": 0.55, "offline": 0.0, "text": 0.0}
SERVED_BYTES = 2


def plan(config: DistillConfig) -> dict[str, Any]:
    """Sizes, expected speed-ups and memory of student and teacher; nothing is read but configs.

    `reading` (prompts, texts to classify) is bound by arithmetic: the ratio of FLOPs per token. `writing`,
    one token at a time, is bound by fetching the weights: the ratio of their bytes. The FLOPs are those of
    the training, and of as many tokens where the teacher answers before it.
    Raises: ConfigError or ModelError for a student that cannot be made.
    """
    kind, seq_len = teacher_kind(config), config.size.seq_len
    check_losses(config, kind)
    teacher = None
    if not config.served:
        teacher = AutoConfig.from_pretrained(models.find(config.teacher), local_files_only=True)
    student = student_shape(config, teacher, kind)
    check_shape(student.model_type)
    if teacher is not None:
        check_pair(config, kind, student, teacher)
    own = _measured(student, kind, seq_len, config.adapter)
    theirs, share, faster = None, None, {}
    sizes, facts = {"student": own}, {"student": _facts(student, own)}
    if teacher is not None:
        theirs = sizes["teacher"] = _measured(teacher, kind, seq_len)
        facts["teacher"] = _facts(teacher, theirs)
        share = own["params"] / theirs["params"]
        faster["reading"] = theirs["forward"] / own["forward"]
        if kind == "causal":
            faster["writing"] = theirs["read"] / own["read"]
    tokens = config.trainer.num_steps * config.trainer.global_batch_size * seq_len
    return {
        "kind": kind,
        **facts,
        "trained": int(own["trained"]),
        "share_of_parameters": share,
        "expected_speed_up": faster,
        "serving_bytes": {name: size["params"] * SERVED_BYTES for name, size in sizes.items()},
        "training_bytes": _memory(config, student, own, theirs),
        "flops": tokens * (own["train"] + _beside(config, kind, own, theirs)),
        "stored_bytes_per_token": _stored(config, student.vocab_size),
    }


def _stored(config: DistillConfig, vocab_size: int) -> int:
    """What the teacher's answers take on disk, per token of text."""
    if config.signal != "offline":
        return 0
    most = http_teacher.TOP_K if config.served else TOP_K
    return StoreLayout(0, config.size.seq_len, min(most, vocab_size - 1), vocab_size).bytes_per_token


def _memory(
    config: DistillConfig, student: Any, own: dict[str, float], theirs: dict[str, float] | None
) -> dict[str, float]:
    """Bytes while training."""
    frozen = teacher = 0.0
    if config.adapter.kind != "none":
        frozen = own["params"] * TEACHER_BYTES[config.adapter.quantization or "online"]
    if theirs is not None:
        teacher = theirs["params"] * TEACHER_BYTES[config.signal]
    rows = config.trainer.microbatch_size or config.trainer.global_batch_size
    tokens = rows * config.size.seq_len
    return {
        "student": own["trained"] * STATE_BYTES + frozen,
        "teacher": teacher,
        "activations": activation_bytes(tokens, student.num_hidden_layers, student.hidden_size),
    }


def _beside(
    config: DistillConfig, kind: Kind, own: dict[str, float], theirs: dict[str, float] | None
) -> float:
    """FLOPs per token beside the student's own training step."""
    if theirs is None:
        return 0.0
    if config.signal in ("offline", "text"):
        return theirs["forward"]
    return Distillation(StoredTeacher(), loss_weights(config), kind).extra_flops(
        theirs["forward"], own["forward"], own["train"]
    )


def _measured(shape: Any, kind: Kind, seq_len: int, adapter: AdapterConfig | None = None) -> dict[str, float]:
    with torch.device("meta"):
        model = models.build(shape, kind, seed=0)
        flops, count = models.flops_per_token(model, seq_len), models.param_count(model)
        learns, trained = flops, count.total
        if adapter is not None and adapter.kind != "none":
            if adapter.quantization:  # no 4-bit weights are here
                adapter = adapter.model_copy(update={"kind": "lora"})
            tuned = attach(model, adapter, 0)
            learns, trained = models.flops_per_token(tuned, seq_len), models.param_count(tuned).trainable
    read = count.total
    if not getattr(shape, "tie_word_embeddings", False):
        read -= shape.vocab_size * shape.hidden_size  # the table of embeddings is looked up, not read
    sizes = {"params": count.total, "trained": trained, "read": read}
    return {**sizes, "forward": flops.forward, "train": learns.train}


def _facts(shape: Any, size: dict[str, float]) -> dict[str, Any]:
    """A model's sizes, as far as its config states them: some architectures compute one, or have no heads."""
    names = {
        "layers": "num_hidden_layers",
        "width": "hidden_size",
        "ffn": "intermediate_size",
        "heads": "num_attention_heads",
    }
    sizes = {name: getattr(shape, field) for name, field in names.items() if hasattr(shape, field)}
    return {"shape": shape.model_type, "params": int(size["params"]), **sizes, "vocab_size": shape.vocab_size}
