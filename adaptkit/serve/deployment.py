"""Files that run a model or a study elsewhere: in containers, on a cluster, under systemd or a scheduler.

    deployment_of(resolve("models/support"), replicas=2).file("kubernetes")
    StudyJob("tickets", Path("study.yaml"), gpus=4).file("slurm")

Each is filled with what is known of the model: its name, memory, port, and GPUs where they are asked for. A
probe asks `/health`, which answers 200 only after every model has given one real answer. A key comes from a
secret of the place itself and stands in no file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from adaptkit.errors import ConfigError
from adaptkit.export.hardware import Hardware
from adaptkit.export.source import Source
from adaptkit.serve.preflight import needed_bytes
from adaptkit.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
START_SECONDS = 1200
"""How long the models may load before a start counts as failed: 20 minutes."""
STOP_SECONDS = 60
"""How long requests under way may take to finish, after a signal to stop; the server itself waits for 30."""
LIMIT = 1.5
"""A process that takes so many times the memory that was estimated is ended."""
READ_OTHERWISE = re.compile(r"""[\s"'$\\:%]""")


@dataclass(frozen=True)
class Deployment:
    """One model as it is to run elsewhere.

    Attributes:
        name: of the service: a label of DNS.
        folder: the model's, on the machine that runs it.
        memory_gib: what its processes need, of a machine with GPUs the host's part alone.
        image: made by `deploy/Containerfile`.
        slot: which of two deployments of one name this is, while one takes over from the other.
    """

    FILES: ClassVar[Mapping[str, str]] = {
        "compose": "compose.yaml.j2",
        "kubernetes": "kubernetes.yaml.j2",
        "systemd": "systemd.service.j2",
        "skypilot": "skypilot.yaml.j2",
    }

    name: str
    folder: Path
    memory_gib: int
    gpus: int = 0
    port: int = 8000
    replicas: int = 1
    image: str = ""
    slot: str = "blue"

    def file(self, kind: str) -> str:
        """The file for one of `FILES`.

        Raises: ConfigError for another kind, or more replicas than it can start.
        """
        if self.replicas > 1 and kind not in ("kubernetes", "skypilot"):
            what = f"{self.replicas} replicas, and {kind} starts one process"
            raise ConfigError(what, where="--replicas", fix="--print kubernetes, or a file for each machine")
        values = {
            **asdict(self),
            "limit_gib": round(LIMIT * self.memory_gib),
            "start_seconds": START_SECONDS,
            "stop_seconds": STOP_SECONDS,
        }
        return _filled(self.FILES, kind, "a model", values, self.gpus)


@dataclass(frozen=True)
class StudyJob:
    """One study as it is to run elsewhere; what was stopped goes on in the next turn.

    Attributes:
        study: the config, relative to the folder that its paths are relative to.
    """

    FILES: ClassVar[Mapping[str, str]] = {"slurm": "slurm_study.sh.j2", "skypilot": "skypilot_study.yaml.j2"}

    name: str
    study: Path
    memory_gib: int = 32
    gpus: int = 0
    cpus: int = 8

    def file(self, kind: str) -> str:
        """The file for one of `FILES`.

        Raises: ConfigError for another kind, or a path that such a file cannot hold.
        """
        _check_path(self.study)
        return _filled(self.FILES, kind, "a study", asdict(self), self.gpus)


def deployment_of(
    source: Source,
    *,
    name: str = "",
    gpus: int = 0,
    port: int = 8000,
    replicas: int = 1,
    image: str = "",
    slot: str = "blue",
) -> Deployment:
    """What a model needs elsewhere, from what its folder holds; it is served under `name`, or its own.

    Raises: ConfigError for a path that a file of these kinds cannot hold.
    """
    folder = source.folder.resolve()
    _check_path(folder)
    memory_gib = -(-needed_bytes([source], Hardware(cores=8)) // 2**30)
    image = image or f"adaptkit:{__version__}-{'gpu' if gpus else 'cpu'}"
    name = service_name(name or source.name)
    return Deployment(name, folder, memory_gib, gpus, port, replicas, image, slot)


def service_name(name: str) -> str:
    """A name as a label of DNS: letters, digits and -, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "model"


def _check_path(path: Path) -> None:
    if READ_OTHERWISE.search(str(path)):
        what = "a blank, quote, $, %, \\ or : in a path is read otherwise by these files"
        raise ConfigError(what, where=str(path), fix="copy or link it to a path without")


def _filled(files: Mapping[str, str], kind: str, whose: str, values: dict[str, object], gpus: int) -> str:
    if kind not in files:
        what = f"there is no {kind} file for {whose}"
        raise ConfigError(what, where="--print", fix=f"choose from {', '.join(files)}")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    install = "make serve-cpu"
    if gpus:
        install = "python3 -m venv .venv && .venv/bin/pip install -e '.[serve,demo]'"
    command = Path(sys.executable).with_name("adaptkit")
    return environment.get_template(files[kind]).render(
        {**values, "gpu": gpus > 0, "install": install, "command": command}
    )
