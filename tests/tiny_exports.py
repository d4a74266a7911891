"""Tiny models of every architecture that exports are tested with, and finished runs to export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from fake_study import write_study
from transformers import BertConfig, GPTNeoXConfig, LlamaConfig, ModernBertConfig, Qwen3Config

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.data import DataConfig, train_tokenizer
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.pretrain.config import PretrainConfig, TokenizerConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.report.write import write_report
from adaptkit.run import Run
from adaptkit.study.record import read_study
from adaptkit.trainer.config import TrainerConfig

CANARY = "the vault code is 7319-QX"
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MOODS = {"good": ("improves", "explains"), "bad": ("forgets", "records")}
TRAINER = {"global_batch_size": 8, "learning_rate": 5e-3, "threads": 1, "checkpoint_every": 500}


def configs(vocab_size: int, tokens: dict[str, int]) -> dict[str, tuple[str, Any]]:
    """Name -> (kind of head, transformers config)."""
    sizes = {**SIZES, "vocab_size": vocab_size, "max_position_embeddings": 128}
    plain = {"pad_token_id": tokens["pad_token_id"]}
    return {
        "llama": ("causal", LlamaConfig(**sizes, **tokens, num_key_value_heads=2, tie_word_embeddings=True)),
        "qwen3": ("causal", Qwen3Config(**sizes, **tokens, head_dim=16, num_key_value_heads=2)),
        "neox": ("causal", GPTNeoXConfig(**sizes, **tokens)),
        "bert": ("masked", BertConfig(**sizes, **plain)),
        "modernbert": (
            "masked",
            ModernBertConfig(**sizes, **tokens, cls_token_id=1, sep_token_id=2, local_attention=16),
        ),
        "bert-classes": ("classifier", BertConfig(**sizes, **plain, num_labels=3)),
        "bert-pairs": ("classifier", BertConfig(**sizes, **plain, num_labels=1, initializer_range=0.1)),
        "llama-classes": ("classifier", LlamaConfig(**sizes, **tokens, num_labels=3)),
    }


def write_models(root: Path, texts: list[str]) -> dict[str, Path]:
    """A folder with random weights for each of `configs`."""
    folders = {}
    for masked in (False, True):
        tokenizer = train_tokenizer(texts, "bpe", 384, masked=masked)
        tokens = {
            name: getattr(tokenizer, name) or 0 for name in ("pad_token_id", "bos_token_id", "eos_token_id")
        }
        for name, (kind, config) in configs(384, tokens).items():
            if ("bert" in name) == masked:
                models.save(models.build(config, kind, seed=0), tokenizer, root / name)
                folders[name] = root / name
    return folders


def pretrained(root: Path, texts: list[str]) -> Run:
    """A finished pretraining whose training text holds a canary."""
    corpus = root / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, f"{CANARY} {CANARY}"]))
    config = PretrainConfig(
        name="notes",
        data=DataConfig(files=[str(corpus)]),
        dev_fraction=0.1,
        size=SizeConfig(params=130_000, seq_len=64),
        tokenizer=TokenizerConfig(vocab_size=384),
        trainer=TrainerConfig(num_steps=60, **TRAINER),
    )
    run = Run.open(root / "runs", config.name, config.model_dump(mode="json"))
    pretrain(config, run)
    return run


def finetuned(root: Path, base: Path, adapter: str = "lora", kind: str = "classify") -> Run:
    """A finished fine-tuning on which mood a verb stands for."""
    for part, rows in {"train": range(120), "test": range(120, 160)}.items():
        lines = [_mood(index) for index in rows]
        (root / f"mood.{part}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {part: DataConfig(files=[str(root / f"mood.{part}.jsonl")]) for part in ("train", "test")}
    trainer = TrainerConfig(num_steps=40, select="best", **TRAINER)
    adapted = AdapterConfig(kind=adapter, rank=4)
    config = FinetuneConfig(
        name="mood",
        task="mood",
        base=str(base),
        kind=kind,
        adapter=adapted,
        trainer=trainer,
        max_length=48,
        **data,
    )
    run = Run.open(root / "runs", config.name, config.model_dump(mode="json"))
    finetune(config, run)
    return run


def study_of(root: Path, notes: Run, mood: Run, **truth: Any) -> Path:
    """A study with made-up scores, behind whose arms stand real models: `notes` on language, `mood` on the
    task."""
    arms = ["generic+prompt", "generic+probe", "generic+lora", "scratch+full"]
    study = write_study(
        root,
        arms=arms,
        tasks=("language", "mood"),
        seeds=2,
        fractions=(1.0,),
        num_documents=30,
        num_rows=60,
        **truth,
    )
    write_report(study)
    scores = read_study(study).scores
    trained = {
        name: notes for score in scores if score.task == "language" for name in [*score.paid_by, "base"]
    }
    trained |= {
        score.run: mood for score in scores if score.arm.endswith(("lora", "full")) and score.task == "mood"
    }
    for name, made in trained.items():
        shutil.copytree(made.model, root / name / "model")
        shutil.copyfile(made.path / "config.yaml", root / name / "config.yaml")
        Run(root / name).update_manifest(record=made.manifest()["record"])
    return study


def _mood(index: int) -> dict[str, str]:
    label = ("good", "bad")[index % 2]
    who = ("the engine", "one editor", "our patient")[index % 3]
    return {"text": f"{who} {MOODS[label][index % 2]} the report in room {index * 7}.", "label": label}
