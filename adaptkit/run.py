"""The run directory: the one place that knows the names of a run's files.

    runs/<name>-<hash8>/
        config.yaml      the resolved config          manifest.json    what made this run: versions, data,
        device, status metrics.jsonl    one row per logged step      checkpoints/     step-000500/ (resumable)
        model/           the trained HF folder        tokenizer/       one that the run trained
        adapter/         its peft adapter, if any     base/            what it stands on, if the run made that
        eval/<suite>.jsonl  a row per item (also .dev.jsonl)  eval/<suite>.json   the scores of those rows
        heldout.jsonl    what an export is tested on  calibration.jsonl   what GPTQ calibrates on
        export/<format>/ servable folders             report/{report.html,report.md,verdict.json}
        cost.json  parity.json  bench.json  memorisation.json  bias.json  crash.json  after a step not finite

The hash is of the resolved config without what only costs, the digests of the data and of the models that it
names, and the format of the records, so the same question finds the same folder: a finished run is skipped
and a killed one resumes. Where data, models and the root of all runs stand is no part of it: they can move.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from adaptkit.config import Config, Placed, dump
from adaptkit.disk import whole_file, writing
from adaptkit.environment import environment
from adaptkit.errors import ConfigError, DataError
from adaptkit.seal import digest, digests, file_digest, sealed, unsealed

DELETE = "delete the run directory and run again"
MODEL_FILES = (".safetensors", ".json")
FORMAT: Literal[2] = 2
"""Of a run's records, and part of its identity. The first release wrote no records, which counts as 1."""
IDENTITY: Literal[3] = 3
"""How a run's identity is made. Before 3 it held paths: such a run is read, but not found again to go on."""


class Run:
    """One run directory. `Run.open` makes it or finds it; `finish` marks it done."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._settings = ""

    @classmethod
    def open(
        cls,
        root: str | Path,
        name: str,
        config: Config | dict[str, Any],
        inputs: dict[str, str] | None = None,
        *,
        without: Iterable[str] = (),
    ) -> Run:
        """The run of `config` on data with digests `inputs`, created if it is not there.

        Args:
            root: the folder that holds all runs.
            config: the resolved config. Settings that only cost (`Config.COST_ONLY`) may change: the same
                run goes on with the new ones.
            inputs: sha256 of what the result depends on, by the dotted key of the files or the model
                (`train`, `base`), or by another label. A place in the config that has none counts by its
                name below `root`, or as it is written.
            without: dotted keys that somebody else decides: they tell no runs apart and are not written.
        Raises: ConfigError for a name no folder can have; AdaptkitError where nothing can be written.
        """
        if not re.fullmatch(r"\w[\w.+=@-]{0,119}", name):
            fix = "use at most 120 letters, digits . _ - +"
            raise ConfigError(f"'{name[:40]}' cannot name a folder", where="name", fix=fix)
        fields = written = config if isinstance(config, dict) else config.model_dump(mode="json")
        if isinstance(config, Config):
            fields = config.identity(_by_content(inputs or {}, Path(root)))
        for key in without:
            fields, written = _without(fields, key), _without(written, key)
        identity = digest({"format": FORMAT, "way": IDENTITY, "config": fields, "inputs": inputs or {}})
        run = cls(Path(root) / f"{name}-{identity[:8]}")
        if not run.manifest_path.exists():
            write_text(run.config_path, dump(written))
            run.update_manifest(
                name=name,
                identity=identity,
                identity_format=IDENTITY,
                status="new",
                created=_now(),
                inputs=inputs or {},
                **environment(),
            )
        if run.manifest().get("identity", identity) != identity:
            fix = "delete it or choose another --root"
            raise DataError("holds another run", where=str(run.path), fix=fix)
        run._settings = dump(written)
        if not run.finished:
            run._take_settings()
        return run

    def _take_settings(self) -> None:
        """Write config.yaml where places, or settings that only cost, have changed."""
        text = self._settings
        if text and (not self.config_path.exists() or self.config_path.read_text(encoding="utf-8") != text):
            write_text(self.config_path, text)

    @property
    def config_path(self) -> Path:
        return self.path / "config.yaml"

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
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def base(self) -> Path:
        """What the adapter stands on, where the run made that itself."""
        return self.path / "base"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer that the run trained for itself."""
        return self.path / "tokenizer"

    @property
    def heldout_path(self) -> Path:
        return self.path / "heldout.jsonl"

    @property
    def calibration_path(self) -> Path:
        return self.path / "calibration.jsonl"

    @property
    def teacher_texts(self) -> Path:
        """The training text as a distillation's teacher wrote it."""
        return self.path / "teacher.jsonl"

    def negatives(self, split: str) -> Path:
        """The hard negatives that were mined for a split."""
        return self.path / f"negatives.{split}.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def shards(self, key: str) -> Path:
        """Token shards lie beside the runs, named by what they were made from: runs of a root share them."""
        return self.path.parent / "shards" / key[:16]

    @property
    def exports(self) -> Path:
        """Holds one folder per format."""
        return self.path / "export"

    def export(self, format: str) -> Path:
        return self.exports / format

    def items(self, suite: str, split: str = "test") -> Path:
        return self.path / "eval" / (f"{suite}.jsonl" if split == "test" else f"{suite}.{split}.jsonl")

    def scores(self, suite: str) -> Path:
        return self.path / "eval" / f"{suite}.json"

    @property
    def crash_path(self) -> Path:
        return self.path / "crash.json"

    @property
    def cost_path(self) -> Path:
        return self.path / "cost.json"

    @property
    def parity_path(self) -> Path:
        return self.path / "parity.json"

    @property
    def bench_path(self) -> Path:
        return self.path / "bench.json"

    def audit_path(self, audit: Literal["memorisation", "bias"]) -> Path:
        return self.path / f"{audit}.json"

    def manifest(self) -> dict[str, Any]:
        return read_sealed(self.manifest_path) if self.manifest_path.exists() else {}

    def update_manifest(self, **fields: Any) -> None:
        """Merge `fields` into manifest.json, atomically."""
        write_sealed(self.manifest_path, {**self.manifest(), **fields})

    @property
    def finished(self) -> bool:
        return self.manifest().get("status") == "finished"

    def start(self) -> None:
        """Mark it begun: what an earlier end listed is written anew."""
        self._take_settings()
        argv = [Path(sys.argv[0]).name, *sys.argv[1:]]
        self.update_manifest(status="running", started=_now(), argv=argv, files_written={})

    def finish(self, **fields: Any) -> None:
        """Mark it done, and write down the digest of every file that it leaves."""
        self.update_manifest(status="finished", finished=_now(), files_written=digests(self.path), **fields)

    def fail(self, message: str) -> None:
        self.update_manifest(status="failed", finished=_now(), error=message)

    def log_metrics(self, row: dict[str, Any]) -> None:
        """Append one row to metrics.jsonl."""
        append_jsonl(self.metrics_path, row)

    def metrics(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.metrics_path)) if self.metrics_path.exists() else []

    def keep_metrics_before(self, step: int) -> None:
        """Drop rows of steps after `step`: a resumed run writes them again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        write_text(self.metrics_path, "".join(json.dumps(row) + "\n" for row in rows))


def _by_content(inputs: dict[str, str], root: Path) -> Placed:
    """What stands for a place in an identity: nothing where its digest does, else its name below the root."""

    def placed(key: str, value: Any) -> Any:
        if key.removesuffix(".files") in inputs:
            return None
        if isinstance(value, list):
            return [within_root(name, root) for name in value]
        return within_root(value, root)

    return placed


def within_root(place: str | Path, root: Path) -> str:
    """The name of a file or folder below the root of all runs; what lies elsewhere as it is written."""
    resolved, base = Path(place).expanduser().resolve(), root.resolve()
    if resolved.is_relative_to(base):
        return resolved.relative_to(base).as_posix()
    return str(place)


def _without(tree: dict[str, Any], dotted: str) -> dict[str, Any]:
    """A tree of settings without one of its leaves."""
    first, _, rest = dotted.partition(".")
    if not rest or not isinstance(tree.get(first), dict):
        return {key: value for key, value in tree.items() if key != first}
    return {**tree, first: _without(tree[first], rest)}


def model_digest(folder: Path) -> str:
    """sha256 over the names and bytes of the files that decide what a model computes: weights and configs."""
    files = [path for path in folder.rglob("*") if path.suffix in MODEL_FILES and path.is_file()]
    return digest({path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(files)})


def weights_digest(folder: Path) -> str:
    """sha256 of a folder's weights (of sharded ones, of the first file), empty where it holds none.

    An adapter records it to find its base again: unlike `model_digest` it stays the same when a config or a
    server's figures are written beside the weights.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return ""
    return file_digest(files[0])


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of either.

    Raises: DiskFullError or AdaptkitError, with the old file untouched.
    """
    data = text.encode("utf-8", "backslashreplace")  # half a surrogate pair becomes its JSON escape
    with whole_file(Path(path), len(data)) as temporary, temporary.open("wb") as file:
        file.write(data)


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, sort_keys=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Raises: DataError for a file that is missing or no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"not readable as JSON: {error}", where=str(path), fix=DELETE) from None


def write_sealed(path: str | Path, value: dict[str, Any]) -> None:
    """Write a JSON object with the digest of its content."""
    write_json(path, sealed(value))


def read_sealed(path: str | Path) -> Any:
    """Raises: DataError for a file that is missing, no JSON, or changed since it was written."""
    return unsealed(read_json(path), Path(path))


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_jsonl(path: str | Path, row: dict[str, Any]) -> None:
    """Add one row at the end of a file; a kill cuts at most this line, which `read_jsonl` leaves out.

    Raises: DiskFullError or AdaptkitError.
    """
    path, line = Path(path), json.dumps(row) + "\n"
    with writing(path, len(line)), path.open("a", encoding="utf-8") as file:
        file.write(line)


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSONL file that adaptkit wrote; a last line cut by a kill is left out.

    Raises: DataError at file:line.
    """
    with Path(path).open(encoding="utf-8", newline="\n") as file:  # U+2028 and U+0085 are text, not line ends
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                yield json.loads(line)
            except ValueError as error:
                what = f"not readable as JSON: {error}"
                raise DataError(what, where=f"{path}:{number}", fix=DELETE) from None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
