"""Check the weight files of a model folder, without torch: whole, of one model, and no adapter beside them.

    check_weight_files(Path("models/base"))      # ModelError: says what is wrong and how to mend it

Training, export and serving ask this one module, so that no two of them read other files of a folder.
"""

from __future__ import annotations

import json
import re
import stat
import struct
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy")
AGAIN = "copy or download the folder again"
MIB = 2**20
MAX_HEADER_BYTES = 100 * MIB
"""What safetensors itself allows."""
MAX_JSON_BYTES = 16 * MIB
MAX_BYTES_OF = {"tokenizer.json": 128 * MIB, "vocab.json": 64 * MIB, INDEX: 64 * MIB}
"""The largest tokenizers in use have 40 MB, the largest configs (a name for each of 100,000 classes) 5 MB."""
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
    if not (folder / INDEX).exists():
        return [folder / WHOLE]
    return [folder / name for name in sorted(set(weight_map(folder).values()))]


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
    raise ModelError("no weights in this folder (model.safetensors is missing)", where=str(folder), fix=fix)


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
    files = set(weight_map(folder).values())
    if whole and WHOLE not in files:
        what = f"holds {WHOLE} and {INDEX}, which does not name it: the weights of two models"
        fix = f"remove {WHOLE} if the shards are right, else the index and the shards"
        raise ModelError(what, where=str(folder), fix=fix)
    missing = sorted(name for name in files if not (folder / name).exists())
    if missing:
        what = f"{len(missing)} of {len(files)} weight files are missing, first {missing[0]}"
        raise ModelError(what, where=str(folder), fix=AGAIN)


def weight_map(folder: Path) -> dict[str, str]:
    """Which file of the folder the index names for each tensor.

    Raises: ModelError for an index that names none, or anything but a safetensors file of the folder itself.
    """
    where = str(folder / INDEX)
    named = read_json_object(folder, INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError("names no weights", where=where, fix=AGAIN)
    for name in sorted(set(named.values())):
        if Path(name).name != name or "\\" in name:
            raise ModelError(f"names a weight file outside the folder: {name[:200]}", where=where, fix=AGAIN)
        if not name.endswith(".safetensors"):
            what = f"names a weight file that is no safetensors: {name[:200]}"
            raise ModelError(what, where=where, fix=AGAIN)
    return named


def check_metadata(folder: Path) -> None:
    """Refuse an index that transformers does not read: one without `metadata`, which servers do without.

    Raises: ModelError.
    """
    if not (folder / INDEX).exists() or isinstance(read_json_object(folder, INDEX).get("metadata"), dict):
        return
    what, fix = "has no 'metadata', which transformers asks for", 'add "metadata": {} to it'
    raise ModelError(what, where=str(folder / INDEX), fix=fix)


def check_index(folder: Path, headers: dict[str, dict[str, Any]]) -> None:
    """Check that each tensor is in the file, and only there, that the index names for it.

    Raises: ModelError.
    """
    if not (folder / INDEX).exists():
        return
    named = weight_map(folder)
    for tensor, shard in named.items():
        if tensor not in headers[shard]:
            what = f"names {tensor} in {shard}, which does not hold it"
            raise ModelError(what, where=str(folder / INDEX), fix=AGAIN)
    for shard, header in headers.items():
        strangers = sorted(tensor for tensor in header if named.get(tensor) != shard)
        if strangers:
            what = f"{shard} holds {strangers[0]}, which the index does not name there"
            raise ModelError(what, where=str(folder), fix=AGAIN)


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: {tensor name: {dtype, shape, data_offsets}}.

    Raises: ModelError for a file that is cut, overlong or no safetensors.
    """
    held = path.stat()
    if not stat.S_ISREG(held.st_mode):
        what = f"is {kind_of_entry(held.st_mode)}, not a file"
        raise ModelError(what, where=str(path), fix="put the file itself there")
    size = held.st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, MAX_HEADER_BYTES):
                raise ValueError("header too large")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if not all(_is_shape(entry["shape"]) for entry in header.values()):
            raise ValueError("odd shape")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError("is no safetensors file, or a cut one", where=str(path), fix=AGAIN) from None
    if size != 8 + length + end:
        what = f"holds {size} bytes, its header tells of {8 + length + end}: it was cut or overwritten"
        raise ModelError(what, where=str(path), fix=AGAIN)
    return header


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def read_json_object(folder: Path, name: str) -> dict[str, Any]:
    """The object that a JSON file of a model's folder holds. Raises: ModelError if there is none."""
    try:
        value = read_json_value(folder / name)
    except FileNotFoundError:
        held = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise ModelError(
            f"{name} is missing (the folder holds: {held})",
            where=str(folder),
            fix="give the folder that `save_pretrained` wrote",
        ) from None
    if not isinstance(value, dict):
        raise ModelError("must hold one JSON object", where=str(folder / name), fix=AGAIN)
    return value


def read_json_value(path: Path) -> Any:
    """What a JSON file of a model's folder holds; it is not opened if it is no plain file or too large.

    Raises: FileNotFoundError; ModelError where it cannot be read.
    """
    check_plain(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RecursionError) as error:
        what = f"not readable as JSON: {error}"
        raise ModelError(what, where=str(path), fix=AGAIN) from None


def check_plain(path: Path) -> None:
    """Refuse what no reader should open: a pipe, socket or device, and a file far larger than its kind is.

    Raises: FileNotFoundError; ModelError.
    """
    try:
        held = path.stat()
    except FileNotFoundError:
        raise
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise ModelError(what, where=str(path), fix=AGAIN) from None
    if not stat.S_ISREG(held.st_mode):
        what = f"is {kind_of_entry(held.st_mode)}, not a file"
        raise ModelError(what, where=str(path), fix="put the file itself there")
    most = MAX_BYTES_OF.get(path.name, MAX_JSON_BYTES)
    if held.st_size > most:
        what = f"has {held.st_size / MIB:,.0f} MiB, and no model's {path.name} has more than {most // MIB}"
        raise ModelError(what, where=str(path), fix=AGAIN)


def kind_of_entry(mode: int) -> str:
    """`a named pipe` and the like, for an entry of a folder that is no file."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFLNK: "a link",
    }
    return kinds.get(stat.S_IFMT(mode), "no file")
