"""A study of 60 stages on 2, 4 and 8 Ray nodes of one core each: its time against the ideal.

    python benchmarks/ray_scaling.py --out benchmarks/results/ray_scaling.json

Stages need each other as those of a study do, and sleep for as long as they are said to take, so that what is
measured is the time until a stage starts and until its end is known. Ideal: every stage starts as soon as
what it needs is done and a node is free.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from adaptkit.compare.executor import execute
from adaptkit.compare.predict import wall_seconds
from adaptkit.compare.stage import Stage
from adaptkit.compare.workspace import result_path
from adaptkit.study.arms import Arm, Origin
from adaptkit.study.stage_record import BASE, FORECAST, PREPARE, TOKENIZER, StageKey

SECONDS = {
    "prepare": 3.0,
    "tokenizer": 2.0,
    "base": 2.0,
    "language": 4.0,
    "task": 3.0,
    "baseline": 1.0,
    "forecast": 1.0,
}
"""How long a stage of each kind sleeps; a trial takes half as long."""


def stages_of_a_study() -> list[Stage]:
    """60 stages: data, tokenizer, base, two trainings on text, three arms on two tasks, trials and seeds."""
    stages = [Stage(PREPARE, ""), Stage(TOKENIZER, "", (PREPARE,)), Stage(BASE, "", (PREPARE,))]
    stages += [Stage(StageKey.for_baseline(task), "", (PREPARE,)) for task in ("first", "second")]
    for origin in (Origin.SCRATCH, Origin.CONTINUED):
        trials = [StageKey.for_language(origin, trial=number) for number in range(4)]
        stages += [Stage(key, "", (TOKENIZER, BASE)) for key in trials]
        stages += [Stage(StageKey.for_language(origin, seed=seed), "", tuple(trials)) for seed in range(5)]
    seeds = tuple(stage.key for stage in stages if stage.key.origin is not None and stage.key.trial is None)
    stages.append(Stage(FORECAST, "", seeds))
    for task in ("first", "second"):
        for name, origin in (
            ("generic+full", None),
            ("scratch+full", Origin.SCRATCH),
            ("generic+lora", None),
        ):
            arm = Arm.parse(name)
            start = BASE if origin is None else StageKey.for_language(origin, seed=0)
            trials = [StageKey.for_task(task, arm, trial=number) for number in range(2)]
            stages += [Stage(key, "", (start,)) for key in trials]
            stages += [Stage(StageKey.for_task(task, arm, seed=seed), "", tuple(trials)) for seed in range(4)]
    return stages


def seconds(stage: Stage) -> float:
    """How long a stage takes."""
    return SECONDS[stage.key.kind.value] / (1 if stage.key.trial is None else 2)


def sleep(study: Path, stage: Stage, threads: int) -> None:
    """Do a stage."""
    time.sleep(seconds(stage))
    result_path(study, stage.key).write_text("{}")


class Silent:
    """A watcher that shows nothing."""

    def started(self, stage: Stage) -> None:
        """Nothing."""

    def finished(self, stage: Stage, seconds: float) -> None:
        """Nothing."""


def measure(nodes: int) -> dict[str, float]:
    """Time of the study on so many nodes, beside the ideal."""
    stages = stages_of_a_study()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(nodes):
        cluster.add_node(num_cpus=1)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder)
            (study / "stages").mkdir()
            begun = time.monotonic()
            execute(study, stages, worker=sleep, executor="ray", jobs=1, watcher=Silent())
            taken = time.monotonic() - begun
    finally:
        cluster.shutdown()
    ideal = wall_seconds(stages, seconds, nodes)
    row = {"nodes": nodes, "stages": len(stages), "seconds": round(taken, 1), "ideal": ideal}
    return {**row, "share_of_ideal": round(ideal / taken, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    parser.add_argument("--nodes", type=int, nargs="+", default=[2, 4, 8])
    options = parser.parse_args()
    rows = []
    for nodes in options.nodes:
        rows.append(measure(nodes))
        print(json.dumps(rows[-1]), flush=True)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
