"""SIGKILL at random moments, half of them inside a save: every run resumes and ends bit-identical to one
never killed.

Each run is a fork of this process, so that a trial costs a fraction of a second. Half of the kills come from
outside at a random time; half come at a random function call (Python or C: write, sha256, fsync, rename,
unlink, ...) inside `Checkpoints.save`. What is compared: every logged loss, gradient norm, learning rate and
evaluation, and the sha256 of the last checkpoint's weights, optimizer and averages. A kill proves process
death, not power loss: the page cache survives it; the order of fsyncs is tested in test_checkpoint.py.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from soak import count, soaked
from tiny_training import settings, task, train

from adaptkit.run import Run, read_json
from adaptkit.trainer.checkpoint import Checkpoints
from adaptkit.trainer.evaluation import evaluate
from adaptkit.trainer.objective import LossModule
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.state import State

KILLS = soaked(20, 67)
SHARED = {
    "num_steps": 12,
    "checkpoint_every": 3,
    "eval_every": 4,
    "microbatch_size": 4,
    "evaluate": True,
    "dropout": 0.1,
}
BASIC = {"model.safetensors", "optimizer.safetensors"}
GROUPS = {"pretrain": BASIC | {"average.safetensors", "best.safetensors"}, "lora": BASIC, "masked": BASIC}
TASKS = {"pretrain": {"ema_decay": 0.9, "select": "best"}, "lora": {}, "masked": {}}


def warm_up(name: str) -> None:
    """Import all that a run imports on the way, so that forks find it; no backward pass, whose threads forks
    would lack."""
    model, objective, rows = task(name)
    State(model, settings(), Ranks())
    evaluate(LossModule(model, objective, torch.float32), objective, rows, Ranks(), batch_size=8)


def in_fork(work: Callable[[], object]) -> int:
    """Start `work` in a forked child with its output thrown away; returns the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        work()
        os._exit(0)
    except BaseException:
        os._exit(70)


def wait(pid: int) -> int:
    """Exit status of a child: 0, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counted_saves(at: int, reached: Callable[[int], None]) -> None:
    """Make saves count their function calls; kill this process at call number `at`, or report the count of
    each save."""
    save, events = Checkpoints.save, 0

    def watched(*args, **kwargs):
        def count(frame, event, argument):
            nonlocal events
            events += 1
            if events == at:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            return save(*args, **kwargs)
        finally:
            sys.setprofile(None)
            reached(events)

    Checkpoints.save = watched


def outcome(folder: Path) -> dict:
    """Everything that must be equal, bit for bit."""
    timing = ("seconds", "tokens_per_s")
    rows = [{key: value for key, value in row.items() if key not in timing} for row in Run(folder).metrics()]
    last = read_json(folder / "checkpoints/step-000012/MANIFEST.json")["files"]
    tensors = {name: entry["sha256"] for name, entry in last.items() if name.endswith(".safetensors")}
    return {"rows": rows, "tensors": tensors}


@pytest.mark.parametrize("name", TASKS)
def test_every_killed_run_resumes_bit_identical(name, tmp_path):
    options = {**SHARED, **TASKS[name]}
    rng = random.Random(name)
    calls = tmp_path / "calls"
    warm_up(name)

    def reference() -> None:
        counted_saves(-1, lambda events: calls.write_text(str(events)))
        train(tmp_path / "reference", name, **options)

    started = time.monotonic()
    assert wait(in_fork(reference)) == 0
    duration = time.monotonic() - started
    expected = outcome(tmp_path / "reference")
    assert len(expected["rows"]) == 12 + 3 and set(expected["tensors"]) == GROUPS[name]

    resumed_from = []
    for trial in range(KILLS):
        folder = tmp_path / f"{trial}"
        if trial % 2:
            at = rng.randrange(1, int(calls.read_text()))
            kill_inside_save(folder, name, options, at)
        else:
            kill_from_outside(folder, name, options, rng.random() * duration)
        assert wait(in_fork(lambda folder=folder: train(folder, name, **options))) == 0, (
            f"trial {trial} did not resume"
        )
        assert outcome(folder) == expected, f"trial {trial} differs"
        resumed_from.append(Run(folder).manifest()["training"]["train"]["resumed_from_step"])
    count(f"kills of a {name} training, resumed bit for bit", KILLS)
    assert sum(step > 0 for step in resumed_from) >= KILLS / 3, (
        f"too few kills came after a checkpoint: {resumed_from}"
    )


def kill_inside_save(folder: Path, name: str, options: dict, at: int) -> None:
    def work() -> None:
        counted_saves(at, lambda events: None)
        train(folder, name, **options)

    assert wait(in_fork(work)) == -signal.SIGKILL


def kill_from_outside(folder: Path, name: str, options: dict, delay: float) -> None:
    """SIGKILL after `delay` seconds, sooner if the run turned out to be faster than that."""
    pid = in_fork(lambda: train(folder, name, **options))
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
