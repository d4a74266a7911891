"""The run directory: the one place that knows the names of a run's files.

    runs/<name>-<hash8>/
        config.yaml      the resolved config          manifest.json    what made this run: versions, data, device, status
        metrics.jsonl    one row per logged step      checkpoints/     step-000500/ (resumable)
        model/           the trained HF folder        export/<format>/ servable
        eval/<suite>.jsonl  one row per item          eval/<suite>.json   the scores computed from those rows
        cost.json  parity.json                        report/{report.html,report.md,verdict.json}

The hash is of the resolved config and the digests of the data, so the same question finds the same folder: a
finished run is skipped and a killed one resumes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adaptkit.errors import DataError, DiskFullError

PACKAGES = ("adaptkit", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy", "safetensors")


class Run:
    """One run directory. `Run.open` makes it or finds it; `finish` marks it done."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def open(cls, root: str | Path, name: str, config: dict[str, Any], inputs: dict[str, str] | None = None) -> Run:
        """The run of `config` on data with digests `inputs`, created if it is not there.

        Args:
            root: the folder that holds all runs.
            config: the resolved config, JSON-able; anything in it that changes must change the result.
            inputs: label -> sha256 of each data file or upstream run that the result depends on.
        """
        run = cls(Path(root) / f"{name}-{digest({'config': config, 'inputs': inputs or {}})[:8]}")
        if not run.manifest_path.exists():
            run.path.mkdir(parents=True, exist_ok=True)
            write_text(run.path / "config.yaml", _yaml(config))
            run.update_manifest(name=name, status="new", created=_now(), inputs=inputs or {}, **environment())
        return run

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def export(self, format: str) -> Path:
        return self.path / "export" / format

    def items(self, suite: str) -> Path:
        return self.path / "eval" / f"{suite}.jsonl"

    def scores(self, suite: str) -> Path:
        return self.path / "eval" / f"{suite}.json"

    @property
    def cost_path(self) -> Path:
        return self.path / "cost.json"

    def manifest(self) -> dict[str, Any]:
        return read_json(self.manifest_path) if self.manifest_path.exists() else {}

    def update_manifest(self, **fields: Any) -> None:
        """Merge `fields` into manifest.json, atomically."""
        write_json(self.manifest_path, {**self.manifest(), **fields})

    @property
    def finished(self) -> bool:
        return self.manifest().get("status") == "finished"

    def start(self) -> None:
        self.update_manifest(status="running", started=_now(), argv=sys.argv)

    def finish(self, **fields: Any) -> None:
        self.update_manifest(status="finished", finished=_now(), **fields)

    def fail(self, message: str) -> None:
        self.update_manifest(status="failed", finished=_now(), error=message)

    def log_metrics(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl."""
        self.path.mkdir(parents=True, exist_ok=True)
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.metrics_path)) if self.metrics_path.exists() else []

    def keep_metrics_before(self, step: int) -> None:
        """Drop rows of steps after `step`: a resumed run writes them again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))


def environment() -> dict[str, Any]:
    """Versions and machine, as manifests record them: no user name, host name or path."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "code": _code_version(),
    }


def _code_version() -> dict[str, Any]:
    """Git commit of a source checkout and whether it was modified; empty for an installed package."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {}
    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "--", "adaptkit", "kernels"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def digest(value: Any) -> str:
    """sha256 of a JSON-able value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_digest(path: str | Path) -> str:
    """sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of either.

    Raises: DiskFullError, with the old file untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno == 28:
            raise DiskFullError(f"disk full: {len(text)} bytes needed", where=str(path), fix="free some space and run the same command again") from None
        raise


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        raise DataError(f"not readable as JSON: {error}", where=str(path), fix="delete the run directory and run again") from None


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file that adaptkit wrote; a last line cut by a kill is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    yield from (json.loads(line) for line in lines if line.endswith("\n"))


def _yaml(config: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
