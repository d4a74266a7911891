"""The files by which a folder says how it turns text into vectors: sentence-transformers' own, beside the
model's."""

from __future__ import annotations

import shutil
from pathlib import Path

from adaptkit.run import read_json

SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
DATA_FILES = (".json", ".safetensors", ".txt")


def copy_sentence_files(source: Path, folder: Path) -> None:
    """The named files and the folders of the modules (`1_Pooling`, ...), where `source` has them.

    Data only: no code, no pickles, no links.
    """
    if not (source / "modules.json").is_file():
        return
    for name in SENTENCE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for module in read_json(source / "modules.json"):
        part = source / module["path"]
        if module["path"] and part.is_dir() and part.resolve().is_relative_to(source.resolve()):
            for path in sorted(part.iterdir()):
                if path.is_file() and not path.is_symlink() and path.suffix in DATA_FILES:
                    (folder / module["path"]).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, folder / module["path"] / path.name)
