"""Check that a folder from outside can be served: sound, complete, and nothing in it that vLLM might run.

Nothing of a folder runs here. Loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptkit import model_gate
from adaptkit.errors import ModelError
from adaptkit.weight_files import INDEX, WHOLE, check_index, read_header, read_json_object
from adaptkit.weight_files import weight_files as own_weight_files

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "tekken.json")
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
    check_index(folder, {path.name: read_header(path) for path in weight_files(folder)})


def check_contents(folder: Path) -> None:
    """Check that nothing in a folder runs, unpickles or leads elsewhere.

    Raises: ModelError.
    """
    model_gate.check_folder(folder, for_server=True)


def weight_files(folder: Path) -> list[Path]:
    """Find the safetensors files that make up the model.

    vLLM, transformers and adaptkit each choose among the files of two models by rules of their own, so that a
    folder that holds any other weights is refused.
    Raises: ModelError if one is missing, or one is there that does not belong to the model.
    """
    names = {WHOLE}
    if (folder / INDEX).exists():
        names = {path.name for path in own_weight_files(folder)}
    others = sorted(path.name for path in folder.glob("*.safetensors") if path.name not in names)
    if others and (folder / WHOLE).exists() | (folder / INDEX).exists():
        what = f"holds {others[0]} beside {WHOLE}, and vLLM would load both"
        if (folder / INDEX).is_file():
            what = f"holds {others[0]}, which {INDEX} does not name: the weights of two models"
        fix = "keep the files of one model, and move the others out of the folder"
        raise ModelError(what, where=str(folder), fix=fix)
    return own_weight_files(folder)


def read_object(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file of a model's folder.

    Raises: ModelError.
    """
    return read_json_object(path.parent, path.name)
