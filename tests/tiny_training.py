"""One-layer models and synthetic sources, so that a whole training run takes a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adaptkit.run import Run
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.objective import CausalLM, Classification, MaskedLM, Objective
from adaptkit.trainer.result import TrainResult
from adaptkit.trainer.row_source import mix
from adaptkit.trainer.trainer import Trainer

VOCAB, MASK, LABELS = 61, 1, 3


class Rows:
    """Ragged rows of a learnable pattern; `kind` says which labels and which noise they get."""

    def __init__(self, kind: str, num: int = 29, longest: int = 14):
        self.kind, self.rows = kind, []
        for index in range(num):
            generator = torch.Generator().manual_seed(index)
            length = int(torch.randint(5, longest + 1, (1,), generator=generator))
            start = int(torch.randint(2, VOCAB, (1,), generator=generator))
            self.rows.append([2 + (start + 3 * i) % (VOCAB - 2) for i in range(length)])

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, index: int) -> str:
        return f"rows.jsonl:{index + 1}"

    def length(self, index: int) -> int:
        return len(self.rows[index])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        length = max(len(self.rows[i]) for i in indices)
        input_ids = torch.zeros(len(indices), length, dtype=torch.int64)
        labels = torch.full_like(input_ids, -100)
        attention_mask = torch.zeros_like(input_ids)
        for place, index in enumerate(indices):
            row = torch.tensor(self.rows[index])
            input_ids[place, : len(row)], attention_mask[place, : len(row)] = row, 1
            if self.kind == "masked":
                noise = torch.rand(len(row), generator=torch.Generator().manual_seed(mix(seed, epoch, index)))
                hidden = noise < max(0.3, float(noise.min()) + 1e-6)
                labels[place, : len(row)] = torch.where(hidden, row, -100)
                input_ids[place, : len(row)] = torch.where(hidden, MASK, row)
            else:
                labels[place, : len(row)] = row
        if self.kind == "classify":
            labels = torch.tensor([self.rows[i][0] % LABELS for i in indices])
        batch = {"input_ids": input_ids, "labels": labels}
        return batch if self.kind == "causal" else {**batch, "attention_mask": attention_mask}


def llama(dropout: float = 0.0, tied: bool = True) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            attention_dropout=dropout,
            tie_word_embeddings=tied,
            use_cache=False,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def bert(dropout: float = 0.0, classify: bool = False) -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=LABELS,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        pad_token_id=0,
    )
    return (BertForSequenceClassification if classify else BertForMaskedLM)(config)


def lora(dropout: float = 0.0) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    model = llama()
    return get_peft_model(
        model, LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM")
    )


def task(name: str, dropout: float = 0.0) -> tuple[nn.Module, Objective, Rows]:
    """Model, objective and data of "pretrain", "lora", "masked" or "classify"."""
    if name == "masked":
        return bert(dropout), MaskedLM(), Rows("masked")
    if name == "classify":
        return bert(dropout, classify=True), Classification(), Rows("classify")
    return (lora if name == "lora" else llama)(dropout), CausalLM(), Rows("causal")


def settings(**changes: Any) -> TrainerConfig:
    values = {
        "num_steps": 6,
        "global_batch_size": 8,
        "learning_rate": 1e-2,
        "log_every": 1,
        "checkpoint_every": 2,
        "threads": 1,
    }
    return TrainerConfig(**{**values, **changes})


def train(
    folder: Path, name: str = "pretrain", *, dropout: float = 0.0, evaluate: bool = False, **changes: Any
) -> TrainResult:
    """A whole run in `folder`; resumes if it was begun before."""
    model, objective, rows = task(name, dropout)
    dev = Rows(rows.kind, num=5) if evaluate else None
    return Trainer(model, objective, rows, settings(**changes), run=Run(folder), eval=dev).fit()


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in Run(folder).metrics() if "loss" in row]
