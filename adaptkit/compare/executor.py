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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, NoReturn, Protocol

from adaptkit import errors
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import error_path, log_path, result_path
from adaptkit.disk import match_folder
from adaptkit.doctor import extras
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

Worker = Callable[[Path, Stage, int], None]
"""Runs one stage with so many threads, and leaves its result or its error in the study's folder."""


class Watcher(Protocol):
    """Told what happens, to show it."""

    def started(self, stage: Stage) -> None: ...
    def finished(self, stage: Stage, seconds: float) -> None: ...


class StageFailed(AdaptkitError):
    """A stage stopped for a reason that is not the user's config or data."""


class Pool(Protocol):
    """Where stages run; `slots` of them at once."""

    slots: int

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
    with _local(study, worker, jobs) if executor == "local" else _ray(study, worker) as pool:
        running: dict[StageKey, float] = {}
        while waiting or running:
            for stage in ready(waiting, running):
                if len(running) >= pool.slots:
                    break
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
    """Processes of this machine; each has one of its GPUs, where there are some."""

    def __init__(self, study: Path, worker: Worker, jobs: int):
        self.study, self.worker, self.slots = study, worker, jobs
        self.threads = max(1, free_cores() // jobs)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload([*PRELOAD, worker.__module__])
        _start_server()
        self.gpus = visible_gpus()
        self.on_gpu: dict[StageKey, str] = {}
        self.processes: dict[StageKey, Any] = {}
        self.exit_codes: dict[StageKey, int | None] = {}

    def start(self, stage: Stage) -> None:
        if self.gpus:
            self.on_gpu[stage.key] = min(self.gpus, key=list(self.on_gpu.values()).count)
        args = (self.worker, self.study, stage, self.threads, self.on_gpu.get(stage.key))
        process = self.context.Process(target=_child, args=args, name=stage.name)
        process.start()
        self.processes[stage.key] = process

    def wait(self) -> list[StageKey]:
        ended = connection.wait([process.sentinel for process in self.processes.values()])
        done = [key for key, process in self.processes.items() if process.sentinel in ended]
        for key in done:
            process = self.processes.pop(key)
            self.on_gpu.pop(key, None)
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


def _child(worker: Worker, study: Path, stage: Stage, threads: int, gpu: str | None) -> None:
    """Entry of a stage's process: its output goes to the stage's log, and it sees one GPU."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study passes on what its terminal says, by SIGTERM
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = log_path(study, stage.key)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        match_folder(log)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    worker(study, stage, threads)


def _end_with_parent() -> None:
    """End when the study ends: started again, it must not meet its own stages writing to the same runs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _local(study: Path, worker: Worker, jobs: int) -> Iterator[Pool]:
    pool = LocalPool(study, worker, jobs)
    try:
        yield pool
    finally:
        pool.stop()


class RayPool:
    """Tasks of a Ray cluster, which queues what its nodes cannot take yet."""

    slots = 10_000

    def __init__(self, study: Path, worker: Worker, ray: Any):
        self.study, self.worker, self.ray = study, worker, ray
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self.task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_on_node)
        self.running: dict[Any, StageKey] = {}

    def start(self, stage: Stage) -> None:
        self.running[self.task.remote(self.worker, Path.cwd(), self.study, stage)] = stage.key

    def wait(self) -> list[StageKey]:
        done, _ = self.ray.wait(list(self.running), num_returns=1)
        return [self.running.pop(reference) for reference in done]

    def exit_code(self, key: StageKey) -> int | None:
        return None  # Ray does not say


def _on_node(worker: Worker, folder: Path, study: Path, stage: Stage) -> None:
    """Entry of a Ray task: paths in a study are relative to where it was started."""
    os.chdir(folder)
    worker(study, stage, 1)


@contextmanager
def _ray(study: Path, worker: Worker) -> Iterator[Pool]:
    try:
        import ray
    except ImportError:
        raise extras.missing_extra("ray", "--executor ray needs Ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    try:
        yield RayPool(study, worker, ray)
    finally:
        ray.shutdown()
