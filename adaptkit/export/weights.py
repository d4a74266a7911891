"""Load the models that an export compares, and write a model's folder as all libraries expect it.

load_trained(source), load_unmerged(source, vocab_size)      # merged; base with the adapter on top
write_model(source, model, tokenizer, folder)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from adaptkit import models
from adaptkit.adapters import AdapterConfig, attach, has_adapter, set_weights
from adaptkit.errors import ModelError
from adaptkit.export.record import ServedKind
from adaptkit.export.source import Source, find_base
from adaptkit.models.sentence.layout import read_layout, write_layout
from adaptkit.models.sentence.pooling_files import copy_pooling_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

MODEL_KINDS: dict[ServedKind, models.Kind] = {
    "generate": "causal",
    "classify": "classifier",
    "rerank": "classifier",
    "tag": "tagger",
    "embed": "encoder",
}
NOT_AGAIN = "the merge was checked when it was made, not again"


def load_trained(source: Source, folder: Path | None = None) -> PreTrainedModel:
    """Load the merged model of a source, or another folder of the same kind, in float32."""
    return models.load(folder or source.folder, MODEL_KINDS[source.kind]).eval()


def load_unmerged(source: Source, vocab_size: int) -> PreTrainedModel | str:
    """Load the model as it was trained: its base, in the precision of the training, with the adapter on top.

    Args:
        vocab_size: entries of the run's tokenizer, which may have more than the base's.
    Returns: the model, or a sentence that says why base and adapter cannot be put together again.
    """
    assert source.run is not None and source.record is not None and source.adapter is not None
    settings = source.record.adapter or AdapterConfig()
    base = find_base(source.run, source.record.adapter_base or source.base)
    if base is None:
        return f"the base that the adapter was trained on is not here: {NOT_AGAIN}"
    kind = MODEL_KINDS[source.kind]
    labels = list(source.labels) or None
    try:
        model = models.load(base, kind, label_names=labels, quantization=settings.quantization)
    except ModelError as error:
        return f"the base cannot be loaded ({error.what}): {NOT_AGAIN}"
    if kind in ("classifier", "tagger"):
        padding = models.load_tokenizer(source.folder).pad_token_id
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = padding
    base_size = len(cast(nn.Embedding, model.get_input_embeddings()).weight)
    if vocab_size > base_size:
        model.resize_token_embeddings(vocab_size)
    adapted = attach(model, settings, seed=0, new_tokens=list(range(base_size, vocab_size)))
    assert has_adapter(adapted)
    set_weights(adapted, load_file(source.adapter / "adapter_model.safetensors"))
    return cast("PreTrainedModel", adapted.eval())  # peft's wrapper answers as the model does


def write_model(
    source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    """Write config.json, weights, tokenizer and generation config; for embeddings the pooling too.

    Raises: ModelError for a model that no folder can hold; DiskFullError.
    """
    models.save(model, tokenizer, folder)
    if source.kind != "embed":
        return
    _drop_poolers(source.folder, folder)
    if (source.folder / "modules.json").is_file():
        copy_pooling_files(source.folder, folder)
    else:  # without these files vLLM would silently take the first token's state
        layout = read_layout(source.folder, model.config, tokenizer)
        write_layout(folder, layout, model.config.get_text_config().hidden_size)


def _drop_poolers(source: Path, folder: Path) -> None:
    """Drop the pooler that transformers made up: a language model's weights have none."""
    trained = {key for file in source.glob("*.safetensors") for key in _keys(file)}
    if any("pooler" in key for key in trained):
        return
    for file in folder.glob("*.safetensors"):
        keys = _keys(file)
        if any("pooler" in key for key in keys):
            with safe_open(file, framework="pt") as opened:
                tensors = {key: opened.get_tensor(key) for key in keys if "pooler" not in key}
            save_file(tensors, file, metadata={"format": "pt"})


def _keys(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return list(opened.keys())
