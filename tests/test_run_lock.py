"""Two terminals, one run: the second one is told who holds it; what a killed process held is free."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from adaptkit import run_lock
from adaptkit.errors import AdaptkitError
from adaptkit.run import Run
from adaptkit.run_lock import LEFT_BEHIND, hold, lock_path, release

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def _given_back():
    yield
    release()


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.open(tmp_path / "runs", "study", {"seeds": 3})


def _hold_until_killed(path: Path, ready) -> None:
    hold(Run(path))
    ready.set()
    time.sleep(600)


@pytest.fixture
def other(run):
    """Another process that holds the run."""
    ready = SPAWN.Event()
    process = SPAWN.Process(target=_hold_until_killed, args=(run.path, ready), daemon=True)
    process.start()
    assert ready.wait(120)
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_told_who_holds_the_run(run, other):
    holder = rf"already running, pid {other.pid} on .* since 20\d\d-"
    with pytest.raises(AdaptkitError, match=holder) as caught:
        hold(run)
    assert caught.value.where == str(run.path) and "goes on where it stopped" in str(caught.value.fix)
    hold(Run.open(run.path.parent, "study", {"seeds": 4}))  # another run is free


def test_what_a_killed_process_held_is_free(run, other):
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    hold(run)
    assert json.loads(lock_path(run).read_text())["pid"] == os.getpid()


def test_one_that_waits_says_so_and_gets_it_when_the_other_ends(run, other, capsys):
    threading.Timer(1.0, other.kill).start()
    hold(run, wait=True)
    assert not other.is_alive()
    assert capsys.readouterr().err.count(f"is made by pid {other.pid} on ") == 1


def test_a_process_that_holds_a_run_may_ask_again_and_gives_back(run):
    hold(run)
    hold(run)
    release()
    assert lock_path(run).read_text() == ""
    hold(run)


def test_a_run_may_be_deleted_while_it_is_held(run):
    hold(run)
    assert run.path not in lock_path(run).parents


def _claim(path: Path, host: str, pid: int, age: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"pid": pid, "host": host, "since": "2026-11-26T09:00:00Z"}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_another_machine_that_still_touches_its_lock_holds_it_even_where_flock_knows_nothing_of_it(run):
    _claim(lock_path(run), "elsewhere", 1, age=LEFT_BEHIND / 2)
    with pytest.raises(AdaptkitError, match="pid 1 on elsewhere since"):
        hold(run)
    _claim(lock_path(run), "elsewhere", 1, age=2 * LEFT_BEHIND)
    hold(run)


@pytest.mark.parametrize(("pid", "free"), [("own", False), ("none", True)])
def test_a_folder_without_flock_goes_by_whether_the_holder_lives(run, monkeypatch, pid, free):
    def unsupported(file, how):
        raise OSError(run_lock.errno.ENOLCK, "no locks available")

    monkeypatch.setattr(run_lock.fcntl, "flock", unsupported)
    _claim(lock_path(run), socket.gethostname(), os.getpid() if pid == "own" else 2**22 + 1, age=0)
    if free:
        hold(run)
        return
    with pytest.raises(AdaptkitError, match="already running"):
        hold(run)


def test_a_holder_touches_its_lock(run, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.01)
    monkeypatch.setattr(run_lock, "_beating", threading.Lock())
    hold(run)
    os.utime(lock_path(run), (1, 1))
    for _ in range(500):
        if lock_path(run).stat().st_mtime > 1:
            return
        time.sleep(0.02)
    raise AssertionError("the lock was not touched")
