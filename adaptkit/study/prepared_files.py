"""The names of a study's prepared data: its rows as they are trained on and judged on.

runs/data-<hash8>/       <corpus>.train.jsonl, .dev.jsonl, .test.jsonl; <task>/ for sets
"""

from __future__ import annotations

from pathlib import Path

from adaptkit.run import digest, file_digest
from adaptkit.study.task import TaskFiles

PREPARED = "prepared"
"""What a run's inputs call the digest of the prepared data: the key of no config, so that the file that a
config names still tells runs apart (all of a text, or a part of it)."""


class PreparedFiles:
    """Names of the prepared data's files."""

    def __init__(self, folder: Path):
        self.folder = folder

    def train(self, corpus: str) -> Path:
        """Training text of `domain` or `general`."""
        return self.folder / f"{corpus}.train.jsonl"

    def dev(self, corpus: str) -> Path:
        return self.folder / f"{corpus}.dev.jsonl"

    def test(self, corpus: str) -> Path:
        return self.folder / f"{corpus}.test.jsonl"

    def task(self, name: str) -> TaskFiles:
        return TaskFiles(self.folder / name, self.train(name), self.dev(name), self.test(name))

    def digest(self) -> str:
        """sha256 over the names and contents of all rows."""
        files = sorted(p for p in self.folder.rglob("*") if p.suffix in (".jsonl", ".tsv"))
        return digest({str(p.relative_to(self.folder)): file_digest(p) for p in files})
