"""Check the weight files of a model folder, without torch: whole, of one model, and no adapter beside them.

    check_weight_files(Path("models/base"))      # ModelError: says what is wrong and how to mend it

Training, export and serving ask this one function, so that no two of them read other files of a folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
AGAIN = "copy or download the folder again"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def check_weight_files(folder: Path) -> None:
    """Refuse a folder without complete safetensors weights, or with those of two models.

    Raises: ModelError.
    """
    adapter_files = [name for name in ADAPTER_FILES if (folder / name).exists()]
    if not (folder / WHOLE).exists() and not (folder / INDEX).exists():
        _refuse_no_weights(folder, adapter_files)
    _check_one_model(folder)
    if adapter_files:
        what = f"holds whole weights and an adapter ({adapter_files[0]}), which would be added to them again"
        fix = f"move {', '.join(adapter_files)} into a folder of their own"
        raise ModelError(what, where=str(folder), fix=fix)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a model's weights.

    Raises: ModelError for those of two models, or some that are missing.
    """
    check_weight_files(folder)
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    return [folder / name for name in sorted(set(read_json_object(folder, INDEX)["weight_map"].values()))]


def _refuse_no_weights(folder: Path, adapter_files: list[str]) -> None:
    if adapter_files:
        fix = "give its base model, or merge it first"
        raise ModelError("this is an adapter, not a whole model", where=str(folder), fix=fix)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        what = f"weights only as pickle ({pickled[0]}), which can run code when read"
        conversion = "`AutoModel*.from_pretrained(folder).save_pretrained(new_folder)`"
        raise ModelError(what, where=str(folder), fix=f"convert once where you trust the file: {conversion}")
    fix = "give the folder that `save_pretrained` wrote"
    raise ModelError("model.safetensors is missing", where=str(folder), fix=fix)


def _check_one_model(folder: Path) -> None:
    """Refuse missing shards, and a whole file left beside the shards of another model.

    Which of the two a library reads differs from library to library.
    """
    whole, index = (folder / WHOLE).exists(), (folder / INDEX).exists()
    if not index:
        shards = sorted(path.name for path in folder.iterdir() if _SHARD.fullmatch(path.name))
        if whole and shards:
            what = f"holds {WHOLE} and {shards[0]}: the weights of two models"
            raise ModelError(what, where=str(folder), fix="remove the one that is left over")
        return
    named = read_json_object(folder, INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise ModelError("names no weights", where=str(folder / INDEX), fix=AGAIN)
    files = {str(name) for name in named.values()}
    if whole and WHOLE not in files:
        what = f"holds {WHOLE} and {INDEX}, which does not name it: the weights of two models"
        fix = f"remove {WHOLE} if the shards are right, else the index and the shards"
        raise ModelError(what, where=str(folder), fix=fix)
    missing = sorted(name for name in files if not (folder / name).exists())
    if missing:
        what = f"{len(missing)} of {len(files)} weight files are missing, first {missing[0]}"
        raise ModelError(what, where=str(folder), fix=AGAIN)


def read_json_object(folder: Path, name: str) -> dict[str, Any]:
    """The object that a JSON file of a model's folder holds. Raises: ModelError if there is none."""
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{name} is missing (the folder holds: {held})",
            where=str(folder),
            fix="give the folder that `save_pretrained` wrote",
        ) from None
    except (ValueError, OSError) as error:
        raise ModelError(f"not readable as JSON: {error}", where=str(folder / name), fix=AGAIN) from None
    if not isinstance(value, dict):
        raise ModelError("must hold one JSON object", where=str(folder / name), fix=AGAIN)
    return value
