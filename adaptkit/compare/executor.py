"""Run the stages of a plan: each in a process of its own, as soon as what it needs is done.

A stage's result is a JSON file; a stage whose file exists is finished and is not run again, so the same
command after a kill goes on where it stopped. Processes are forked from a server that has imported torch and
transformers once, so a stage starts at once, its peak memory is its own, and a stage killed for memory does
not take the study with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, NoReturn, Protocol

from adaptkit import errors
from adaptkit.compare.ranks import end_with_parent, run_by_ranks
from adaptkit.compare.ray_pool import cluster
from adaptkit.compare.stage import Stage, Worker
from adaptkit.compare.workspace import error_path, log_path, result_path
from adaptkit.disk import match_folder
from adaptkit.doctor.processor import signal_name
from adaptkit.errors import AdaptkitError
from adaptkit.run import read_json
from adaptkit.study.stage_record import StageKey
from adaptkit.trainer.device import free_cores, visible_gpus

PRELOAD = [
    "adaptkit",  # first: what it keeps other packages from saying, they say as they are imported
    "transformers.models.llama.modeling_llama",
    "peft",
    "sklearn.linear_model",
    "adaptkit.models.store",
    "adaptkit.trainer.trainer",
    "adaptkit.pretrain.starting_point",
    "adaptkit.finetune.tasks",
]
"""What the server imports once for all stages."""

SERVER_GONE = 255
"""Exit code that multiprocessing gives a process whose fork server has died, and with it the real code."""


class Watcher(Protocol):
    """Told what happens, to show it."""

    def started(self, stage: Stage) -> None: ...
    def finished(self, stage: Stage, seconds: float) -> None: ...


class StageFailed(AdaptkitError):
    """A stage stopped for a reason that is not the user's config or data."""


class Pool(Protocol):
    """Where stages run."""

    def has_room(self, stage: Stage) -> bool:
        """Whether a stage may start now."""
        ...

    def start(self, stage: Stage) -> None: ...
    def wait(self) -> list[StageKey]:
        """Block until a stage ends; those that ended."""
        ...

    def exit_code(self, key: StageKey) -> int | None:
        """Of a stage that ended: negative for a signal; None where nobody knows."""
        ...


def execute(
    study: Path, stages: list[Stage], *, worker: Worker, executor: str, jobs: int, watcher: Watcher
) -> None:
    """Run all stages that have no result yet.

    Args:
        worker: runs one stage; a function that another process can import.
        executor: `local` for processes on this machine, `ray` for tasks on a Ray cluster that sees the same
            folder.
        jobs: processes at once (local).
    Raises: the AdaptkitError of the first stage that fails, once the stages already running have ended.
    """
    waiting = {stage.key: stage for stage in stages if not result_path(study, stage.key).exists()}
    if not waiting:
        return
    with _local(study, worker, jobs) if executor == "local" else cluster(study, worker) as pool:
        running: dict[StageKey, float] = {}
        while waiting or running:
            for stage in ready(waiting, running):
                if not pool.has_room(stage):
                    break  # smaller ones wait too, or a large one would never start
                pool.start(stage)
                running[stage.key] = time.monotonic()
                watcher.started(stage)
            for key in pool.wait():
                stage = waiting.pop(key)
                if not result_path(study, key).exists():
                    raise_failure(study, stage, pool.exit_code(key))
                watcher.finished(stage, time.monotonic() - running.pop(key))


def ready(waiting: dict[StageKey, Stage], running: dict[StageKey, float]) -> list[Stage]:
    """The stages that may start: not running, and nothing that they need is still to be done.

    Raises: StageFailed where stages wait for each other.
    """
    able = [
        stage
        for stage in waiting.values()
        if stage.key not in running and not any(need in waiting for need in stage.needs)
    ]
    if not able and not running:
        names = ", ".join(sorted(stage.name for stage in waiting.values()))
        raise StageFailed(f"stages wait for each other: {names}", fix="please report this plan")
    return able


def raise_failure(study: Path, stage: Stage, code: int | None = None) -> NoReturn:
    """Raise the error that a stage left, or say how it ended without a word."""
    log, left = log_path(study, stage.key), error_path(study, stage.key)
    if not left.exists():
        how, fix = _ending(code)
        raise StageFailed(f"stage '{stage.name}' {how}", where=str(log), fix=fix)
    error = read_json(left)
    left.unlink()  # the next try must not meet the old error
    kind = getattr(errors, error["kind"], StageFailed)
    fix = error["fix"] or f"see {log}; the same command resumes"
    raise kind(f"stage '{stage.name}': {error['what']}", where=error["where"], fix=fix)


def _ending(code: int | None) -> tuple[str, str]:
    """How a stage ended that left no word, and what to do."""
    again = "the same command resumes"
    if code == SERVER_GONE:
        return "was lost: the process that starts and watches the stages was killed", again
    if code in (None, -signal.SIGKILL):
        return "was killed: out of memory?", f"a smaller microbatch or fewer jobs; then {again}"
    name = signal_name(code or 0)
    if name is not None:
        return f"was ended by {name}", f"see its log; {again}"
    return f"ended with exit code {code} and no word", f"see its log; {again}"


class LocalPool:
    """Processes of this machine; each has one of its GPUs, where there are some, or as many as it needs."""

    def __init__(self, study: Path, worker: Worker, jobs: int):
        self.study, self.worker, self.jobs = study, worker, jobs
        self.threads = max(1, free_cores() // jobs)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*PRELOAD, worker.__module__, "adaptkit.compare.frozen"])
        _start_server()
        self.gpus = visible_gpus()
        self.on_gpus: dict[StageKey, list[str]] = {}
        self.processes: dict[StageKey, Any] = {}
        self.exit_codes: dict[StageKey, int | None] = {}

    def has_room(self, stage: Stage) -> bool:
        if len(self.processes) >= self.jobs:
            return False
        return not self.gpus or len(self._gpus_for(stage)) == min(stage.gpus, len(self.gpus))

    def _gpus_for(self, stage: Stage) -> list[str]:
        """GPUs that a stage may have now: several that nobody uses, or one that no such stage has."""
        users = Counter(gpu for gpus in self.on_gpus.values() for gpu in gpus)
        if stage.gpus > 1:
            return [gpu for gpu in self.gpus if not users[gpu]][: stage.gpus]
        whole = {gpu for gpus in self.on_gpus.values() if len(gpus) > 1 for gpu in gpus}
        able = [gpu for gpu in self.gpus if gpu not in whole]
        return [min(able, key=users.__getitem__)] if able else []

    def start(self, stage: Stage) -> None:
        self.on_gpus[stage.key] = self._gpus_for(stage)
        args = (self.worker, self.study, stage, self.threads, self.on_gpus[stage.key])
        process = self.context.Process(target=_child, args=args, name=stage.name)
        process.start()
        self.processes[stage.key] = process

    def wait(self) -> list[StageKey]:
        ended = connection.wait([process.sentinel for process in self.processes.values()])
        done = [key for key, process in self.processes.items() if process.sentinel in ended]
        for key in done:
            process = self.processes.pop(key)
            self.on_gpus.pop(key, None)
            process.join()
            self.exit_codes[key] = process.exitcode
        return done

    def exit_code(self, key: StageKey) -> int | None:
        return self.exit_codes.get(key)

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.join()


def _start_server() -> None:
    """Start the server that stages are forked from, without the working folder on its path: that holds the
    user's files."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _child(worker: Worker, study: Path, stage: Stage, threads: int, gpus: list[str]) -> None:
    """Entry of a stage's process: its output goes to the stage's log, and it sees its own GPUs."""
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study passes on what its terminal says, by SIGTERM
    threading.Thread(target=end_with_parent, daemon=True).start()
    log = log_path(study, stage.key)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        match_folder(log)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if stage.gpus > 1:
        run_by_ranks(worker, study, stage, threads)
    else:
        worker(study, stage, threads)


@contextmanager
def _local(study: Path, worker: Worker, jobs: int) -> Iterator[Pool]:
    pool = LocalPool(study, worker, jobs)
    try:
        yield pool
    finally:
        pool.stop()
