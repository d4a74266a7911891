"""What a distillation will make, before anything trains: the student's size, its expected speed and memory, and the cost."""

from __future__ import annotations

from typing import Any

import torch

from adaptkit import models
from adaptkit.distill.config import DistillConfig
from adaptkit.distill.prepare import teacher_kind
from adaptkit.distill.shape import student_shape

STATE_BYTES = 16
"""Of each trained parameter: fp32 weight, gradient and two moments."""
ACTIVATION_BYTES = 68
"""Per token, layer and hidden unit without checkpointing, fp32: twice Korthikanti et al. 2022 (arXiv 2205.05198), section 4."""
TEACHER_BYTES = {"online": 4.0, "int8": 1.0, "nf4": 0.55, "offline": 0.0, "text": 0.0}
SERVED_BYTES = 2


def plan(config: DistillConfig) -> dict[str, Any]:
    """Sizes, expected speed-ups and memory of student and teacher; nothing is read but configs.

    `reading` (prompts, texts to classify) is bound by arithmetic: the ratio of FLOPs per token. `writing`, one token at a
    time, is bound by fetching the weights: the ratio of their bytes.
    Raises: ConfigError or ModelError for a student that cannot be made.
    """
    from transformers import AutoConfig

    kind = teacher_kind(config)
    teacher = None
    if not config.served:
        teacher = AutoConfig.from_pretrained(models.find(config.teacher), local_files_only=True)
    student = student_shape(config, teacher, kind)
    sizes = {"student": _measured(student, kind, config.size.seq_len)}
    if teacher is not None:
        sizes["teacher"] = _measured(teacher, kind, config.size.seq_len)
    own, theirs = sizes["student"], sizes.get("teacher")
    faster = {"reading": theirs["forward"] / own["forward"]} if theirs else {}
    if theirs and kind == "causal":
        faster["writing"] = theirs["read"] / own["read"]
    rows = config.trainer.microbatch_size or config.trainer.global_batch_size
    activations = ACTIVATION_BYTES * rows * config.size.seq_len * student.hidden_size * student.num_hidden_layers
    asked = theirs["params"] * TEACHER_BYTES[config.signal] if theirs else 0
    tokens = config.trainer.num_steps * config.trainer.global_batch_size * config.size.seq_len
    spoken = theirs["forward"] if theirs else 0.0
    return {
        "kind": kind,
        "student": _facts(student, own),
        **({"teacher": _facts(teacher, theirs)} if theirs else {}),
        "share_of_parameters": own["params"] / theirs["params"] if theirs else None,
        "expected_speed_up": faster,
        "serving_bytes": {name: size["params"] * SERVED_BYTES for name, size in sizes.items()},
        "training_bytes": {"student": own["params"] * STATE_BYTES, "teacher": asked, "activations": activations},
        "flops": tokens * (own["train"] + spoken),
    }


def _measured(shape: Any, kind: str, seq_len: int) -> dict[str, float]:
    with torch.device("meta"):
        model = models.build(shape, kind, seed=0)
    flops, count = models.flops_per_token(model, seq_len), models.param_count(model)
    table = 0 if getattr(shape, "tie_word_embeddings", False) else shape.vocab_size * shape.hidden_size  # looked up, not read
    return {"params": count.total, "forward": flops.forward, "train": flops.train, "read": count.total - table}


def _facts(shape: Any, size: dict[str, float]) -> dict[str, Any]:
    names = {"layers": "num_hidden_layers", "width": "hidden_size", "ffn": "intermediate_size", "heads": "num_attention_heads"}
    sizes = {name: getattr(shape, field) for name, field in names.items()}
    return {"shape": shape.model_type, "params": int(size["params"]), **sizes, "vocab_size": shape.vocab_size}
