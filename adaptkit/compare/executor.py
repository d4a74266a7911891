"""Run the stages of a plan: each in a process of its own, as soon as what it needs is done.

A stage's result is a JSON file; a stage whose file exists is finished and is not run again, so the same
command after a kill goes on where it stopped. Processes are forked from a server that has imported torch and
transformers once, so a stage starts at once, its peak memory is its own, and a stage killed for memory does
not take the study with it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any, Protocol

from adaptkit.errors import AdaptkitError, MissingDependency
from adaptkit.run import read_json, write_json

PRELOAD = [
    "adaptkit.models.store",
    "transformers.models.llama.modeling_llama",
    "peft",
    "sklearn.linear_model",
    "adaptkit.trainer.trainer",
    "adaptkit.pretrain.start",
    "adaptkit.finetune.tasks",
    "adaptkit.compare.stages.run",
]


@dataclass(frozen=True)
class Stage:
    """One step of a study. `flops` is the prediction, `params` is JSON."""

    id: str
    kind: str
    describe: str
    params: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    flops: float = 0.0


class Watcher(Protocol):
    """Told what happens, to show it."""

    def started(self, stage: Stage) -> None: ...
    def finished(self, stage: Stage, seconds: float) -> None: ...


class StageFailed(AdaptkitError):
    """A stage stopped for a reason that is not the user's config or data."""


def result_path(study: Path, stage_id: str) -> Path:
    return study / "stages" / f"{stage_id}.json"


def result(study: Path, stage_id: str) -> dict[str, Any]:
    """What a finished stage returned."""
    return read_json(result_path(study, stage_id))


def execute(study: Path, stages: list[Stage], *, executor: str, jobs: int, watcher: Watcher) -> None:
    """Run all stages that have no result yet.

    Args:
        executor: `local` for processes on this machine, `ray` for tasks on a Ray cluster that sees the same
            folder.
        jobs: processes at once (local).
    Raises: the AdaptkitError of the first stage that fails, once the stages already running have ended.
    """
    waiting = {stage.id: stage for stage in stages if not result_path(study, stage.id).exists()}
    if not waiting:
        return
    with _local(study, jobs) if executor == "local" else _ray(study) as pool:
        running: dict[str, float] = {}
        while waiting or running:
            for stage in _ready(waiting, running):
                if len(running) >= pool.slots:
                    break
                pool.start(stage)
                running[stage.id] = time.monotonic()
                watcher.started(stage)
            for stage_id in pool.wait():
                stage = waiting.pop(stage_id)
                _raise_failure(study, stage)
                watcher.finished(stage, time.monotonic() - running.pop(stage_id))


def _ready(waiting: dict[str, Stage], running: dict[str, float]) -> list[Stage]:
    ready = [
        s for s in waiting.values() if s.id not in running and not any(need in waiting for need in s.needs)
    ]
    if not ready and not running:
        raise StageFailed(
            "stages wait for each other: " + ", ".join(sorted(waiting)), fix="please report this plan"
        )
    return ready


def run_stage(study: Path, stage: Stage, threads: int) -> None:
    """Run one stage here and leave its result, or its error, in the study's folder."""
    from adaptkit.compare.stages.run import STAGES
    from adaptkit.compare.workspace import StudyFolder

    begun = time.monotonic()
    try:
        outcome = STAGES[stage.kind](StudyFolder(study), threads, **stage.params)
        write_json(result_path(study, stage.id), {**outcome, "seconds": round(time.monotonic() - begun, 2)})
    except BaseException as error:
        error_path = study / "stages" / f"{stage.id}.error"
        if isinstance(error, AdaptkitError):
            write_json(
                error_path,
                {"kind": type(error).__name__, "what": error.what, "where": error.where, "fix": error.fix},
            )
        else:
            write_json(
                error_path,
                {
                    "kind": "StageFailed",
                    "what": f"{type(error).__name__}: {error}",
                    "where": None,
                    "fix": None,
                },
            )
        traceback.print_exc()
        raise SystemExit(1) from None


def _raise_failure(study: Path, stage: Stage) -> None:
    """Raises the error that `stage` left, or says that it died without a word."""
    if result_path(study, stage.id).exists():
        return
    from adaptkit import errors

    log, error_path = study / "logs" / f"{stage.id}.log", study / "stages" / f"{stage.id}.error"
    if not error_path.exists():
        raise StageFailed(
            f"stage '{stage.id}' was killed: out of memory?",
            where=str(log),
            fix="a smaller microbatch or fewer jobs, then the same command: it resumes",
        )
    told = json.loads(error_path.read_text())
    error_path.unlink()
    kind = getattr(errors, told["kind"], StageFailed)
    fix = told["fix"] or f"see {log}; the same command resumes"
    raise kind(f"stage '{stage.id}': {told['what']}", where=told["where"], fix=fix)


class _LocalPool:
    def __init__(self, study: Path, jobs: int):
        from adaptkit.trainer.device import free_cores

        self.study, self.slots = study, jobs
        self.threads = max(1, free_cores() // jobs)
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)
        _start_server()
        self.processes: dict[str, Any] = {}

    def start(self, stage: Stage) -> None:
        process = self.context.Process(target=_child, args=(self.study, stage, self.threads), name=stage.id)
        process.start()
        self.processes[stage.id] = process

    def wait(self) -> list[str]:
        ended = connection.wait([p.sentinel for p in self.processes.values()])
        done = [stage_id for stage_id, p in self.processes.items() if p.sentinel in ended]
        for stage_id in done:
            self.processes.pop(stage_id).join()
        return done

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


def _child(study: Path, stage: Stage, threads: int) -> None:
    """Entry of a stage's process: its output goes to the stage's log."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = study / "logs" / f"{stage.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    run_stage(study, stage, threads)


def _end_with_parent() -> None:
    """A study that was killed and started again must not meet its own stages, still writing to the same runs."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _local(study: Path, jobs: int) -> Iterator[_LocalPool]:
    pool = _LocalPool(study, jobs)
    try:
        yield pool
    finally:
        pool.stop()


class _RayPool:
    def __init__(self, study: Path, ray: Any):
        self.study, self.ray = study, ray
        self.slots = 10_000  # Ray queues what its nodes cannot take yet
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        self.task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0)(_on_node)
        self.running: dict[Any, str] = {}

    def start(self, stage: Stage) -> None:
        self.running[self.task.remote(Path.cwd(), self.study, stage)] = stage.id

    def wait(self) -> list[str]:
        done, _ = self.ray.wait(list(self.running), num_returns=1)
        return [self.running.pop(reference) for reference in done]


def _on_node(folder: Path, study: Path, stage: Stage) -> None:
    """Entry of a Ray task: paths in a study are relative to where it was started."""
    os.chdir(folder)
    run_stage(study, stage, 1)


@contextmanager
def _ray(study: Path) -> Iterator[_RayPool]:
    try:
        import ray
    except ImportError:
        raise MissingDependency("--executor ray needs Ray", fix="pip install 'adaptkit[ray]'") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    try:
        yield _RayPool(study, ray)
    finally:
        ray.shutdown()


class Progress:
    """Shows the study's progress: a rich bar on a terminal, one JSON line per event otherwise."""

    def __init__(self, stages: list[Stage], done: set[str]):
        self.weights = {stage.id: max(stage.flops, 1e-9) for stage in stages}
        self.total, self.done = sum(self.weights.values()), sum(self.weights[i] for i in done)
        self.counts = [len(done), len(stages)]
        self.running: list[str] = []
        self.bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (
                TextColumn("[bold]{task.fields[count]}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
            )
            columns += (
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
            )
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.add_task("", total=self.total, completed=self.done, count=self._count())
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def started(self, stage: Stage) -> None:
        self.running.append(stage.id)
        self._show({"event": "started", "stage": stage.id, "describe": stage.describe})

    def finished(self, stage: Stage, seconds: float) -> None:
        self.running.remove(stage.id)
        self.done += self.weights[stage.id]
        self.counts[0] += 1
        self._show(
            {"event": "finished", "stage": stage.id, "seconds": round(seconds, 1), "done": self._count()}
        )

    def _count(self) -> str:
        return f"{self.counts[0]}/{self.counts[1]} stages"

    def _show(self, event: dict[str, Any]) -> None:
        if self.bar:
            self.bar.update(
                self.bar.task_ids[0],
                completed=self.done,
                count=self._count(),
                description=", ".join(self.running[:3]),
            )
        else:
            print(json.dumps(event), file=sys.stderr, flush=True)
