"""The loop: exact resume, averages, schedules, selection, refusals, and what it tells. Home of
trainer.trainer, trainer.config, trainer.device, trainer.optim, trainer.pending, trainer.progress,
trainer.reporters and trainer.row_source."""

from __future__ import annotations

import io
import json
import math
import random
import re
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from tiny_training import VOCAB, Rows, llama, losses, settings, task, train

from adaptkit.doctor.extras import install_command
from adaptkit.errors import CheckpointError, ConfigError, DataError, MissingDependency, NonFiniteError
from adaptkit.run import Run, read_json
from adaptkit.trainer import device, optim, reporters
from adaptkit.trainer.config import TrainerConfig
from adaptkit.trainer.objective import CausalLM, LossOutput
from adaptkit.trainer.pending import Pending
from adaptkit.trainer.progress import Hooks
from adaptkit.trainer.row_source import Order
from adaptkit.trainer.trainer import Trainer

TENSORS = ("model.safetensors", "optimizer.safetensors")


class Stop(Exception):
    """Ends a run from a hook, as a kill would between two steps."""


class StopAfter(Hooks):
    def __init__(self, step: int):
        self.step = step

    def on_step_end(self, row):
        if row["step"] == self.step:
            raise Stop


def interrupted(folder, name, at, evaluate=False, dropout=0.1, **changes):
    model, objective, rows = task(name, dropout)
    dev = Rows(rows.kind, num=5) if evaluate else None
    with pytest.raises(Stop):
        Trainer(
            model, objective, rows, settings(**changes), run=Run(folder), eval=dev, hooks=[StopAfter(at)]
        ).fit()


@pytest.mark.parametrize(
    "name, options",
    [
        (
            "pretrain",
            {"ema_decay": 0.9, "evaluate": True, "eval_every": 2, "select": "best", "microbatch_size": 4},
        ),
        ("lora", {"schedule": "wsd"}),
        ("masked", {"evaluate": True, "eval_every": 1, "gradient_checkpointing": True}),
        ("classify", {"optimizer": "adamw8bit"}),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(name, options, tmp_path):
    whole = train(tmp_path / "whole", name, dropout=0.1, **options)
    interrupted(tmp_path / "cut", name, 5, **options)
    resumed = train(tmp_path / "cut", name, dropout=0.1, **options)
    assert Run(tmp_path / "cut").manifest()["training"]["train"]["resumed_from_step"] == 4
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole") and len(losses(tmp_path / "cut")) == 6
    for file in TENSORS:
        a, b = (tmp_path / run / "checkpoints/step-000006" / file for run in ("whole", "cut"))
        assert a.read_bytes() == b.read_bytes(), file
    same = ("num_steps", "tokens_seen", "items_seen", "flops", "train_loss", "eval_loss", "best_step")
    assert all(getattr(whole, field) == getattr(resumed, field) for field in same)


def test_the_8bit_optimizer_state_is_8bit_and_survives_a_resume(tmp_path):
    """Weights of 4096 entries and more are quantised; the tiny default model has none, so this one is
    wider."""

    def wide(folder, hooks=()):
        model = llama()
        model.resize_token_embeddings(512)
        torch.nn.init.normal_(model.get_input_embeddings().weight, generator=torch.Generator().manual_seed(0))
        config = settings(optimizer="adamw8bit")
        Trainer(model, CausalLM(), Rows("causal"), config, run=Run(folder), hooks=hooks).fit()

    wide(tmp_path / "whole")
    with pytest.raises(Stop):
        wide(tmp_path / "cut", [StopAfter(3)])
    wide(tmp_path / "cut")
    from safetensors.torch import load_file

    files = [tmp_path / run / "checkpoints/step-000006/optimizer.safetensors" for run in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes() and losses(tmp_path / "cut") == losses(
        tmp_path / "whole"
    )
    assert torch.uint8 in {tensor.dtype for tensor in load_file(files[0]).values()}


def test_a_finished_run_is_not_trained_again_and_gives_the_same_model(tmp_path):
    model, objective, rows = task("pretrain")
    first = Trainer(model, objective, rows, settings(), run=Run(tmp_path)).fit()
    again, *_ = task("pretrain")
    second = Trainer(again, objective, rows, settings(), run=Run(tmp_path)).fit()
    assert first == second and len(losses(tmp_path)) == 6
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_checkpoint_of_other_settings_or_another_base_is_refused(tmp_path):
    train(tmp_path, "lora")
    with pytest.raises(CheckpointError, match="trainer settings differ"):
        train(tmp_path, "lora", learning_rate=0.5)
    model, objective, rows = task("lora")
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] += 1
    with pytest.raises(CheckpointError, match="frozen weights differ"):
        Trainer(model, objective, rows, settings(), run=Run(tmp_path)).fit()


def test_settings_that_only_change_the_cost_may_change_on_resume(tmp_path):
    interrupted(tmp_path, "pretrain", 3, dropout=0.0)
    train(tmp_path, microbatch_size=2, log_every=2, keep_checkpoints=1)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_training_leaves_the_callers_random_numbers_alone(tmp_path):
    model, objective, rows = task("pretrain", 0.1)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Trainer(model, objective, rows, settings(), run=Run(tmp_path)).fit()
    assert torch.equal(torch.rand(3), expected)


def test_gradient_checkpointing_changes_no_loss(tmp_path):
    train(tmp_path / "plain", dropout=0.1)
    train(tmp_path / "checkpointed", dropout=0.1, gradient_checkpointing=True)
    assert losses(tmp_path / "checkpointed") == pytest.approx(losses(tmp_path / "plain"), rel=1e-6)


class Poisoned:
    """CausalLM whose loss (or only its gradient) is not finite once row `bad` is in the batch."""

    separable = True

    def __init__(self, bad: list[int], kind: str):
        self.bad, self.kind, self.inner = torch.tensor(bad), kind, CausalLM()

    def prepare(self, batch):
        return batch

    def items(self, batch):
        return self.inner.items(batch)

    def loss(self, model, batch):
        total = self.inner.loss(model, batch).total
        width = min(batch["input_ids"].shape[1], len(self.bad))
        if not (batch["input_ids"][:, :width] == self.bad[:width]).all(1).any():
            return LossOutput(total)
        if self.kind == "gradient":
            return LossOutput(total + (next(model.parameters()).sum() * 0).sqrt())
        return LossOutput(total * float(self.kind))


@pytest.mark.parametrize("kind", ["nan", "inf", "-inf", "gradient"])
def test_a_bad_number_stops_the_run_before_the_update_and_names_the_samples(kind, tmp_path):
    steady = {"schedule": "constant", "warmup_fraction": 0.0, "checkpoint_every": 1, "microbatch_size": 2}
    rows, rng = Rows("causal"), random.Random(kind)
    step = rng.randrange(1, 3)
    index = rng.choice(Order(len(rows), 8, seed=0).step(step)[0])
    model = llama()
    with pytest.raises(NonFiniteError) as caught:
        Trainer(
            model, Poisoned(rows.rows[index], kind), rows, settings(**steady), run=Run(tmp_path / "bad")
        ).fit()
    crash = read_json(Run(tmp_path / "bad").crash_path)
    assert (
        f"step {step + 1}" in caught.value.what
        and crash["step"] == step + 1
        and rows.where(index) in crash["samples"]
    )
    assert len(crash["samples"]) == (8 if kind == "gradient" else 2)
    clean = llama()
    Trainer(
        clean, CausalLM(), rows, settings(**{**steady, "num_steps": step}), run=Run(tmp_path / "clean")
    ).fit()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), clean.parameters(), strict=True))
    assert Run(tmp_path / "bad").metrics()[-1]["step"] == step


@pytest.mark.parametrize("kind", ["nan", "gradient"])
def test_a_step_that_is_looked_at_later_was_not_made_either(kind, tmp_path, monkeypatch):
    """As on a GPU: losses are fetched when a row is logged, and the optimizer itself refuses the bad
    update."""
    add = Pending.add
    monkeypatch.setattr(
        Pending, "add", lambda self, taken: (setattr(self, "deferred", True), add(self, taken))[1]
    )
    steady = {
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "checkpoint_every": 0,
        "log_every": 5,
        "num_steps": 6,
    }
    rows = Rows("causal")
    index = Order(len(rows), 8, seed=0).step(2)[0][0]
    model = llama()
    with pytest.raises(NonFiniteError, match="step 3"):
        Trainer(
            model, Poisoned(rows.rows[index], kind), rows, settings(**steady), run=Run(tmp_path / "bad")
        ).fit()
    assert rows.where(index) in read_json(Run(tmp_path / "bad").crash_path)["samples"]
    assert Run(tmp_path / "bad").metrics() == []
    train(tmp_path / "lagging", **{**steady, "log_every": 4})
    monkeypatch.undo()
    clean = llama()
    Trainer(
        clean, CausalLM(), rows, settings(**{**steady, "num_steps": 2}), run=Run(tmp_path / "clean")
    ).fit()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), clean.parameters(), strict=True))
    train(tmp_path / "prompt", **{**steady, "log_every": 4})
    assert losses(tmp_path / "lagging") == losses(tmp_path / "prompt")


def test_an_evaluation_that_is_not_finite_stops_the_run(tmp_path):
    rows, dev = Rows("causal"), Rows("causal", num=1)
    dev.rows = [[60, 60, 60, 60, 60]]
    with pytest.raises(NonFiniteError, match="evaluation loss is nan at step 6"):
        Trainer(llama(), Poisoned(dev.rows[0], "nan"), rows, settings(), run=Run(tmp_path), eval=dev).fit()


def test_a_step_without_any_label_is_an_error_of_the_data(tmp_path):
    rows = Rows("causal")
    rows.rows = [[5]] * 29
    with pytest.raises(DataError, match="step 1 has no label to learn from"):
        Trainer(llama(), CausalLM(), rows, settings(), run=Run(tmp_path)).fit()


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "linear", "constant"])
def test_schedules_rise_to_the_peak_and_end_at_the_floor(schedule):
    config = TrainerConfig(
        num_steps=100, learning_rate=1.0, schedule=schedule, warmup_fraction=0.1, min_lr_ratio=0.2
    )
    rates = [optim.learning_rate(config, step) for step in range(100)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0 and rates[99] == pytest.approx(1.0 if schedule == "constant" else 0.2)
    assert all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    middle = {"cosine": 0.6, "wsd": 1.0, "linear": 0.6, "constant": 1.0}[schedule]
    assert rates[54] == pytest.approx(middle, abs=0.01)


def test_a_run_of_one_step_takes_it_at_the_peak():
    assert optim.learning_rate(TrainerConfig(num_steps=1, learning_rate=0.5), 0) == 0.5


def test_the_average_is_what_its_formula_says_and_what_the_model_ends_with(tmp_path):
    seen, weights = [], {"w": torch.nn.Parameter(torch.zeros(1))}
    average = optim.WeightAverage(weights, 0.5)
    for step in range(20):
        weights["w"].data.fill_(float(step))
        average.update(weights, step)
        decay = min(0.5, (1 + step) / (10 + step))
        seen.append(decay * (seen[-1] if seen else 0.0) + (1 - decay) * step)
        assert average.values["w"].item() == pytest.approx(seen[-1], rel=1e-5)
    model, objective, rows = task("pretrain")
    Trainer(model, objective, rows, settings(ema_decay=0.9), run=Run(tmp_path)).fit()
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoints/step-000006/average.safetensors")
    last = load_file(tmp_path / "checkpoints/step-000006/model.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, saved[name]) and not torch.equal(weight, last[name])


def test_best_selects_the_weights_of_the_lowest_evaluation(tmp_path):
    """A learning rate so high that the first evaluation stays the best one."""
    options = {
        "learning_rate": 1.0,
        "eval_every": 1,
        "evaluate": True,
        "schedule": "constant",
        "warmup_fraction": 0.0,
    }
    result = train(tmp_path / "best", select="best", **options)
    rows = [row["eval_loss"] for row in result.history]
    assert result.best_step == rows.index(min(rows)) + 1 < 6
    model, objective, train_rows = task("pretrain")
    dev = Rows("causal", num=5)
    del options["evaluate"]
    Trainer(
        model,
        objective,
        train_rows,
        settings(select="best", **options),
        run=Run(tmp_path / "again"),
        eval=dev,
    ).fit()
    batch = dev.collate(list(range(5)), seed=0, epoch=0)
    loss = objective.loss(model, batch).total / objective.items(batch)
    assert loss.item() == pytest.approx(min(rows), rel=1e-6)


def test_the_best_weights_survive_an_interruption(tmp_path):
    """Evaluated on random rows, the model gets worse with every step, so the best one lies before the
    interruption."""
    steep = {
        "learning_rate": 0.1,
        "eval_every": 1,
        "schedule": "constant",
        "warmup_fraction": 0.0,
        "select": "best",
    }
    rng, dev, ended = random.Random(0), Rows("causal", 5), []
    dev.rows = [[rng.randrange(VOCAB) for _ in row] for row in dev.rows]
    for folder, stops in (("whole", [None]), ("cut", [5, None])):
        for stop in stops:
            model, objective, rows = task("pretrain")
            hooks = [StopAfter(stop)] if stop else []
            trainer = Trainer(
                model, objective, rows, settings(**steep), run=Run(tmp_path / folder), eval=dev, hooks=hooks
            )
            with pytest.raises(Stop) if stop else nullcontext():
                assert trainer.fit().best_step < 4  # so it is known only from the checkpoint
        ended.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*ended, strict=True))


def test_evaluation_is_the_mean_over_all_items_whatever_the_batches(tmp_path):
    a = train(tmp_path / "a", "classify", evaluate=True).history[-1]
    b = train(tmp_path / "b", "classify", evaluate=True, microbatch_size=3).history[-1]
    assert (
        a["eval_loss"] == pytest.approx(b["eval_loss"], rel=1e-5) and a["eval_accuracy"] == b["eval_accuracy"]
    )
    assert a["eval_accuracy"] * 5 == pytest.approx(round(a["eval_accuracy"] * 5))


def test_weights_and_norms_are_decayed_as_announced():
    model = llama()
    optimizer = optim.build_optimizer(dict(model.named_parameters()), TrainerConfig(weight_decay=0.3))
    decayed = {
        id(w) for group in optimizer.param_groups if group["weight_decay"] == 0.3 for w in group["params"]
    }
    assert {name for name, w in model.named_parameters() if id(w) not in decayed} == {
        name for name, _ in model.named_parameters() if "norm" in name
    }


def test_the_order_is_a_permutation_per_epoch_and_a_pure_function():
    order = Order(10, 4, seed=3)
    flat = [index for step in range(10) for index in order.step(step)[0]]
    assert all(sorted(flat[start : start + 10]) == list(range(10)) for start in (0, 10, 20, 30))
    assert flat[:10] != flat[10:20]
    assert Order(10, 4, seed=3).step(7) == order.step(7) and Order(10, 4, seed=4).step(7) != order.step(7)
    assert [order.step(step)[1] for step in range(6)] == [0, 0, 0, 1, 1, 2]
    indices, epoch = Order(3, 8, seed=0).step(1)
    assert len(indices) == 8 and epoch == 2 and sorted(indices[1:4]) == [0, 1, 2]


def test_rows_cost_and_manifest_say_what_was_done(tmp_path, capfd):
    result = train(tmp_path, log_every=4, evaluate=True)
    rows = Run(tmp_path).metrics()
    assert [row["step"] for row in rows] == [4, 6, 6] and "eval_loss" in rows[2]
    assert rows[1]["tokens_seen"] == result.tokens_seen > result.items_seen > 0
    cost = result.cost()
    assert cost.keys() == {
        "flops",
        "seconds",
        "tokens",
        "peak_memory_bytes",
        "tokens_per_s",
        "device",
        "threads",
    }
    assert (
        cost["flops"] > 0
        and cost["peak_memory_bytes"] > 1e7
        and cost["tokens_per_s"] == result.tokens_seen / result.seconds
    )
    facts = Run(tmp_path).manifest()["training"]["train"]
    assert facts["implementation"] == "chunked" and facts["threads"] == 1 and facts["precision"] == "float32"
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    assert lines[0]["implementation"] == "chunked" and [row.get("step") for row in lines[1:]] == [4, 6, 6]


def test_hooks_are_called_when_their_documentation_says(tmp_path):
    calls = []

    class Record(Hooks):
        def on_step_end(self, row):
            calls.append(("step", row["step"]))

        def on_eval(self, row):
            calls.append(("eval", row["step"]))

        def on_checkpoint(self, path):
            calls.append(("checkpoint", path.name))

        def on_end(self, result):
            calls.append(("end", result.num_steps))

    model, objective, rows = task("pretrain")
    config = settings(num_steps=3, eval_every=2)
    Trainer(model, objective, rows, config, run=Run(tmp_path), eval=Rows("causal", 3), hooks=[Record()]).fit()
    assert calls == [
        ("step", 1),
        ("step", 2),
        ("eval", 2),
        ("checkpoint", "step-000002"),
        ("step", 3),
        ("eval", 3),
        ("checkpoint", "step-000003"),
        ("end", 3),
    ]


def test_tensorboard_gets_the_rows(tmp_path):
    pytest.importorskip("tensorboard")
    train(tmp_path, num_steps=2, report_to=["tensorboard"])
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(tmp_path))


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb", "mlflow"])
def test_a_tracker_that_is_not_installed_is_named_with_its_install_command(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match="needs") as raised:
        reporters.tracker(name, Run(tmp_path))
    assert raised.value.fix == install_command(name) and f"[{name}]" in install_command(name)


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_trackers_are_called_as_their_packages_want(name, tmp_path, monkeypatch):
    calls = []

    class Package:
        def __getattr__(self, function):
            def call(*args, **kwargs):
                calls.append((function, args, kwargs))
                return self

            return call

    monkeypatch.setitem(sys.modules, name, Package())
    train(tmp_path, num_steps=1, report_to=[name])
    logged = [(args, kwargs) for function, args, kwargs in calls if function in ("log", "log_metrics")]
    assert logged[0][0][0]["loss"] == losses(tmp_path)[0] and logged[0][1] == {"step": 1}
    assert calls[-1][0] in ("finish", "end_run")


def test_bf16_is_refused_where_it_would_be_emulated(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="no bf16 units") as caught:
        device.compute_dtype("bf16", cpu)
    assert "trainer.precision=fp32" in caught.value.fix
    assert device.compute_dtype("auto", cpu) == torch.float32
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: True)
    assert (
        device.compute_dtype("bf16", cpu) == torch.bfloat16
        and device.compute_dtype("auto", cpu) == torch.float32
    )


def test_bf16_trains_close_to_fp32_where_there_are_units(tmp_path):
    if not device.cpu_has_bf16():
        pytest.skip("no bf16 units")
    train(tmp_path / "fp32")
    train(tmp_path / "bf16", precision="bf16")
    assert losses(tmp_path / "bf16") == pytest.approx(losses(tmp_path / "fp32"), rel=0.02)
    assert losses(tmp_path / "bf16") != losses(tmp_path / "fp32")


def test_threads_are_what_is_free_or_what_was_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert device.free_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(device, "_allowed_cores", lambda: 8.0)
    monkeypatch.setattr(device.psutil, "cpu_count", lambda: 8)
    for busy, free in ((0.0, 8), (50.0, 4), (100.0, 1)):
        monkeypatch.setattr(device.psutil, "cpu_percent", lambda interval, busy=busy: busy)
        assert device.free_cores() == free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(device.psutil, "cpu_percent", lambda interval: 0.0)
    assert device.free_cores() == 2


def test_a_resumed_run_keeps_the_thread_count_it_began_with(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    interrupted(tmp_path, "pretrain", 3, dropout=0.0, threads=0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert train(tmp_path, threads=0).threads == 1


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"select": "best"}, "select=best needs evaluation data"),
        ({"parallel": "ddp"}, "trainer.parallel=ddp needs torchrun"),
        ({"parallel": "fsdp"}, "trainer.parallel=fsdp needs torchrun"),
    ],
)
def test_settings_that_do_not_fit_are_refused_at_once(changes, match, tmp_path):
    with pytest.raises(ConfigError, match=match):
        train(tmp_path, **changes)


def test_empty_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no training examples"):
        Trainer(llama(), CausalLM(), Rows("causal", num=0), settings(), run=Run(tmp_path))
    with pytest.raises(DataError, match="no evaluation examples"):
        Trainer(
            llama(), CausalLM(), Rows("causal"), settings(), run=Run(tmp_path), eval=Rows("causal", num=0)
        )


def test_a_microbatch_is_never_larger_than_the_batch():
    with pytest.raises(ValueError, match="microbatch_size 9 is larger than global_batch_size 8"):
        settings(microbatch_size=9)


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(tmp_path):
    train(tmp_path / "free", num_steps=1, grad_clip=0.0)
    train(tmp_path / "clipped", num_steps=1, grad_clip=1e-3)
    free, clipped = (Run(tmp_path / run).metrics()[0]["grad_norm"] for run in ("free", "clipped"))
    assert free == clipped > 1e-3
    from safetensors.torch import load_file

    moments = load_file(tmp_path / "clipped/checkpoints/step-000001/optimizer.safetensors")
    norm = math.sqrt(
        sum((t / (1 - optim.BETA1)).square().sum() for name, t in moments.items() if name.endswith("exp_avg"))
    )
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_terminal_gets_a_bar_with_loss_and_speed(tmp_path, monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    train(tmp_path, num_steps=3, evaluate=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert all(
        words in shown
        for words in ("train: device cpu", "implementation chunked", "tokens/s", "3/3", "step 3: eval loss")
    )
    assert "{" not in shown


@pytest.mark.parametrize("name", ["pretrain", "lora", "masked"])
def test_compile_compiles_each_repeated_block(name, tmp_path, monkeypatch):
    """Which modules; that a compiled run has the same losses was tried by hand (identical to 1e-5, 2 minutes
    on a CPU)."""
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    train(tmp_path, name, num_steps=1, compile=True)
    assert compiled == ["BertLayer" if name == "masked" else "LlamaDecoderLayer"]


def test_4bit_bases_train_and_are_identified_by_their_bytes(tmp_path):
    """QLoRA: the frozen weights are packed integers, the adapter is what is saved."""
    from peft import LoraConfig, get_peft_model
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    plain = llama()
    plain.resize_token_embeddings(64)
    plain.save_pretrained(tmp_path / "base")
    quantised = LlamaForCausalLM.from_pretrained(
        tmp_path / "base",
        device_map="cpu",
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    )
    model = get_peft_model(quantised, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    result = Trainer(
        model, CausalLM(), Rows("causal"), settings(num_steps=20), run=Run(tmp_path / "run")
    ).fit()
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] and result.flops > 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux starts the peak anew")
def test_peak_memory_is_of_this_training_and_not_of_what_came_before():
    """In a young process: of one that has run for long, the system takes back pages meanwhile."""
    program = """
import torch
from adaptkit.trainer import device
cpu, large = torch.device("cpu"), torch.ones(60_000_000)
before = device.peak_memory(cpu)
del large
device.reset_peak_memory(cpu)
after, kept = device.peak_memory(cpu), torch.ones(20_000_000)
print(before - after, device.peak_memory(cpu) - after, kept.nbytes)
"""
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    dropped, grown, held = map(int, told.split())
    assert dropped > 200_000_000 and grown >= held * 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["pretrain", "masked", "classify", "lora"])
def test_a_step_on_a_gpu_waits_for_no_more_than_a_look_at_its_mask(name, tmp_path):
    """transformers asks once per forward pass whether rows are padded or packed; packed attention
    (test_recorded) spares that."""

    def waits(num_steps):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                train(
                    tmp_path / str(num_steps),
                    name,
                    num_steps=num_steps,
                    log_every=num_steps,
                    checkpoint_every=0,
                )
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(warning.message) for warning in caught)

    waits(2)  # compiles kernels
    assert waits(12) <= waits(4) + 8
