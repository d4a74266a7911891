"""SIGKILL at random moments of a distillation: it resumes and ends bit-identical to one never killed.

As test_kill.py, for what is particular here: a frozen teacher that no checkpoint holds, projections that are
trained and thrown away, blocks replaced by a curriculum that depends on the step, and text that the student
samples itself.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch
from soak import count, soaked
from test_kill import counted_saves, in_fork, kill_from_outside, kill_inside_save, outcome, wait
from tiny_training import Rows, settings
from torch import nn

from adaptkit.distill.depth import copy_blocks
from adaptkit.distill.student import add_projections
from adaptkit.distill.teacher import OnlineTeacher
from adaptkit.run import Run
from adaptkit.trainer.distillation import Distillation, Layout
from adaptkit.trainer.trainer import Trainer

KILLS = soaked(5, 17)
LOSSES = {
    "projected": {"jsd": 0.7, "cross_entropy": 0.3, "hidden": 1.0},
    "replacing": {"replacing": 1.0},
    "on_policy": {"on_policy": 1.0},
}
TRAINED = {"num_steps": 12, "checkpoint_every": 3, "eval_every": 4, "microbatch_size": 4}


def llama(layers: int, width: int, seed: int) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        use_cache=False,
        attention_dropout=0.1,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def pair(name: str) -> tuple[nn.Module, Distillation]:
    teacher = llama(2, 16, 0)
    if name == "projected":
        student = llama(1, 8, 1)
        add_projections(student, 16, 1)
    else:
        student = copy_blocks(teacher, "causal", [1], seed=0)
    return student, Distillation(OnlineTeacher(teacher, "causal"), LOSSES[name], "causal", Layout.even(1, 2))


def distilled(folder: Path, name: str) -> None:
    """A whole run in `folder`; resumes if it was begun before."""
    student, objective = pair(name)
    Trainer(
        student, objective, Rows("causal"), settings(**TRAINED), run=Run(folder), eval=Rows("causal", num=5)
    ).fit()


@pytest.mark.parametrize("name", LOSSES)
def test_every_killed_distillation_resumes_bit_identical(name, tmp_path, monkeypatch):
    monkeypatch.setattr("test_kill.train", lambda folder, name: distilled(folder, name))
    rng, calls = random.Random(name), tmp_path / "calls"
    student, objective = pair(name)
    objective.loss(student, Rows("causal").collate([0, 1], seed=0, epoch=0))  # imports what forks should find

    def reference() -> None:
        counted_saves(-1, lambda events: calls.write_text(str(events)))
        distilled(tmp_path / "reference", name)

    started = time.monotonic()
    assert wait(in_fork(reference)) == 0
    duration = time.monotonic() - started
    expected = outcome(tmp_path / "reference")
    assert len(expected["rows"]) == 12 + 3
    resumed_from = []
    for trial in range(KILLS):
        folder = tmp_path / f"{trial}"
        if trial % 2:
            kill_inside_save(folder, name, {}, rng.randrange(1, int(calls.read_text())))
        else:
            kill_from_outside(folder, name, {}, rng.random() * duration)
        assert wait(in_fork(lambda folder=folder: distilled(folder, name))) == 0, (
            f"trial {trial} did not resume"
        )
        assert outcome(folder) == expected, f"trial {trial} differs"
        resumed_from.append(Run(folder).manifest()["training"]["train"]["resumed_from_step"])
    count(f"kills of a {name} distillation, resumed bit for bit", KILLS)
    assert any(resumed_from), "no kill came after a checkpoint"
