"""Copy what says how states become a vector: sentence-transformers' own files, beside the model's.

A server that finds none of them silently takes the first token's state.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.models.sentence.layout import read_pooling
from adaptkit.models.sentence.text_settings import sends_messages
from adaptkit.run import read_json, write_json

MODULES = "modules.json"
SENTENCE_FILES = (MODULES, "config_sentence_transformers.json", "sentence_bert_config.json")
DATA_FILES = (".json", ".safetensors", ".txt")
POOLING = Path("1_Pooling") / "config.json"
WIDTH_KEYS = ("word_embedding_dimension", "embedding_dimension")


def check_mean_pooling(folder: Path) -> None:
    """Raises: ModelError unless the folder says that its vectors are the mean of a text's hidden states."""
    fix = (
        "make the teacher with adaptkit embed train, or take a sentence-transformers model with mean pooling"
    )
    if not (folder / MODULES).exists() or not (folder / POOLING).exists():
        what = "does not say how its hidden states become a vector (no modules.json)"
        raise ModelError(what, where=str(folder), fix=fix)
    pooling, include_prompt = read_pooling(folder / POOLING)
    modules = [str(module.get("type", "")) for module in read_json(folder / MODULES)]
    by_mean = pooling == "mean" and include_prompt and not sends_messages(folder)
    if not by_mean or any(module.endswith("Dense") for module in modules):
        what = "makes its vectors otherwise than by the mean, which is all that a student learns here"
        raise ModelError(what, where=str(folder), fix=fix)


def copy_pooling_files(source: Path, folder: Path, width: int | None = None) -> None:
    """Copy the named files and the folders of the modules (`1_Pooling`, ...), where `source` has them.

    Data only: no code, no pickles, no links.

    Args:
        width: numbers of a vector, where they are others than those of `source`.
    """
    if not (source / MODULES).is_file():
        return
    for name in SENTENCE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for module in read_json(source / MODULES):
        if module["path"]:
            _copy_data(source, folder, module["path"])
    if width is not None:
        pooling = read_json(source / POOLING)
        write_json(folder / POOLING, {**pooling, **{key: width for key in WIDTH_KEYS if key in pooling}})


def _copy_data(source: Path, folder: Path, name: str) -> None:
    """The data files of a module's folder, which need not hold any."""
    part = source / name
    if not part.resolve().is_relative_to(source.resolve()):
        return
    (folder / name).mkdir(parents=True, exist_ok=True)
    if not part.is_dir():
        return
    for path in sorted(part.iterdir()):
        if path.is_file() and not path.is_symlink() and path.suffix in DATA_FILES:
            shutil.copyfile(path, folder / name / path.name)
