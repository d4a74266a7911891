"""Two terminals, one run: the second one is told who holds it; what a killed process held is free."""

from __future__ import annotations

import contextlib
import fcntl
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
from adaptkit.run_lock import LEFT_BEHIND, hold, holder, is_shared, lock_path, release

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


def _claim(path: Path, host: str, pid: int, age: float, **others: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = run_lock._machine() if host == socket.gethostname() else host
    facts = {"pid": pid, "host": host, "since": "2026-11-26T09:00:00Z", "machine": machine}
    path.write_text(json.dumps({**facts, "born": run_lock._born(pid), **others}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_another_machine_that_still_touches_its_lock_holds_it_even_where_flock_knows_nothing_of_it(run):
    _claim(lock_path(run), "elsewhere", 1, age=LEFT_BEHIND / 2)
    with pytest.raises(AdaptkitError, match="pid 1 on elsewhere since"):
        hold(run)
    _claim(lock_path(run), "elsewhere", 1, age=2 * LEFT_BEHIND)
    hold(run)


def test_two_machines_of_one_name_are_told_apart(run):
    _claim(lock_path(run), socket.gethostname(), os.getpid(), age=0, machine="another start of it")
    with pytest.raises(AdaptkitError, match=f"already running, pid {os.getpid()} on "):
        hold(run)


def _no_flock(file, how):
    raise OSError(run_lock.errno.ENOLCK, "no locks available")


@pytest.mark.parametrize(("holder", "free"), [("own", False), ("none", True), ("later", True)])
def test_a_folder_without_flock_goes_by_whether_the_holder_lives(run, monkeypatch, holder, free):
    """`later`: another process got the number of one that was killed."""
    monkeypatch.setattr(run_lock.fcntl, "flock", _no_flock)
    pid = 2**22 + 1 if holder == "none" else os.getpid()
    others = {"born": "1"} if holder == "later" else {}
    _claim(lock_path(run), socket.gethostname(), pid, age=0, **others)
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


NFS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:52 / FOLDER rw,relatime shared:9 - nfs4 server:/export rw,vers=4.2,local_lock=none
"""


@pytest.fixture
def nfs(tmp_path, monkeypatch) -> Path:
    """The runs' folder as a mount of NFS."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(NFS.replace("FOLDER", str((tmp_path / "runs").resolve())))
    monkeypatch.setattr(run_lock, "MOUNTS", mounts)
    return tmp_path / "runs"


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("nfs", True), ("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("9p", True), ("virtiofs", True),
     ("ext4", False), ("xfs", False), ("overlay", False), ("tmpfs", False)],
)  # fmt: skip
def test_the_file_system_of_a_folder_is_that_of_its_deepest_mount(tmp_path, monkeypatch, kind, shared):
    folder = tmp_path / "my runs"
    (folder / "inner").mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    point = str(folder.resolve()).replace(" ", "\\040")
    mounts.write_text(NFS.replace("nfs4", kind).replace("FOLDER", point))
    monkeypatch.setattr(run_lock, "MOUNTS", mounts)
    assert is_shared(folder / "inner" / "lock") is shared
    assert is_shared(tmp_path / "lock") is False
    monkeypatch.setattr(run_lock, "MOUNTS", tmp_path / "none")
    assert is_shared(tmp_path / "lock"), "who cannot know takes the careful way"


def test_of_two_machines_that_ask_at_once_one_gets_the_lock(nfs, run, monkeypatch):
    """flock is kept to each machine (`local_lock=all`), so that both get it; they meet before they write."""
    both, write = threading.Barrier(2), os.ftruncate

    def meet(file, size):
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)
        write(file, size)

    monkeypatch.setattr(run_lock.fcntl, "flock", lambda file, how: None)
    monkeypatch.setattr(run_lock.os, "ftruncate", meet)
    monkeypatch.setattr(run_lock, "_machine", lambda: threading.current_thread().name)
    path = lock_path(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    files = [os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2)]
    taken: list[bool] = []
    threads = [
        threading.Thread(target=lambda file=file: taken.append(run_lock._claim(file, path))) for file in files
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False, True]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name], "nothing is left"


def test_a_machine_that_was_killed_while_it_decided_stops_nobody(nfs, run):
    turn = lock_path(run).with_name(f".{lock_path(run).name}.deciding")
    turn.parent.mkdir(parents=True, exist_ok=True)
    turn.touch()
    os.utime(turn, (time.time() - 60, time.time() - 60))
    hold(run)
    assert not turn.exists()


def test_who_holds_a_lock_is_on_the_disk_of_the_folders_machine(nfs, run, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr(
        run_lock.os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}"))
    )
    hold(run)
    assert synced == [str(lock_path(run).resolve())]


def test_a_killed_holder_is_not_named_where_a_lock_needs_a_file_that_is_written(nfs, run, monkeypatch):
    """As NFS: flock there is a lock of bytes, which a file opened for reading does not give."""

    def of_bytes(file, how):
        if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(run_lock.errno.EBADF, "bad file descriptor")

    monkeypatch.setattr(run_lock.fcntl, "flock", of_bytes)
    _claim(lock_path(run), "elsewhere", 1, age=2 * LEFT_BEHIND)
    assert holder(run) == {}
    _claim(lock_path(run), "elsewhere", 1, age=0)
    assert holder(run)["host"] == "elsewhere"
