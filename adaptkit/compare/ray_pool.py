"""Run stages as tasks of a Ray cluster whose nodes share the study's folder.

    with cluster(study, worker) as pool:
        pool.start(stage)

A stage prints to its log in the study's folder, wherever it runs. One whose process or node is lost starts
again, on another node where there is one; what it had trained until its newest checkpoint is kept.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptkit.compare.ranks import run_by_ranks
from adaptkit.compare.stage import Stage, Worker
from adaptkit.compare.workspace import error_path, log_path
from adaptkit.disk import match_folder
from adaptkit.doctor import extras
from adaptkit.errors import ConfigError
from adaptkit.notices import tell
from adaptkit.study.stage_record import StageKey

TRIES = 3
"""How often a stage is started whose process or node is lost."""
ANSWER_S = 60.0
"""How long a node may take to look at the study's folder."""
GONE = "gone"


class RayPool:
    """Tasks of a Ray cluster, at most one a GPU, or one a core where no node has a GPU."""

    def __init__(self, study: Path, worker: Worker, ray: Any):
        self.study, self.worker, self.ray = study, worker, ray
        self.resource = "GPU" if ray.cluster_resources().get("GPU") else "CPU"
        self.running: dict[Any, Stage] = {}
        self.exit_codes: dict[StageKey, int | None] = {}
        self.lost = Counter[StageKey]()

    def has_room(self, stage: Stage) -> bool:
        """Nodes may come and go while a study runs, so they are counted anew each time."""
        free = self.ray.cluster_resources().get(self.resource, 0)
        return not self.running or sum(of.gpus for of in (*self.running.values(), stage)) <= free

    def start(self, stage: Stage) -> None:
        gpus = stage.gpus if self.resource == "GPU" else 0
        # all GPUs of a task are of one node
        task = self.ray.remote(num_cpus=stage.gpus, num_gpus=gpus, max_retries=0)(_on_node)
        self.running[task.remote(self.worker, Path.cwd(), self.study, stage)] = stage

    def wait(self) -> list[StageKey]:
        while True:
            (reference,), _ = self.ray.wait(list(self.running), num_returns=1)
            stage = self.running.pop(reference)
            if self._is_over(stage, reference):
                return [stage.key]

    def exit_code(self, key: StageKey) -> int | None:
        return self.exit_codes.get(key)

    def _is_over(self, stage: Stage, reference: Any) -> bool:
        """Whether a stage has ended; one that was lost starts again instead."""
        try:
            self.exit_codes[stage.key] = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError:
            raise
        except self.ray.exceptions.RayError as error:
            self.lost[stage.key] += 1
            if error_path(self.study, stage.key).exists() or self.lost[stage.key] == TRIES:
                return True
            tell(f"{stage.name} was lost with its process or node ({type(error).__name__}): it starts again")
            self.start(stage)
            return False
        return True


@contextmanager
def cluster(study: Path, worker: Worker) -> Iterator[RayPool]:
    """The cluster that RAY_ADDRESS names, or one of this machine.

    Raises: ConfigError where a node does not see the study's folder.
    """
    try:
        import ray
    except ImportError:
        raise extras.missing_extra("ray", "--executor ray needs Ray") from None
    ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False)
    try:
        check_shared(study, ray)
        yield RayPool(study, worker, ray)
    finally:
        ray.shutdown()


def check_shared(study: Path, ray: Any) -> None:
    """Have every node read what is written here.

    Raises: ConfigError for the first node that cannot.
    """
    mark, word = (study / ".shared").resolve(), secrets.token_hex(8)
    mark.write_text(word)
    try:
        for node in ray.nodes():
            if node["Alive"] and _seen_from(node, mark, ray) not in (word, GONE):
                name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
                fix = "start the study in a folder that all nodes share at the same path (NFS, for example)"
                what = f"the node {name} does not see this folder"
                raise ConfigError(what, where=str(study.resolve()), fix=fix)
    finally:
        mark.unlink(missing_ok=True)


def _seen_from(node: dict[str, Any], path: Path, ray: Any) -> str:
    """What a node reads there; GONE from one that has left the cluster meanwhile."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    try:
        task = ray.remote(num_cpus=0, scheduling_strategy=there)(_read)
        return str(ray.get(task.remote(path), timeout=ANSWER_S))
    except ray.exceptions.GetTimeoutError:
        return ""
    except (ray.exceptions.TaskUnschedulableError, ray.exceptions.WorkerCrashedError):
        return GONE


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _on_node(worker: Worker, folder: Path, study: Path, stage: Stage) -> int:
    """Entry of a Ray task: paths in a study are relative to where it was started. Returns its exit code."""
    os.chdir(folder)
    with _printing_to(log_path(study, stage.key)):
        try:
            if stage.gpus > 1:
                run_by_ranks(worker, study, stage, stage.gpus)
            else:
                worker(study, stage, 1)
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@contextmanager
def _printing_to(log: Path) -> Iterator[None]:
    """Have all that this process prints in a stage's log, as it comes; Ray runs other stages here later."""
    log.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    try:
        with log.open("a") as file:
            match_folder(log)
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        yield
    finally:
        for stream, old in zip((1, 2), before, strict=True):
            os.dup2(old, stream)
            os.close(old)
