"""One process at a time writes a run: a lock that says who holds it and since when.

    hold(run)               # AdaptkitError: already running, pid 4711 on host since 2026-11-26T14:03:00Z
    hold(run, wait=True)    # waits until the other process has ended
    holder(run)             # who holds it now: {"pid": 4711, "host": ..., "since": ...}
    release()               # all that this process holds; one that ends releases by itself

The lock is flock's on `.locks/<run>` beside the run, so that a run can be deleted or moved while it is held.
A process that was killed leaves no lock. Where a shared folder knows no flock, or keeps it to one machine, a
lock whose file was not touched for two minutes counts as left behind: its holder touches it every 20 seconds.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

from adaptkit.disk import leftovers, remove, size_in_words, size_of, writing
from adaptkit.errors import AdaptkitError
from adaptkit.notices import tell
from adaptkit.run import Run

BEAT, LEFT_BEHIND = 20.0, 120.0
"""Seconds between touches of a held lock, and after which an untouched one of another machine is free."""
NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
POLL = 0.5

_held: dict[Path, int] = {}
_beating = threading.Lock()


def lock_path(run: Run) -> Path:
    return run.path.parent.absolute() / ".locks" / run.path.name


def hold(run: Run, *, wait: bool = False) -> None:
    """Take the lock of a run for this process; nothing happens where it has it.

    Raises: AdaptkitError where another process has it and `wait` is not set.
    """
    path = lock_path(run)
    if path in _held:
        return
    with writing(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    while not _take(file, path):
        holder = _holder(path)
        who = f"pid {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        if not wait:
            os.close(file)
            fix = "wait for it, or stop that process: the same command then goes on where it stopped"
            raise AdaptkitError(f"already running, {who}", where=str(run.path), fix=fix)
        tell(f"{run.path.name} is made by {who}: waiting for it")
        time.sleep(POLL)
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(facts).encode(), 0)
    _held[path] = file
    _start_beating()
    _remove_leftovers(run)


def holder(run: Run) -> dict[str, object]:
    """The pid, host and start of the process that holds a run's lock now; empty where none does."""
    path = lock_path(run)
    facts = _holder(path)
    if not facts or path in _held:
        return facts
    if facts.get("host") == socket.gethostname() and not _is_alive_here(path):
        return {}
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return {}
    try:
        return {} if _take(file, path) else facts
    finally:
        os.close(file)


def _remove_leftovers(run: Run) -> None:
    """Delete what killed processes left in a run: whoever holds its lock alone writes there."""
    left = leftovers(run.path)
    if not left:
        return
    num_bytes = sum(map(size_of, left))
    for path in left:
        remove(path)
    if run.manifest_path.exists():
        run.update_manifest(leftovers_removed=run.manifest().get("leftovers_removed", 0) + len(left))
    what = f"{len(left)} leftover{'s' if len(left) > 1 else ''} of a kill, {size_in_words(num_bytes)}"
    tell(f"{run.path.name}: removed {what}")


def release() -> None:
    """Give back every lock of this process."""
    while _held:
        _, file = _held.popitem()
        os.ftruncate(file, 0)  # a lock without a holder's name is free
        os.close(file)


def _take(file: int, path: Path) -> bool:
    """Whether the lock is now this process's."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            return False
        return not _is_alive_here(path) and not _is_touched(path)
    elsewhere = _holder(path).get("host") not in (None, socket.gethostname())
    return not (elsewhere and _is_touched(path))


def _holder(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_alive_here(path: Path) -> bool:
    """Whether the holder is a living process of this machine."""
    holder = _holder(path)
    return holder.get("host") == socket.gethostname() and Path(f"/proc/{holder.get('pid')}").exists()


def _is_touched(path: Path) -> bool:
    """Whether another machine's holder has touched its lock lately, by the clock of the folder's machine."""
    holder = _holder(path)
    if not holder or holder.get("host") == socket.gethostname():
        return False
    probe = path.with_name(f".{path.name}.{os.getpid()}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime < LEFT_BEHIND
    finally:
        probe.unlink(missing_ok=True)


def _start_beating() -> None:
    if _beating.acquire(blocking=False):
        threading.Thread(target=_beat, daemon=True, name="run-lock").start()


def _beat() -> None:
    while True:
        time.sleep(BEAT)
        for file in list(_held.values()):
            try:
                os.utime(file)
            except OSError:  # the folder is gone, or the lock was just given back
                continue


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
