"""The files of a model folder beside its weights, as transformers, sentence-transformers and vLLM expect
them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save_file

from adaptkit.export.source import Source
from adaptkit.models.sentence.files import copy_pooling_files

if TYPE_CHECKING:
    from torch import nn


def write(source: Source, model: nn.Module, tokenizer: Any, folder: Path) -> None:
    """config.json, weights, tokenizer, chat template and generation config; for embeddings the pooling too.

    Raises: ModelError for a model that no folder can hold; DiskFullError.
    """
    from adaptkit import models
    from adaptkit.models.sentence.layout import read_layout, write_layout

    models.save(model, tokenizer, folder)
    if source.kind == "embed":
        _drop_poolers(source.folder, folder)
        if (source.folder / "modules.json").is_file():
            copy_pooling_files(source.folder, folder)
        else:
            # without these files vLLM would silently take the first token's state
            write_layout(
                folder,
                read_layout(source.folder, model.config, tokenizer),
                model.config.get_text_config().hidden_size,
            )


def _drop_poolers(source: Path, folder: Path) -> None:
    """A language model's weights have no pooler; the one that transformers made up is not exported."""
    trained = {key for file in source.glob("*.safetensors") for key in _keys(file)}
    if any("pooler" in key for key in trained):
        return
    for file in folder.glob("*.safetensors"):
        keys = _keys(file)
        if any("pooler" in key for key in keys):
            with safe_open(file, framework="pt") as opened:
                kept = {key: opened.get_tensor(key) for key in keys if "pooler" not in key}
            save_file(kept, file, metadata={"format": "pt"})


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())
