"""From words on the command line to a validated config and the run directory it belongs to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from adaptkit.config import Config, dump, leaves, load
from adaptkit.errors import ConfigError
from adaptkit.run import Run, digest, file_digest, write_text

Kind = Literal["compare", "pretrain", "finetune", "embed", "distill"]


def divide(words: list[str] | None, *, needed: bool) -> tuple[Path | None, list[str]]:
    """`[CONFIG.yaml] [key=value ...]` -> the file and the overrides.

    Raises: ConfigError for two files, or for none where one is needed.
    """
    files = [word for word in words or [] if "=" not in word or Path(word).is_file()]
    overrides = [word for word in words or [] if word not in files]
    if len(files) > 1:
        what = f"two configs were given: {files[0]} and {files[1]}"
        raise ConfigError(what, where="command line", fix="give one file; everything else is key=value")
    if needed and not files:
        fix = "start from one in configs/, for example: adaptkit compare configs/study.yaml"
        raise ConfigError("no config was given", where="command line", fix=fix)
    return (Path(files[0]) if files else None), overrides


def schema(kind: Kind) -> type[Config]:
    """The config class of a command."""
    if kind == "compare":
        from adaptkit.study.config import StudyConfig

        return StudyConfig
    if kind == "pretrain":
        from adaptkit.pretrain.config import PretrainConfig

        return PretrainConfig
    if kind == "embed":
        from adaptkit.embed.config import EmbedConfig

        return EmbedConfig
    if kind == "distill":
        from adaptkit.distill.config import DistillConfig

        return DistillConfig
    from adaptkit.finetune.config import FinetuneConfig

    return FinetuneConfig


def kind_of(path: Path | None, overrides: list[str]) -> Kind:
    """Which command a config is for, told by its top-level keys.

    Raises: ConfigError where no command knows most of them.
    """
    keys = load(_AnyKeys, path, overrides).config.model_dump().keys()
    known = {kind: len(keys & schema(kind).model_fields.keys()) for kind in get_args(Kind)}
    best = max(known.values())
    fitting = [kind for kind, count in known.items() if count == best]
    if len(fitting) != 1:
        what = "cannot tell which command this config is for"
        raise ConfigError(
            what, where=str(path), fix=f"add {' or '.join(f'--for {kind}' for kind in get_args(Kind))}"
        )
    return fitting[0]


class _AnyKeys(Config):
    """Reads any mapping."""

    model_config = {"extra": "allow"}


def write_quickstart(root: Path, path: Path | None) -> Path:
    """The quickstart's config as a file, to be read like any other and to start one's own from.

    Raises: ConfigError where a config was given as well.
    """
    if path is not None:
        raise ConfigError(
            f"--quickstart and {path} were both given", where="command line", fix="give one of the two"
        )
    from adaptkit.compare.quickstart import quickstart_config

    chosen = quickstart_config(root).model_dump(mode="json", exclude_unset=True)
    write_text(root / "quickstart.yaml", dump(chosen))
    return root / "quickstart.yaml"


def open_run(config: Any, root: Path, *, resume: bool) -> Run:
    """The run directory of a `pretrain`, `finetune`, `embed` or `distill` config; a fresh one without
    `resume`.

    Raises: ConfigError for `--no-resume` under torchrun, where one rank would delete what another writes.
    """
    fields = config.model_dump(mode="json")
    run = Run.open(root, config.name, fields, inputs(config))
    if not resume:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ConfigError(
                "--no-resume does not work under torchrun", where="command line", fix=f"rm -r {run.path}"
            )
        shutil.rmtree(run.path)
        run = Run.open(root, config.name, fields, inputs(config))
    return run


def inputs(config: Config) -> dict[str, str]:
    """Dotted key -> sha256 over the files that it names: data files, and the files of a model's folder."""
    from adaptkit.data.files import find_files

    digests = {}
    for key, files in _data_files(config):
        found, _ = find_files(files)
        digests[key] = digest([file_digest(file) for file in found])
    for key, name in _model_folders(config):
        from adaptkit import models

        folder = models.find(name)
        weights = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".json")]
        digests[key] = digest({path.name: file_digest(path) for path in weights})
    return digests


def _model_folders(config: Any) -> Iterator[tuple[str, str]]:
    if hasattr(config, "folders"):
        yield from config.folders().items()
    elif base := getattr(config, "base", ""):
        yield "base", base


def _data_files(config: Config) -> Iterator[tuple[str, list[str]]]:
    for key, value in leaves(config.model_dump()).items():
        if key.rpartition(".")[2] == "files" and value:
            yield key.rpartition(".")[0], value
