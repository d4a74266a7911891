"""Tiny teachers, briefly trained, and the files to distil them on: a causal Llama, a BERT classifier, a BERT
encoder."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from tiny_study import DOES, WHAT, WHO, _sentence

from adaptkit import models
from adaptkit.data.readers import DataConfig
from adaptkit.data.tokenizers import CHAT_TEMPLATE, train_tokenizer
from adaptkit.distill.config import DistillConfig
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.pretrain.config import PretrainConfig, TokenizerConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run
from adaptkit.trainer.config import TrainerConfig

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
SEQ_LEN = 32
TRAINER = {
    "num_steps": 6,
    "global_batch_size": 8,
    "threads": 1,
    "log_every": 1,
    "learning_rate": 2e-3,
    "checkpoint_every": 2,
}
VERBS = {"good": ("improves", "explains"), "bad": ("forgets", "records")}


def write_files(folder: Path) -> None:
    """text.jsonl, and moods.jsonl with a label that a verb decides."""
    rng = random.Random(0)
    texts = [" ".join(_sentence(rng, DOES) for _ in range(rng.randint(2, 6))) for _ in range(120)]
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    labels = [rng.choice(sorted(VERBS)) for _ in range(160)]
    rows = [{"text": _sentence(rng, VERBS[label]), "label": label} for label in labels]
    (folder / "moods.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def files(folder: Path, name: str) -> DataConfig:
    return DataConfig(files=[str(folder / f"{name}.jsonl")])


def causal_teacher(folder: Path) -> Path:
    """A Llama of 4 blocks after 30 steps."""
    tokenizer = train_tokenizer(_texts(folder), "bpe", 384, chat_template=CHAT_TEMPLATE)
    from transformers import LlamaConfig

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    shape = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, tie_word_embeddings=True, **SHAPE, **ids
    )
    models.save(models.build(shape, "causal", seed=0), tokenizer, folder / "llama-start")
    trainer = TrainerConfig(**{**TRAINER, "num_steps": 30, "learning_rate": 5e-3})
    config = PretrainConfig(
        data=files(folder, "text"),
        base=str(folder / "llama-start"),
        size={"seq_len": SEQ_LEN},
        tokenizer=TokenizerConfig(),
        trainer=trainer,
    )
    return pretrain(config, Run(folder / "llama")).model_folder


def classifier_teacher(folder: Path) -> Path:
    """A BERT of 4 blocks that tells moods apart."""
    from transformers import BertConfig

    tokenizer = train_tokenizer(_texts(folder), "wordpiece", 384)
    shape = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id, **SHAPE
    )
    models.save(models.build(shape, "encoder", seed=0), tokenizer, folder / "bert-start")
    trainer = TrainerConfig(**{**TRAINER, "num_steps": 60, "learning_rate": 1e-3, "global_batch_size": 16})
    config = FinetuneConfig(
        base=str(folder / "bert-start"), train=files(folder, "moods"), max_length=SEQ_LEN, trainer=trainer
    )
    return finetune(config, Run(folder / "bert")).model_folder


def config(
    folder: Path, teacher: Path | str, trainer: dict[str, Any] | None = None, **fields: Any
) -> DistillConfig:
    """A short distillation; `data` is told by the teacher's kind."""
    served = str(teacher).startswith("http")
    rows = "moods" if not served and models.model_kind(teacher) == "classifier" else "text"
    base = {
        "data": files(folder, rows),
        "size": {"seq_len": SEQ_LEN},
        "trainer": {**TRAINER, **(trainer or {})},
    }
    return DistillConfig.model_validate({"teacher": str(teacher), **base, **fields})


@cache
def _texts(folder: Path) -> list[str]:
    rows = [
        json.loads(line)
        for name in ("text", "moods")
        for line in (folder / f"{name}.jsonl").read_text().splitlines()
    ]
    words = [f"{a} {b} {c}" for a in WHO for b in DOES for c in WHAT[:2]]
    return [row["text"] for row in rows] + words
