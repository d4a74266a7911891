"""Tiny models of every architecture that exports are tested with, and finished runs to export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, GPTNeoXConfig, LlamaConfig, ModernBertConfig, Qwen3Config

from adaptkit import models
from adaptkit.adapters import AdapterConfig
from adaptkit.architecture import SizeConfig
from adaptkit.data import DataConfig, train_tokenizer
from adaptkit.export.parity.gate import Check
from adaptkit.export.parity.measure import ParityReport
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.finetune.recipe import finetune
from adaptkit.pretrain.config import PretrainConfig, TokenizerConfig
from adaptkit.pretrain.recipe import pretrain
from adaptkit.run import Run, read_json, write_json
from adaptkit.run_record import SuiteRecord, read_record
from adaptkit.study.data_record import CorpusRecord, DataRecord
from adaptkit.study.record import (
    ArmRecord,
    BaseRecord,
    BudgetRecord,
    ScoreRecord,
    StudyRecord,
    TaskRecord,
    write_study,
)
from adaptkit.study.verdict_record import VERDICT_FILE
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


def check_named(parity: ParityReport, name: str) -> Check:
    """The figure of a gate that has this name, or else the first that has these words in its own."""
    fitting = [check for check in parity.checks if name in check.name]
    return next((check for check in fitting if check.name == name), fitting[0])


def weights(seed: int = 0, rows: int = 64, columns: int = 256) -> torch.Tensor:
    """A random matrix whose rows differ much in size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.linspace(0.01, 3, rows)[:, None]


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Relative name -> content of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


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


DEV = {
    "language": {"generic": 2.71, "continued": 1.93, "scratch": 1.72},
    "mood": {
        "generic+prompt": 0.42,
        "generic+probe": 0.66,
        "generic+lora": 0.74,
        "scratch+full": 0.75,
        "tfidf": 0.60,
    },
}
METRICS = {"language": "bits_per_byte", "mood": "accuracy"}
TITLES = {"language": "bits per byte", "mood": "accuracy on mood"}
LINES = {
    "language": "VERDICT: scratch on bits per byte: -0.210 [-0.240, -0.180] over keeping on with the base "
    "(continued)",
    "mood": "VERDICT: scratch+full on mood: +0.210 [+0.180, +0.240] over the best without pretraining "
    "(generic+lora)",
}
BASELINE = "tfidf"


def _arm(name: str, describe: str) -> ArmRecord:
    origin, _, adaptation = name.partition("+")
    ledger = "jobs" if adaptation else "text"
    return ArmRecord(
        name=name, origin=origin, adaptation=adaptation or None, ledger=ledger, describe=describe
    )


ARMS = (
    _arm("generic", "the base as it is"),
    _arm("continued", "more pretraining on the domain"),
    _arm("scratch", "pretrained on the domain"),
    _arm("generic+prompt", "prompted"),
    _arm("generic+probe", "frozen features"),
    _arm("generic+lora", "low-rank adapters"),
    _arm("scratch+full", "pretrained on the domain, all weights fine-tuned"),
    ArmRecord(name=BASELINE, origin="baseline", ledger="jobs", describe="word counts"),
)
TASKS = (
    TaskRecord(name="language", kind="language", metric="bits_per_byte", higher_is_better=False, margin=0.01),
    TaskRecord(name="mood", kind="classify", metric="accuracy", higher_is_better=True, margin=0.01),
)


UNTRAINED = ("generic", "generic+prompt", "generic+probe", BASELINE)


def study_of(root: Path, notes: Run, mood: Run, outcome: str = "gain") -> Path:
    """A study with made-up scores, behind whose arms stand real models: `notes` in the text ledger, `mood` on
    the task. Seed 1 is better than seed 0."""
    _copied(notes, root / "base", "language", "generic", 0)
    scores = []
    for arm in ARMS:
        task, model = ("language", notes) if arm.ledger == "text" else ("mood", mood)
        for seed in (0, 1):
            run = f"{task}-{arm.name}-{seed}"
            _copied(model, root / run, task, arm.name, seed)
            scores.append(
                ScoreRecord(
                    arm=arm.name,
                    seed=seed,
                    share=1.0,
                    task=task,
                    run=run,
                    suite=task,
                    model_run=None if arm.name in UNTRAINED else run,
                )
            )
    study = Run(root / "study-fake0001")
    study.update_manifest(name="clinical-trials", status="finished")
    splits = {"train": read_record(notes).splits["train"], "test": read_record(notes).splits["dev"]}
    write_study(
        study.path,
        StudyRecord(
            name="clinical-trials",
            question="Fine-tune or pretrain?",
            command="adaptkit compare study.yaml",
            primary="language",
            confidence=0.95,
            arms=ARMS,
            seeds=(0, 1),
            shares=(1.0,),
            tasks=TASKS,
            data=DataRecord(corpora={"domain": CorpusRecord(**splits)}),
            budget=BudgetRecord(
                flops_per_seed=3.1e14,
                text_flops_per_seed=2.48e14,
                unit="flops",
                asked="3.1e14",
                task_share=0.2,
                trials=3,
                held_equal=(),
            ),
            scores=tuple(scores),
            base=BaseRecord(model="made on the spot", run="base"),
        ),
    )
    write_json(study.report / VERDICT_FILE, verdict_of(outcome))
    return study.path


def verdict_of(outcome: str) -> dict[str, Any]:
    """verdict.json of `study_of`, with keys that exports do not read."""
    pair = {"difference": 0.21, "low": 0.18, "high": 0.24, "num_seeds": [2, 2]}
    recommended = {"language": "scratch", "mood": "scratch+full"}
    rivals = {"language": "continued", "mood": "generic+lora"}
    tasks = [
        {
            "task": task,
            "ledger": "text" if task == "language" else "jobs",
            "metric": METRICS[task],
            "title": TITLES[task],
            "outcome": outcome,
            "recommended": recommended[task],
            "settled": outcome == "gain",
            "contenders": [recommended[task]],
            "best": recommended[task],
            "margin": 0.01,
            "pair": pair,
            "rival": rivals[task],
            "line": LINES[task],
        }
        for task in DEV
    ]
    scores = [
        {
            "arm": arm,
            "task": task,
            "metric": METRICS[task],
            "mean": value,
            "low": value - 0.02,
            "high": value + 0.02,
            "num_seeds": 2,
            "num_items": 30,
        }
        for task, arms in DEV.items()
        for arm, value in arms.items()
    ]
    return {
        "line": LINES["language"],
        "exit_code": 0,
        "recommended": "scratch",
        "primary": "language",
        "confidence": 0.95,
        "tasks": tasks,
        "scores": scores,
    }


def edit_verdict(study: Path, task: str, **fields: Any) -> None:
    """Change the verdict on one task."""
    path = Run(study).report / VERDICT_FILE
    verdict = read_json(path)
    next(entry for entry in verdict["tasks"] if entry["task"] == task).update(fields)
    write_json(path, verdict)


def _copied(run: Run, folder: Path, suite: str, arm: str, seed: int) -> None:
    """A run as `run`, which scored what the arm is said to."""
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("export", "checkpoints", "parity.json"))
    better = 0.01 * seed * (-1 if suite == "language" else 1)
    scores = {METRICS[suite]: DEV[suite][arm] + better}
    judged = SuiteRecord(judged_on="test", num_items=30, metrics=scores, dev=scores)
    record = read_record(run).model_copy(update={"suites": {suite: judged}})
    Run(folder).update_manifest(name=folder.name, record=record.model_dump(mode="json"))


def _mood(index: int) -> dict[str, str]:
    label = ("good", "bad")[index % 2]
    who = ("the engine", "one editor", "our patient")[index % 3]
    return {"text": f"{who} {MOODS[label][index % 2]} the report in room {index * 7}.", "label": label}
