"""The first Ctrl-C or SIGTERM ends a training after its step, with a checkpoint; the second one at once."""

from __future__ import annotations

import os
import signal
import threading

import pytest
from tiny_training import losses, settings, task, train

from adaptkit.run import Run
from adaptkit.trainer.checkpoint import Checkpoints
from adaptkit.trainer.interruption import Interruption
from adaptkit.trainer.progress import Hooks
from adaptkit.trainer.trainer import Trainer

RARE = {"checkpoint_every": 0}


@pytest.fixture(autouse=True)
def _as_on_a_terminal():
    """Python's own handlers, whatever the shell that started these tests lets its jobs ignore."""
    before = [signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)]
    yield
    signal.signal(signal.SIGINT, before[0])
    signal.signal(signal.SIGTERM, before[1])


class _Signals(Hooks):
    """Sends this process a signal when a step is logged."""

    def __init__(self, number: signal.Signals, step: int):
        self.number, self.step = number, step

    def on_step_end(self, row) -> None:
        if row["step"] == self.step:
            os.kill(os.getpid(), self.number)


def fit(folder, **changes):
    hooks = changes.pop("hooks", ())
    model, objective, rows = task("pretrain")
    return Trainer(model, objective, rows, settings(**RARE, **changes), run=Run(folder), hooks=hooks).fit()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_where_it_stopped(number, tmp_path):
    train(tmp_path / "whole", **RARE)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", hooks=[_Signals(number, step=3)])
    assert signal.getsignal(number) is before
    assert [row["step"] for row in Run(tmp_path / "stopped").metrics() if "loss" in row] == [1, 2, 3, 4]
    fit(tmp_path / "stopped")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


@pytest.mark.parametrize("step", [5, 6], ids=["before the last step", "in it"])
def test_a_signal_at_the_end_is_not_lost(step, tmp_path):
    train(tmp_path / "whole", **RARE)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "stopped", hooks=[_Signals(signal.SIGTERM, step)])
    fit(tmp_path / "stopped")
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")


def test_the_second_signal_is_the_process_own():
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_the_process_ignores_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
        assert not interruption.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_changed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def listen():
        with Interruption():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def saved_steps(monkeypatch) -> list[int]:
    steps: list[int] = []
    save = Checkpoints.save

    def counted(self, step, *rest):
        steps.append(step)
        return save(self, step, *rest)

    monkeypatch.setattr(Checkpoints, "save", counted)
    return steps


@pytest.mark.parametrize(("minutes", "steps"), [(1e-9, [1, 2, 3, 4, 5, 6]), (0, [6]), (10, [6])])
def test_checkpoints_are_written_by_time(minutes, steps, tmp_path, monkeypatch):
    saved = saved_steps(monkeypatch)
    fit(tmp_path, checkpoint_minutes=minutes)
    assert saved == steps
