"""From words on the command line to a validated config and the run directory it belongs to."""

from __future__ import annotations

import glob
import os
import re
import shutil
from pathlib import Path
from typing import Literal

from adaptkit.config import Config, dump, load
from adaptkit.distill.config import DistillConfig
from adaptkit.embed.config import EmbedConfig, RerankConfig
from adaptkit.errors import ConfigError
from adaptkit.finetune.config import FinetuneConfig
from adaptkit.notices import tell
from adaptkit.planning.config import PlanConfig
from adaptkit.pretrain.config import PretrainConfig
from adaptkit.run import Run, write_text
from adaptkit.run_lock import hold
from adaptkit.study.config import StudyConfig
from adaptkit.study.inputs import input_digests
from adaptkit.study.record import is_study

Kind = Literal["compare", "pretrain", "finetune", "embed", "rerank", "distill", "plan"]
CONFIGS: dict[Kind, type[Config]] = {
    "compare": StudyConfig,
    "pretrain": PretrainConfig,
    "finetune": FinetuneConfig,
    "embed": EmbedConfig,
    "rerank": RerankConfig,
    "distill": DistillConfig,
    "plan": PlanConfig,
}
"""Command -> the class of its config."""
STARTS: dict[Kind, str] = {
    "compare": "adaptkit compare configs/study.yaml",
    "pretrain": "adaptkit pretrain configs/pretrain.yaml",
    "finetune": "adaptkit finetune configs/finetune.yaml",
    "embed": "adaptkit embed train configs/embed.yaml",
    "rerank": "adaptkit embed rerank configs/rerank.yaml",
    "distill": "adaptkit distill configs/distill.yaml",
}
"""Command -> itself with a config to start from."""


def divide(
    words: list[str] | None, *, needed: bool, example: str = STARTS["compare"]
) -> tuple[Path | None, list[str]]:
    """Tell the config file from the overrides in `[CONFIG.yaml] [key=value ...]`.

    Args:
        example: a command that works, for who gave no config.
    Raises: ConfigError for two files, or for none where one is needed.
    """
    files = [word for word in words or [] if "=" not in word or Path(word).is_file()]
    overrides = [word for word in words or [] if word not in files]
    if len(files) > 1:
        what = f"two configs were given: {files[0]} and {files[1]}"
        raise ConfigError(what, where="command line", fix="give one file; everything else is key=value")
    if needed and not files:
        fix = f"start from one in configs/, for example: {example}"
        raise ConfigError("no config was given", where="command line", fix=fix)
    if not files:
        return None, overrides
    return Path(files[0]), overrides


def pairs(words: list[str], option: str) -> dict[str, str]:
    """Words of the form NAME=VALUE by their names.

    Raises: ConfigError for a word without `=`, or a name given twice.
    """
    values: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and value) or name in values:
            what = f"'{word}' gives no new name a value"
            raise ConfigError(what, where=option, fix="write each as NAME=VALUE, every name once")
        values[name] = value
    return values


def kind_of(path: Path | None, overrides: list[str]) -> Kind:
    """Tell by its top-level keys which command a config is for.

    Raises: ConfigError where no command, or more than one, knows most of them.
    """
    keys = load(_AnyKeys, path, overrides).config.model_dump().keys()
    num_known = {kind: len(keys & schema.model_fields.keys()) for kind, schema in CONFIGS.items()}
    best = max(num_known.values())
    fitting = [kind for kind, number in num_known.items() if number == best]
    if len(fitting) != 1:
        fix = f"add {' or '.join(f'--for {kind}' for kind in CONFIGS)}"
        raise ConfigError("cannot tell which command this config is for", where=str(path), fix=fix)
    return fitting[0]


class _AnyKeys(Config):
    """Reads any mapping."""

    model_config = {"extra": "allow"}


def find_run(word: Path, root: Path = Path("runs"), *, study: bool = False) -> Path:
    """The folder that a word means: a path, or the name of a run below `root`, with or without its digest.

    Of several runs of a name the newest is taken, which is said. A folder of other things that is called like
    a study, such as its data, hides no run.

    Args:
        study: only finished studies count.
    """
    if len(word.parts) != 1 or word.is_file() or _holds_run_or_model(word):
        return word
    pattern = re.compile(rf"{re.escape(word.name)}(-[0-9a-f]{{8}})?")
    folders = [folder for folder in root.glob(f"{glob.escape(word.name)}*") if pattern.fullmatch(folder.name)]
    if study:
        folders = [folder for folder in folders if is_study(folder)]
    if not folders:
        return word
    newest = max(folders, key=lambda folder: folder.stat().st_mtime)
    if newest.name != word.name:
        others = f", the newest of {len(folders)}" if len(folders) > 1 else ""
        tell(f"{word} is {newest}{others}")
    return newest


def _holds_run_or_model(folder: Path) -> bool:
    run, models = Run(folder), (folder / "config.json", folder / "adapter_config.json")
    return is_study(folder) or any(path.is_file() for path in (run.manifest_path, run.config_path, *models))


def write_quickstart(root: Path, path: Path | None) -> Path:
    """Write the quickstart's config to a file, to be read like any other and to start one's own from.

    Raises: ConfigError where a config was given as well.
    """
    from adaptkit.compare.quickstart import quickstart_config

    if path is not None:
        what = f"--quickstart and {path} were both given"
        raise ConfigError(what, where="command line", fix="give one of the two")
    chosen = quickstart_config(root).model_dump(mode="json", exclude_unset=True)
    write_text(root / "quickstart.yaml", dump(chosen))
    return root / "quickstart.yaml"


def open_run(config: Config, root: Path, *, resume: bool) -> Run:
    """Open the run directory of a config; without `resume`, empty it first.

    Raises: ConfigError for `--no-resume` under torchrun, where one rank would delete what another writes.
    """
    name, digests = config.model_dump(include={"name"})["name"], input_digests(config)
    run = Run.open(root, name, config, digests)
    if os.environ.get("RANK", "0") == "0":
        hold(run)
    if not resume:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            what = "--no-resume does not work under torchrun"
            raise ConfigError(what, where="command line", fix=f"rm -r {run.path}")
        shutil.rmtree(run.path)
        run = Run.open(root, name, config, digests)
    return run
