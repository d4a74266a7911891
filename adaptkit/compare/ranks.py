"""One stage in several processes that share its model: each on a GPU of its own, as torchrun starts them.

Every process runs the stage's code; they meet where a run is opened and where it is trained. The first alone
writes, and goes on alone once the training is over.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing import connection, parent_process
from pathlib import Path

from adaptkit.compare.stage import Stage, Worker
from adaptkit.run import Run
from adaptkit.trainer import parallel

POLL = 0.2
"""Seconds between looks at whether the first process has finished a run that is not trained."""


def run_by_ranks(worker: Worker, study: Path, stage: Stage, threads: int) -> None:
    """Run a stage in as many processes as it needs GPUs; once one fails, the others are ended.

    Raises: SystemExit where it fails; why then lies in the study's folder.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=stage.gpus,
        run_id=stage.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, _rank)(worker, study, stage, max(1, threads // stage.gpus))
    except ChildFailedError:
        raise SystemExit(1) from None


def _rank(worker: Worker, study: Path, stage: Stage, threads: int) -> None:
    """Entry of each process."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    parallel.shard_models()
    try:
        worker(study, stage, threads)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{stage.name} failed") from None


def is_first() -> bool:
    """Whether this process writes: the only one of its stage, or the first."""
    return os.environ.get("RANK", "0") == "0"


def wait_for_first() -> None:
    """Go on once the first process of this stage has come here too."""
    if "RANK" in os.environ:
        parallel.join("auto").share(None)


def wait_until_finished(run: Run) -> None:
    """In the other processes of a stage: go on once the first has finished a run that it makes alone."""
    while not is_first() and not run.finished:
        time.sleep(POLL)


def leave_to_first() -> None:
    """End here unless this process is the first of its stage, which then counts as the only one.

    Raises: SystemExit without an error in the others.
    """
    if "RANK" not in os.environ:
        return
    if not is_first():
        raise SystemExit(0)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def end_with_parent() -> None:
    """End when the process that started this one ends: a stage that a later start of the study meets would
    write to the same runs."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
