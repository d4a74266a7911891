"""Whether effects that others have published appear here: train small models for each, judge predictions.

    python benchmarks/shapes.py                                  # all of benchmarks/shapes/*.yaml
    python benchmarks/shapes.py replay --seconds 120 --jobs 4    # one of them, for two minutes at most
    python benchmarks/shapes.py --toy                            # does every training start? Toy sizes

A shape's file names its trainings (each with the config of pretrain, finetune or embed, some from the model
of another), the tests of their models, what a paper claims, and what was predicted before the run. Run it
from a folder that holds data/ and models/. What is done is kept in --root and found again, also by other
shapes; tables are written of whatever is done when the time is up.

A claim is judged by the paired interval of the difference between two trainings: it `holds` where the whole
interval lies in the range that was stated, `does not hold` where all of it lies outside, and is `open`
otherwise.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from shape_config import DIVERGED, TOY_BYTES, ShapeConfig, TestConfig, merged, toy
from shape_table import Items, report

from adaptkit.config import load
from adaptkit.run import digest, read_json, write_json, write_text

FOLDER = Path(__file__).resolve().with_suffix("")
Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One thing that a worker does: a training at a seed and a rate, or a test of its model."""

    training: str
    seed: int
    rate: int = 0
    test: str = ""


def do(name: str, *arguments: Any) -> Result:
    """Call a function of `shape_work`, in a worker: whoever hands out work needs no torch."""
    return getattr(importlib.import_module("shape_work"), name)(*arguments)


@dataclass(eq=False)
class Shape:
    """A shape while it is run.

    Attributes:
        done: results of jobs; those that failed have an `error`.
    """

    config: ShapeConfig
    root: Path
    small: bool
    done: dict[Job, Result] = field(default_factory=dict)

    def ready(self) -> list[Job]:
        """Jobs that can be done now, those that most others wait for first."""
        jobs = []
        for name in sorted(self.config.trainings, key=self.config.depth, reverse=True):
            training = self.config.training(name)
            for seed in self.config.seeds_of(name):
                if training.recipe != "none" and (not training.start or self.model(training.start, seed)):
                    jobs += [Job(name, seed, rate) for rate in self._rates(name, seed)]
                if self.model(name, seed):
                    jobs += [Job(name, seed, 0, test) for test in self.config.tests_of(name)]
        return [job for job in jobs if job not in self.done]

    def model(self, name: str, seed: int) -> tuple[Path, Path | None] | None:
        """The folder of a model and its run; None where it is not trained."""
        if name not in self.config.trainings:
            return Path(name), None
        training = self.config.training(name)
        if training.recipe == "none":
            return self.model(training.start, 0)
        rate = self.best_rate(name)
        if rate is None:
            return None
        result = self.done.get(Job(name, min(seed, max(self.config.seeds_of(name))), rate), {})
        if "run" not in result:
            return None
        return Path(result["run"]) / "model", Path(result["run"])

    def _rates(self, name: str, seed: int) -> list[int]:
        """The places of the rates to train at; none as long as the best is not known."""
        rates = self.config.training(name).rates
        if len(rates) < 2 or seed == 0:
            return list(range(max(1, len(rates))))
        best = self.best_rate(name)
        return [] if best is None else [best]

    def best_rate(self, name: str) -> int | None:
        """The place of the rate with the least loss at the first seed; None as long as one is not tried."""
        jobs = [Job(name, 0, rate) for rate in self._rates(name, 0)]
        if any(job not in self.done for job in jobs):
            return None
        return min(range(len(jobs)), key=lambda rate: self.done[jobs[rate]]["dev"])

    def work(self, job: Job, threads: int) -> tuple[str, Callable[[], Result]]:
        """A name that equal work shares, and the work."""
        if job.test:
            model = self.model(job.training, job.seed)
            if model is None:
                raise ValueError(f"{job.training} is scored before it is trained")
            test = self._test(job.test)
            key = digest([test.model_dump(mode="json"), *map(str, model)])
            return key, partial(do, "score", test, *model, self.root / "items" / f"{key[:16]}.jsonl")
        training = self.config.training(job.training)
        settings: dict[str, Any] = merged({"name": job.training}, training.config)
        settings = merged(settings, {"trainer": {"seed": job.seed}})
        if training.rates:
            settings = merged(settings, {"trainer": {"learning_rate": training.rates[job.rate]}})
        if self.small:
            settings = toy(settings)
        start = self.model(training.start, job.seed) if training.start else None
        if start is not None:
            settings["base"] = str(start[0])
        key = digest([training.recipe, training.dropout, settings])
        settings = merged(settings, {"trainer": {"threads": threads}})
        return key, partial(do, "train", training.recipe, settings, training.dropout, self.root / "runs")

    def _test(self, name: str) -> TestConfig:
        test = self.config.tests[name]
        if not self.small or test.data is None:
            return test
        data = test.data.model_copy(update={"max_bytes": TOY_BYTES, "on_bad_row": "skip"})
        return test.model_copy(update={"data": data, "seq_len": 64})

    def write(self, out: Path) -> str:
        """Write the tables of what is done; the Markdown."""
        items: Items = {}
        for job, result in self.done.items():
            if job.test and "items" in result:
                items.setdefault((job.test, job.training), []).append(Path(result["items"]))
        tuned = [name for name in self.config.trainings if len(self.config.training(name).rates) > 1]
        best = {name: self.best_rate(name) for name in tuned}
        rates = {name: self.config.training(name).rates[at] for name, at in best.items() if at is not None}
        text, values = report(self.config, items, rates)
        errors = {str(job): result["error"] for job, result in self.done.items() if "error" in result}
        write_text(out / f"{self.config.name}.md", text)
        write_json(out / f"{self.config.name}.json", {**values, "failed": errors})
        return text


@dataclass
class Workers:
    """Processes that do jobs of all shapes until all is done or the time is up."""

    shapes: list[Shape]
    root: Path
    jobs: int
    seconds: float
    started: float = field(default_factory=time.monotonic)
    running: dict[str, tuple[Future[Result], list[tuple[Shape, Job]]]] = field(default_factory=dict)

    def run(self) -> None:
        """Do everything; what is done is kept after every job."""
        own = max(1, len(os.sched_getaffinity(0)) // self.jobs)
        threads = int(os.environ.setdefault("OMP_NUM_THREADS", str(own)))
        kept: dict[str, Result] = read_json(self._place) if self._place.exists() else {}
        pool = ProcessPoolExecutor(self.jobs, mp_context=multiprocessing.get_context("spawn"))
        try:
            while self._begin(pool, kept, threads) and self._left > 0:
                futures = [future for future, _ in self.running.values()]
                wait(futures, min(self._left, 5), FIRST_COMPLETED)
                self._collect(kept)
        finally:
            workers = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.terminate()

    @property
    def _place(self) -> Path:
        return self.root / "done.json"

    @property
    def _left(self) -> float:
        return self.started + self.seconds - time.monotonic()

    def _begin(self, pool: ProcessPoolExecutor, kept: dict[str, Result], threads: int) -> bool:
        """Hand out jobs that can be done now; whether any is at work."""
        taken = True
        while taken:
            taken = False
            for shape in self.shapes:
                for job in shape.ready():
                    key, work = shape.work(job, threads)
                    if key in kept:
                        shape.done[job] = kept[key]
                        taken = True
                    elif key in self.running:
                        if (shape, job) not in self.running[key][1]:
                            self.running[key][1].append((shape, job))
                    elif len(self.running) < self.jobs:
                        self.running[key] = pool.submit(work), [(shape, job)]
        return bool(self.running)

    def _collect(self, kept: dict[str, Result]) -> None:
        for key in [key for key, (future, _) in self.running.items() if future.done()]:
            future, owners = self.running.pop(key)
            try:
                result = kept[key] = future.result()
                write_json(self._place, kept)
            except Exception as error:
                result = {"dev": DIVERGED, "error": f"{type(error).__name__}: {error}"[:800]}
            for shape, job in owners:
                shape.done[job] = result
            shape, job = owners[0]
            at = time.monotonic() - self.started
            print(f"{at:6.1f} s  {shape.config.name}  {job}  {json.dumps(result)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="files of benchmarks/shapes, the most wanted first; all")
    parser.add_argument("--root", type=Path, default=Path("runs/shapes"), help="where what is done is kept")
    parser.add_argument("--out", type=Path, help="folder of the tables; that of --root if left out")
    parser.add_argument("--seconds", type=float, default=7200, help="for everything")
    parser.add_argument("--jobs", type=int, default=1, help="trainings and tests at once")
    parser.add_argument("--toy", action="store_true", help="toy sizes: does every training start?")
    options = parser.parse_args()
    names = options.names or sorted(path.stem for path in FOLDER.glob("*.yaml"))
    root = options.root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    configs = [load(ShapeConfig, FOLDER / f"{name}.yaml").config for name in names]
    shapes = [Shape(config, root, options.toy) for config in configs]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the tables are written then too
    try:
        Workers(shapes, root, options.jobs, options.seconds).run()
    finally:
        for shape in shapes:
            print(shape.write(options.out or root), flush=True)


if __name__ == "__main__":
    main()
