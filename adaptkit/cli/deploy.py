"""The command that prints files to run a model or a study elsewhere.

adaptkit deploy MODEL --print kubernetes      a server of this model, with probes that ask for a real answer
adaptkit deploy study.yaml --print slurm      a study that goes on after it was stopped
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from adaptkit.cli.console import Outcome, command
from adaptkit.cli.serve import find_models
from adaptkit.errors import ConfigError

app = typer.Typer()

Deployed = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|STUDY.yaml",
        help="A model's folder or a run, also as NAME=FOLDER, or a study's config.",
        show_default=False,
    ),
]
Kind = Annotated[
    Literal["compose", "kubernetes", "systemd", "skypilot", "slurm"],
    typer.Option("--print", help="Which file; nothing is started.", show_default=False),
]
Gpus = Annotated[int, typer.Option(help="GPUs of each process; 0 is a machine without.", min=0, max=64)]
Port = Annotated[int, typer.Option(help="The server's port.", min=1, max=65535)]
Replicas = Annotated[int, typer.Option(help="Servers of the same model.", min=1, max=1000)]
Image = Annotated[
    str, typer.Option(help="The image of deploy/Containerfile; adaptkit:VERSION-cpu or -gpu else.")
]
Slot = Annotated[
    Literal["blue", "green"],
    typer.Option(help="Which of two deployments, while one takes over from the other."),
]


@command(
    app,
    "deploy",
    [
        "adaptkit deploy models/support --print compose > compose.yaml",
        "adaptkit deploy models/support --print kubernetes --replicas 3 --image example.com/adaptkit:1",
        "adaptkit deploy support=models/support-v2 --print kubernetes --slot green",
        "adaptkit deploy models/support --print systemd --port 9000",
        "adaptkit deploy study.yaml --print slurm --gpus 4",
    ],
)
def deploy(
    model: Deployed,
    print_: Kind,
    gpus: Gpus = 0,
    port: Port = 8000,
    replicas: Replicas = 1,
    image: Image = "",
    slot: Slot = "blue",
) -> Outcome:
    """Print a file that runs a model or a study elsewhere.

    Models: compose, kubernetes, systemd, skypilot. Studies: slurm, skypilot. Keys are taken from a secret of
    the place itself and stand in no file.
    """
    from adaptkit.export.resolve import resolve
    from adaptkit.serve.deployment import StudyJob, deployment_of, service_name

    if model.endswith((".yaml", ".yml")):
        text = StudyJob(service_name(_study_name(Path(model))), Path(model), gpus=gpus).file(print_)
    else:
        (word,), _ = find_models([model])
        source = resolve(word.folder)
        name = word.name or source.name
        deployed = deployment_of(
            source, name=name, gpus=gpus, port=port, replicas=replicas, image=image, slot=slot
        )
        text = deployed.file(print_)
    return Outcome(text.rstrip("\n"), {"kind": print_, "file": text})


def _study_name(config: Path) -> str:
    """Raises: ConfigError for what is no study's config."""
    from adaptkit.config import load
    from adaptkit.study.config import StudyConfig

    if not config.is_file():
        raise ConfigError("no such file", where=str(config), fix="give a study's config, or a model's folder")
    return load(StudyConfig, config).config.name
