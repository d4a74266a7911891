"""What turns an encoder's hidden states into a vector: the files of sentence-transformers, carried from
teacher to student.

A server that finds none of them silently takes the first token's state, so an encoder without them is no
teacher.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from adaptkit.errors import ModelError
from adaptkit.run import read_json, write_json

FILES = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "2_Normalize")
POOLING = Path("1_Pooling") / "config.json"


def check_pooling(folder: Path) -> None:
    """Raises: ModelError unless the folder says that its vectors are the mean of a text's hidden states."""
    fix = "make the teacher with adaptkit embed train on an encoder, or take a sentence-transformers model with mean pooling"
    if not (folder / "modules.json").exists() or not (folder / POOLING).exists():
        raise ModelError(
            "does not say how its hidden states become a vector (no modules.json)", where=str(folder), fix=fix
        )
    told = read_json(folder / POOLING)
    if not (told.get("pooling_mode_mean_tokens") or told.get("pooling_mode") == "mean"):
        raise ModelError(
            "pools otherwise than by the mean, which is all that a student learns here",
            where=str(folder),
            fix=fix,
        )


def carry(teacher: Path, student: Path, width: int) -> None:
    """Copy the files beside the student's weights; `width` is the size of its vectors."""
    for name in FILES:
        if (teacher / name).is_dir():
            shutil.copytree(teacher / name, student / name, dirs_exist_ok=True)
        elif (teacher / name).exists():
            shutil.copy(teacher / name, student / name)
    told = read_json(teacher / POOLING)
    sizes = {key: width for key in ("word_embedding_dimension", "embedding_dimension") if key in told}
    write_json(student / POOLING, {**told, **sizes})
    if (teacher / "2_Normalize").is_dir() or '"2_Normalize"' in (teacher / "modules.json").read_text(
        encoding="utf-8"
    ):
        (student / "2_Normalize").mkdir(exist_ok=True)
