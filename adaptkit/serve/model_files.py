"""Read a model folder as data: refuse code, pickles and links that lead out, and check the weight files.

Nothing of a folder runs here. Loads no torch.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from adaptkit.errors import ModelError
from adaptkit.export.record import MANIFEST_FILE

CODE = (".py", ".pyc", ".so", ".sh")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy")
RUNS_CODE = ("auto_map", "_attn_implementation_internal", "custom_pipelines", "trust_remote_code")
LARGE_DATA = ("tokenizer.json", "vocab.json", "model.safetensors.index.json", MANIFEST_FILE)
"""JSON files that are read as data only, so that no setting in them can ask for code."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "tekken.json")
LARGEST_HEADER = 100 * 2**20  # what safetensors itself allows
AGAIN = "export or copy the folder again"


def check_folder(folder: Path) -> None:
    """Check that a model folder is complete, readable, and holds nothing that runs.

    Raises: ModelError.
    """
    check_contents(folder)
    config = read_object(folder / "config.json")
    if not config.get("architectures"):
        raise ModelError("names no architecture", where=str(folder / "config.json"), fix=AGAIN)
    if not any((folder / name).is_file() for name in TOKENIZERS):
        fix = "save the tokenizer beside the weights"
        raise ModelError("no tokenizer in this folder", where=str(folder), fix=fix)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (folder / name).is_file():
            read_object(folder / name)
    for path in weight_files(folder):
        read_header(path)


def check_contents(folder: Path) -> None:
    """Check that nothing in a folder runs, unpickles or leads elsewhere.

    Raises: ModelError.
    """
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(root) and not _in_hub_cache(root, path):
            fix = "copy the file itself into the folder"
            raise ModelError("a link that leads out of the folder", where=str(path), fix=fix)
        if path.suffix in CODE:
            fix = "remove it; adaptkit never runs code of a folder"
            raise ModelError("a model folder holds no code", where=str(path), fix=fix)
        if path.suffix in PICKLES:
            fix = "remove it, or convert it to safetensors where you trust it"
            raise ModelError("a pickle, which can run code when read", where=str(path), fix=fix)
        if path.suffix == ".json" and path.is_file() and path.name not in LARGE_DATA:
            _refuse_settings_that_run_code(path)


def _in_hub_cache(root: Path, link: Path) -> bool:
    """Say whether a link leads into the hub's cache: its snapshots are links into `blobs` beside them."""
    return root.parent.name == "snapshots" and link.resolve().is_relative_to(root.parents[1] / "blobs")


def _refuse_settings_that_run_code(path: Path) -> None:
    pending = [_read_json(path, dict, list)]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        if not isinstance(value, dict):
            continue
        for key in RUNS_CODE:
            if value.get(key):
                fix = "use a model whose architecture is part of transformers: code of a folder never runs"
                raise ModelError(f"'{key}' asks for code to be run", where=str(path), fix=fix)
        pending += value.values()


def weight_files(folder: Path) -> list[Path]:
    """Find the safetensors files that make up the model.

    Raises: ModelError if one is missing.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        what = "no weights in this folder (model.safetensors is missing)"
        raise ModelError(what, where=str(folder), fix=AGAIN)
    shards = sorted(set(read_object(index).get("weight_map", {}).values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise ModelError(f"names a weight file outside the folder: {shard}", where=str(index), fix=AGAIN)
        if not (folder / shard).is_file():
            raise ModelError(f"weight file {shard} is missing", where=str(folder), fix=AGAIN)
    return [folder / shard for shard in shards]


def read_header(path: Path) -> dict[str, Any]:
    """Read the header of a safetensors file: {tensor name: {dtype, shape, data_offsets}}.

    Raises: ModelError for a file that is cut, overlong or no safetensors.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, LARGEST_HEADER):
                raise ValueError("header too large")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError("is no safetensors file, or a cut one", where=str(path), fix=AGAIN) from None
    if size != 8 + length + end:
        what = f"holds {size} bytes, its header tells of {8 + length + end}: it was cut or overwritten"
        raise ModelError(what, where=str(path), fix=AGAIN)
    return header


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file.

    Raises: ModelError.
    """
    return _read_json(path, dict)


def _read_json(path: Path, *kinds: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.name} is missing", where=str(path.parent), fix=AGAIN) from None
    except (ValueError, OSError, RecursionError) as error:
        raise ModelError(f"not readable as JSON: {error}", where=str(path), fix=AGAIN) from None
    if not isinstance(value, kinds):
        raise ModelError("must hold one JSON object", where=str(path), fix=AGAIN)
    return value
