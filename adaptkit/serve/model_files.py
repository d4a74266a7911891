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
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
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
    _check_index(folder, {path.name: read_header(path) for path in weight_files(folder)})


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

    vLLM, transformers and adaptkit each choose among the files of two models by rules of their own, so that a
    folder that holds any other weights is refused.
    Raises: ModelError if one is missing, or one is there that does not belong to the model.
    """
    if (folder / INDEX).is_file():
        files = [folder / shard for shard in _shards(folder)]
    elif (folder / WHOLE).is_file():
        files = [folder / WHOLE]
    else:
        what = "no weights in this folder (model.safetensors is missing)"
        raise ModelError(what, where=str(folder), fix=AGAIN)
    others = sorted(path.name for path in folder.glob("*.safetensors") if path not in files)
    if others:
        what = f"holds {others[0]} beside {WHOLE}, and vLLM would load both"
        if (folder / INDEX).is_file():
            what = f"holds {others[0]}, which {INDEX} does not name: the weights of two models"
        fix = "keep the files of one model, and move the others out of the folder"
        raise ModelError(what, where=str(folder), fix=fix)
    return files


def _shards(folder: Path) -> list[str]:
    """List the files that the index names, each of which is there.

    Raises: ModelError.
    """
    shards = sorted(set(_weight_map(folder).values()))
    for shard in shards:
        if Path(shard).name != shard:
            where = str(folder / INDEX)
            raise ModelError(f"names a weight file outside the folder: {shard}", where=where, fix=AGAIN)
        if not (folder / shard).is_file():
            raise ModelError(f"weight file {shard} is missing", where=str(folder), fix=AGAIN)
    return shards


def _weight_map(folder: Path) -> dict[str, str]:
    """Read which file the index names for each tensor.

    Raises: ModelError for an index that names none.
    """
    named = read_object(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(name, str) for name in named.values()):
        raise ModelError("names no weights", where=str(folder / INDEX), fix=AGAIN)
    return named


def _check_index(folder: Path, headers: dict[str, dict[str, Any]]) -> None:
    """Check that each tensor is in the file, and only there, that the index names for it.

    Raises: ModelError.
    """
    if not (folder / INDEX).is_file():
        return
    named = _weight_map(folder)
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
