"""One process at a time writes a run: a lock that says who holds it and since when.

    hold(run)               # AdaptkitError: already running, pid 4711 on host since 2026-11-26T14:03:00Z
    hold(run, wait=True)    # waits until the other process has ended
    holder(run)             # who holds it now: {"pid": 4711, "host": ..., "since": ...}
    release()               # all that this process holds; one that ends releases by itself

The lock is flock's on `.locks/<run>` beside the run, so that a run can be deleted or moved while it is held.
A process that was killed leaves no lock.

A shared folder (NFS, SMB, ...) may know no flock, or keep it to one machine. So the file says which machine
holds it, and the holder touches it every 20 seconds: one of another machine that was not touched for two
minutes counts as left behind, by the clock of the folder's server. Two machines that ask at once decide one
after the other, by a file that only one of them can create.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from adaptkit.disk import leftovers, remove, size_in_words, size_of, writing
from adaptkit.errors import AdaptkitError
from adaptkit.notices import tell
from adaptkit.run import Run

BEAT, LEFT_BEHIND = 20.0, 120.0
"""Seconds between touches of a held lock, and after which an untouched one of another machine is free."""
NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
POLL = 0.5
DECIDING = 10.0
"""Seconds after which a machine that was deciding who gets a lock counts as gone."""
MOUNTS = Path("/proc/self/mountinfo")
SHARED = re.compile(
    r"nfs4?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2|virtiofs|fuse(\..*)?"
)
"""Types of file systems that other machines may write to as well."""

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
    while not _claim(file, path):
        holder = _holder(path)
        who = f"pid {holder.get('pid')} on {holder.get('host')} since {holder.get('since')}"
        if not wait:
            os.close(file)
            fix = "wait for it, or stop that process: the same command then goes on where it stopped"
            raise AdaptkitError(f"already running, {who}", where=str(run.path), fix=fix)
        tell(f"{run.path.name} is made by {who}: waiting for it")
        time.sleep(POLL)
    _held[path] = file
    _start_beating()
    _remove_leftovers(run)


def holder(run: Run) -> dict[str, object]:
    """The pid, host and start of the process that holds a run's lock now; empty where none does."""
    path = lock_path(run)
    facts = _holder(path)
    if not facts or path in _held:
        return facts
    if _is_of_here(facts) and not _is_alive(facts):
        return {}
    try:
        file = os.open(path, os.O_RDWR)  # NFS gives no lock on a file that is opened for reading
    except OSError:
        return facts if _is_touched(path, facts) or _is_alive(facts) else {}
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


def _claim(file: int, path: Path) -> bool:
    """Take the lock and write who holds it, where it is free."""
    with _deciding(path):
        if not _take(file, path):
            return False
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        facts |= {"machine": _machine(), "born": _born(os.getpid())}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(facts).encode(), 0)
        os.fsync(file)  # or another machine would not see it for half a minute
    return True


def _take(file: int, path: Path) -> bool:
    """Whether nobody else has the lock; flock's is then this process's."""
    holder = _holder(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            return False
        return not _is_alive(holder) and not _is_touched(path, holder)
    if _is_touched(path, _holder(path)):
        fcntl.flock(file, fcntl.LOCK_UN)
        return False
    return True


@contextlib.contextmanager
def _deciding(path: Path) -> Iterator[None]:
    """Let machines that share the folder decide one after the other; nothing on a file system of one machine.

    Creating a file that must not exist is one step on every file system, NFS too.
    """
    if not is_shared(path):
        yield
        return
    turn = path.with_name(f".{path.name}.deciding")
    while True:
        try:
            os.close(os.open(turn, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            break
        except FileExistsError:
            if _age(turn) > DECIDING:
                turn.unlink(missing_ok=True)
            time.sleep(POLL / 10)
    try:
        yield
    finally:
        turn.unlink(missing_ok=True)


def is_shared(path: Path) -> bool:
    """Whether other machines may write where a path lies; so is what no list of mounts names."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return True
    best, kind = -1, "nfs"
    where = path.parent.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        if (where == point or point in where.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return SHARED.fullmatch(kind) is not None


def _holder(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


@cache
def _machine() -> str:
    """This start of this machine, and where its process numbers count (a container has its own)."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return " ".join(parts)


def _born(pid: object) -> str:
    """When a process began, in ticks of this machine: a later one may have its number. Empty where there is
    none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_of_here(holder: dict[str, object]) -> bool:
    """Whether a holder's process number means something here."""
    return holder.get("machine") == _machine()


def _is_alive(holder: dict[str, object]) -> bool:
    """Whether the holder is a living process of this machine."""
    born = _born(holder.get("pid"))
    return _is_of_here(holder) and bool(born) and holder.get("born") == born


def _is_touched(path: Path, holder: dict[str, object]) -> bool:
    """Whether another machine's holder has touched its lock lately."""
    return bool(holder) and not _is_of_here(holder) and _age(path) < LEFT_BEHIND


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of the folder's machine."""
    probe = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
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
