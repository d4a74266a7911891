"""Keep a finished study beside its config: report, verdict, and the scores to judge it again.

    python benchmarks/keep_study.py runs/no-shift-1a2b3c4d benchmarks/results/no_shift

Copies report.md and verdict.json, and packs scores.tar.xz: study.json, and of each run that it names the
cost and the score of every test item, without any text. `unpack` gives a folder that
`adaptkit.study.results.collect` reads. Predicted classes stay; their probabilities, most of the bytes, go.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptkit.run import Run, read_jsonl, write_jsonl
from adaptkit.study.record import STUDY_FILE, StudyRecord, read_study

REPORT = ("report.md", "verdict.json")
SCORES = "scores.tar.xz"
UNREAD = ("probabilities", "text", "prompt", "question", "passages")
"""Fields of item rows that no verdict reads."""


def keep(study: Path, out: Path) -> None:
    """Copy a study's report and pack its scores."""
    out.mkdir(parents=True, exist_ok=True)
    for name in REPORT:
        shutil.copyfile(Run(study).report / name, out / name)
    record = read_study(study)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "study"
        kept.mkdir()
        shutil.copyfile(study / STUDY_FILE, kept / STUDY_FILE)
        for name in runs_of(record):
            _keep_run(Run(study.parent / name), Run(Path(folder) / name))
        with tarfile.open(out / SCORES, "w:xz", preset=9) as archive:
            for path in sorted(Path(folder).rglob("*")):
                archive.add(path, path.relative_to(folder), recursive=False, filter=_anonymous)


def unpack(folder: Path, target: Path) -> Path:
    """Unpack what `keep` packed into a folder; the study's own folder in it."""
    with tarfile.open(folder / SCORES) as archive:
        archive.extractall(target, filter="data")
    return target / "study"


def runs_of(record: StudyRecord) -> list[str]:
    """Every run whose scores or cost a verdict reads."""
    rungs = record.ladder.scores if record.ladder else ()
    names = {row.run for row in (*record.scores, *record.forgetting, *rungs)}
    for score in record.scores:
        names |= {*score.paid_by, *score.tuned_by}
    return sorted(names)


def _keep_run(run: Run, kept: Run) -> None:
    kept.path.mkdir(exist_ok=True)
    if run.cost_path.exists():
        shutil.copyfile(run.cost_path, kept.cost_path)
    for path in sorted((run.path / "eval").glob("*.json*")):
        target = kept.path / "eval" / path.name
        target.parent.mkdir(exist_ok=True)
        if path.suffix == ".jsonl":
            write_jsonl(target, _without_text(path))
        else:
            shutil.copyfile(path, target)


def _without_text(path: Path) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(path):
        yield {name: value for name, value in row.items() if name not in UNREAD}


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes for the same study, whoever packs it."""
    entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    keep(arguments.study, arguments.out)
    print(json.dumps({"kept": str(arguments.out), "bytes": (arguments.out / SCORES).stat().st_size}))


if __name__ == "__main__":
    main()
