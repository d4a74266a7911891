"""Run the studies of the truth table at a budget B and at 4B, and print the table.

    python benchmarks/truth/run.py --data DIR --out DIR --jobs 2
    python benchmarks/truth/run.py --out DIR --jobs 14 --seconds 360     where --out is prepared already

Each is a study in a folder of its own under --out, run by `adaptkit compare`: what was stopped goes on with
the same command, also on another machine to which --out was copied. What has finished lies in --out/kept,
packed by keep_study.py. --sources names the files of another domain; nothing else is to be changed for one.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path[:0] = [str(REPOSITORY), str(HERE), str(HERE.parent)]

from agreement import BUDGETS  # noqa: E402
from keep_study import keep  # noqa: E402
from prepare import environment, prepare  # noqa: E402
from table import PREDICTED, print_table  # noqa: E402

STUDIES = (
    "general_labels",
    "domain_labels",
    "general_halves",
    "code_text",
    "domain_text",
    "code_labels",
    "domain_small",
    "code_young_base",
    "domain_young_base",
    "few_labels",
    "second_labels",
    "one_source",
)
"""In the order in which they matter, should there not be time for all."""
CORES_EACH, MANY_CORES = 2, 8
"""Stages at once of one study, where there are many cores; one elsewhere."""
GRACE_S = 20.0


@dataclass(frozen=True)
class Job:
    """One study at one budget.

    Attributes:
        budget: `b` or `4b`.
        overrides: of the study's config.
    """

    study: str
    budget: str
    overrides: tuple[str, ...]

    def kept(self, out: Path) -> Path:
        return out / "kept" / self.study / self.budget

    def done(self, out: Path) -> bool:
        return (self.kept(out) / "verdict.json").exists()


def jobs_of(study: str, scale: float) -> list[Job]:
    """The study at both budgets. Only at B smaller trainings are there to forecast from."""
    text = (HERE / "studies" / f"{study}.yaml").read_text(encoding="utf-8")
    amount = scale * float(yaml.safe_load(text)["budget"]["amount"])
    jobs = []
    for budget, factor in BUDGETS.items():
        overrides = [f"budget.amount={amount * factor:.6g}"]
        if factor > 1:
            overrides.append("forecast.share=0")
        jobs.append(Job(study, budget, tuple(overrides)))
    return jobs


class Runner:
    """Studies side by side, each with so many cores, until all are done or time is up."""

    def __init__(self, out: Path, cores: int, deadline: float):
        self.out, self.deadline = out, deadline
        self.each = CORES_EACH if cores >= MANY_CORES else 1
        self.slots = max(1, cores // self.each)
        self.running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self, waiting: list[Job]) -> None:
        waiting = [job for job in waiting if not job.done(self.out)]
        try:
            while (waiting or self.running) and time.monotonic() < self.deadline:
                while waiting and len(self.running) < self.slots:
                    job = waiting.pop(0)
                    self.running[job] = (self._start(job), time.monotonic())
                time.sleep(0.2)
                self._collect()
        finally:
            self._stop()

    def _collect(self) -> None:
        """Keep the results of the studies that have ended."""
        for job, (process, begun) in list(self.running.items()):
            if process.poll() is not None:
                del self.running[job]
                self._ended(job, process.returncode, time.monotonic() - begun)

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        logs = self.out / "logs"
        logs.mkdir(exist_ok=True)
        root = f"runs/{job.study}-{job.budget}"
        command = [sys.executable, "-m", "adaptkit", "compare", str(HERE / "studies" / f"{job.study}.yaml")]
        command += [*job.overrides, f"jobs={self.each}", "--root", root, "--json"]
        with (logs / f"{job.study}-{job.budget}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.out, stdout=log, stderr=log, env=environment())

    def _ended(self, job: Job, code: int, seconds: float) -> None:
        name = f"{job.study} at {job.budget}"
        if code not in (0, 3):
            print(f"{name}: ended with exit code {code}, see logs/{job.study}-{job.budget}.log", flush=True)
            return
        keep(study_folder(self.out, job), job.kept(self.out))
        print(f"{name}: {seconds:.0f} s", flush=True)

    def _stop(self) -> None:
        """Time is up: each study stops, and goes on with the same command."""
        for process, _ in self.running.values():
            process.send_signal(signal.SIGTERM)
        for job, (process, _) in self.running.items():
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            print(f"{job.study} at {job.budget}: stopped, not finished", flush=True)


def study_folder(out: Path, job: Job) -> Path:
    """The finished study in the root of a job."""
    root = out / "runs" / f"{job.study}-{job.budget}"
    return next(path.parent for path in root.glob("*/study.json"))


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on"))
    out: Path = arguments.out.resolve()
    deadline = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
    if arguments.data is not None:
        prepare(arguments.data.resolve(), arguments.sources.resolve(), out)
    pairs = [jobs_of(study, arguments.scale) for study in arguments.studies or STUDIES]
    larger_first = [job for pair in pairs for job in reversed(pair)]
    Runner(out, arguments.jobs, deadline).run(larger_first)
    if not arguments.no_table:
        print_table(out / "kept", HERE / PREDICTED)


def _arguments() -> Any:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of texts and labels, laid out as --sources says")
    parser.add_argument("--sources", type=Path, default=HERE / "sources.yaml")
    parser.add_argument("--out", type=Path, required=True, help="slices, bases, runs, and kept results")
    parser.add_argument("--jobs", type=int, default=2, help="cores in use; default 2")
    parser.add_argument("--seconds", type=float, default=0.0, help="stop then, to go on later; 0 is no limit")
    parser.add_argument("--scale", type=float, default=1.0, help="of both budgets, to try the command")
    parser.add_argument("--no-table", action="store_true", help="print none at the end")
    parser.add_argument("studies", nargs="*", help="names of studies; default all")
    return parser.parse_args()


if __name__ == "__main__":
    main()
